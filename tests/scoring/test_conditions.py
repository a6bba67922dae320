"""Conditions of difficulty: nested, seeded, exact, and refused where they mean nothing."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.errors import RequestError
from jdna_cli.tasks import conditions, datasets, lookup
from jdna_cli.tasks.conditions import Conditions, context_of_words, fewer_options, pairs_of
from jdna_cli.tasks.examples import Example
from tests import toys

QUESTION = Example("q", ("?",), 2.0, options=tuple("abcdef"))


@given(seed=st.integers(0, 50), name=st.text(max_size=4), right=st.integers(0, 5))
def test_fewer_options_are_a_subset_of_more_and_the_right_one_is_among_them(seed, name, right):
    example = Example(name, ("?",), float(right), options=tuple("abcdef"))
    sets = [fewer_options(example, k, seed) for k in range(2, 8)]
    for k, found in enumerate(sets, 2):
        assert len(found.options) == min(k, 6)
        assert found.options[int(found.label)] == "abcdef"[right]
        assert list(found.options) == sorted(found.options)
    for fewer, more in zip(sets, sets[1:], strict=False):
        assert set(fewer.options) <= set(more.options)


def test_distractors_differ_between_seeds_and_between_questions():
    def kept(seed, name):
        return fewer_options(Example(name, ("?",), 2.0, options=tuple("abcdef")), 3, seed).options

    assert len({kept(seed, "q") for seed in range(20)}) > 3
    assert len({kept(0, f"q{i}") for i in range(20)}) > 3
    counts = Counter(o for i in range(3000) for o in kept(0, str(i)) if o != "c")
    assert max(counts.values()) < 1.15 * min(counts.values())


SENTENCES = [f"word{i} and some others stand here number{i} ." for i in range(12)]
WORDS = st.integers(1, 150)


@given(count=WORDS, place=st.integers(0, 11), sentences=st.integers(1, 12), seed=st.integers(0, 3))
@settings(deadline=None)
def test_a_context_has_exactly_so_many_words_and_holds_the_answer(count, place, sentences, seed):
    place = place % sentences
    text = " ".join(SENTENCES[:sentences])
    answer = f"word{place} and"
    example = Example("q", ("?",), answers=(answer,), context=text)
    pool = [text, "noise of another question . more of it .", f"here is word{place} and more"]
    found = context_of_words(example, count, pool, random.Random(seed))
    assert len(found.split()) == count
    if count >= 2:
        assert answer in found
    if count >= len(SENTENCES[place].split()):
        assert SENTENCES[place] in found
    if count > len(text.split()):
        assert found.startswith(text)
        assert "here is word" not in found, "noise must not hold the answer"


def test_without_an_answer_the_beginning_stays_and_too_little_noise_is_said():
    example = Example("q", ("?",), answers=("nowhere",), context="a b c d e")
    assert context_of_words(example, 3, [], random.Random(0)) == "a b c"
    with pytest.raises(RequestError, match="too little text to fill 9 words for question 'q'"):
        context_of_words(example, 9, ["it is nowhere"], random.Random(0))


def test_an_answer_is_found_past_articles_and_marks():
    words = "It was (the United States), he said.".split()
    assert conditions.answer_place(words, ["United States"]) == (3, 5)
    assert conditions.answer_place(words, ["the US", "united states"]) == (3, 5)
    assert conditions.answer_place(words, ["States United"]) is None


def test_k_shots_are_the_first_of_k_plus_one(shared_data):
    task = lookup.get("arc_easy")
    train = datasets.load(task, "train", shared_data)
    shots = [
        conditions.shots(task, train, Conditions(shots=k, seed=1))[""] for k in (1, 2, 5)
    ]  # fmt: skip
    assert shots[0] == shots[1][:1]
    assert shots[1] == shots[2][:2]
    assert len(shots[2]) == 5
    assert conditions.shots(task, train, Conditions(shots=1, seed=2))[""] != shots[0]
    with pytest.raises(RequestError, match=r"--shots: 9999 asked, .* has 2251"):
        conditions.shots(task, train, Conditions(shots=9999))


def test_directions_by_name_by_group_and_by_number():
    task = lookup.get("multi30k")
    assert pairs_of(task, None) == ("en-de",)
    assert pairs_of(task, "en-fr, en-fr,en-de") == ("en-fr", "en-de")
    for size in (2, 5, 10):
        assert len(pairs_of(task, str(size))) == size
        assert set(pairs_of(task, str(size))) <= set(pairs_of(task, str(size + 1)))
    assert all("cs" in pair for pair in pairs_of(task, "minority"))
    for wrong in ("en-xx", "13", "0"):
        with pytest.raises(RequestError, match="--pairs: task 'multi30k' has"):
            pairs_of(task, wrong)
    with pytest.raises(RequestError, match="is no translation"):
        pairs_of(lookup.get("rte"), "en-de")


@pytest.mark.parametrize("words", [20, 400])
def test_real_contexts_are_cut_and_filled_exactly(shared_data, words):
    task = lookup.get("nq_open")
    found = datasets.load(task, "validation", shared_data)
    put = Conditions(book="open", context_words=words)
    cut = conditions.apply(task, found, put)
    assert {len(example.context.split()) for example in cut.examples} == {words}
    held = [conditions.answer_place((e.context or "").split(), e.answers) for e in cut.examples]
    before = [conditions.answer_place((e.context or "").split(), e.answers) for e in found.examples]
    assert [place is not None for place in held] == [place is not None for place in before]
    assert sum(place is not None for place in before) >= 490
    assert conditions.apply(task, found, put) == cut
    closed = conditions.apply(task, found, Conditions(book="closed"))
    assert all(example.context is None for example in closed.examples)


# ----------------------------------------------------------------------------- on the command line


@pytest.fixture
def toy(families, tmp_path):
    from tests import toys

    toys.write(tmp_path / "data", train=24, validation=12)
    return families, ("--data-dir", tmp_path / "data")


BAD = [
    ("llama", "arc_easy", ("--options", 6), "--options: 6 asked, .* have at most 5"),
    ("llama", "arc_easy", ("--options", 1), "--options: Input should be greater than or equal"),
    ("bert", "rte", ("--options", 2), "'rte' is no multiple choice, but classification"),
    (
        "llama",
        "rte",
        ("--shots", 2),
        "--shots: task 'rte' is classification, which is not prompted",
    ),
    ("llama", "arc_easy", ("--shots", 2, "--split", "train"), "measure on another"),
    ("llama", "arc_easy", ("--shots", 99), "--shots: 99 asked, the training split .* has 24"),
    ("bert", "arc_easy", ("--shots", 2), "--shots: bert is an encoder, it is not prompted"),
    ("llama", "wikitext2_raw", ("--shots", 2), "language-modelling, which is not prompted"),
    ("mbart", "wmt_en_is", (), r"tokenizer does not know Icelandic \(is\)"),
    ("mbart", "multi30k", ("--pairs", "en-xx"), "has no direction 'en-xx': it has en-de, de-en"),
    ("bert", "nq_open", (), "needs a decoder or an encoder-decoder, and bert is an encoder"),
    ("bert", "wikitext2", (), "needs a decoder, and bert is an encoder"),
    ("t5", "wikitext2", (), "needs a decoder, and t5 is an encoder-decoder"),
    ("bert", "mawps", (), r"has no decoder yet: fine-tune it first, `jdna finetune"),
    ("llama", "rte", ("--book", "open"), "--book: task 'rte' is no question answering"),
    (
        "llama",
        "nq_open",
        ("--book", "closed", "--context-words", 9),
        "a closed book has no context",
    ),
    ("llama", "nq_open", ("--context-words", 0), "--context-words: Input should be greater"),
    ("llama", "triviaqa_closed", ("--book", "open"), "has no contexts, leave it closed"),
    ("llama", "arc_easy", ("--chat",), "--chat: the model's tokenizer has no chat template"),
    ("llama", "wikitext2", ("--stride", 9, "--max-length", 8), "--stride: 9 is longer than the"),
    ("llama", "asdiv_a", (), "'asdiv_a' is read from files: name a folder DIR that has asdiv_a/"),
]


@pytest.mark.parametrize(("family", "task", "flags", "message"), BAD)
def test_a_wrong_condition_is_one_line_before_any_model_is_loaded(
    jdna, toy, monkeypatch, family, task, flags, message
):
    import re

    from jdna_cli.models import loading

    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load", never)
    found, data = toy
    result = jdna("eval", found(family), "--task", task, *flags, *data, code=2)
    (line,) = result.err.strip().splitlines()
    assert re.search(message, line), line
    assert jdna("runs", "list", "--json").json == {"runs": []}


def test_an_open_book_without_any_text_is_refused(jdna, toy, tmp_path):
    file = tmp_path / "data" / "nq_open" / "validation.jsonl"
    rows = [{**json.loads(line), "context": None} for line in file.read_text().splitlines()]
    file.write_text("\n".join(map(json.dumps, rows)))
    args = ("eval", toy[0]("llama"), "--task", "nq_open", *toy[1])
    assert "no question of task 'nq_open' has a text here" in jdna(*args, code=2).err
    jdna(*args, "--book", "closed")


def test_shots_without_a_training_split(jdna, toy, tmp_path):
    (tmp_path / "data" / "arc_easy" / "train.jsonl").unlink()
    args = ("eval", toy[0]("llama"), "--task", "arc_easy", "--shots", 1, *toy[1])
    assert "has no training split to take them from" in jdna(*args, code=2).err


def test_each_condition_is_a_column_of_the_views_and_makes_another_run(jdna, toy):
    found, data = toy
    model = found("llama")

    def ask(*args):
        run = jdna("eval", model, *args, *data, "--json").json["run"]
        columns = ("options", "shots", "book", "context_words", "pairs", "mixture")
        return run["id"], {name: run[name] for name in columns if run[name] is not None}

    assert ask("--task", "arc_easy", "--options", 3, "--shots", 2) == (
        1, {"options": 3, "shots": 2},
    )  # fmt: skip
    assert ask("--task", "arc_easy", "--shots", 2) == (2, {"shots": 2})
    assert ask("--task", "arc_easy", "--shots", 2, "--seed", 1) == (3, {"shots": 2})
    assert ask("--task", "arc_easy", "--shots", 2)[0] == 2, "answered from the database"
    opened = {"book": "open", "shots": 0}
    assert ask("--task", "nq_open") == (4, opened)
    assert ask("--task", "nq_open", "--book", "open")[0] == 4
    assert ask("--task", "nq_open", "--context-words", 15) == (5, {**opened, "context_words": 15})
    assert ask("--task", "nq_open", "--book", "closed") == (6, {"book": "closed", "shots": 0})
    both = {"pairs": "en-de,de-en", "mixture": 2, "shots": 0}
    assert ask("--task", "multi30k", "--pairs", 2) == (7, both)
    assert ask("--task", "multi30k", "--pairs", "en-de,de-en")[0] == 7
    rows = jdna(
        "db", "query", "SELECT run_id, options, shots, book, context_words, pairs, mixture, seed "
        "FROM performance ORDER BY run_id", "--json"
    ).json["rows"]  # fmt: skip
    assert rows[0] == [1, 3, 2, None, None, None, None, 0]
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[2][-1] == 1
    assert "options" in json.dumps(jdna("report", "--format", "json").json)


def test_type_and_place_of_the_weights_are_recorded_and_place_changes_nothing(jdna, toy):
    found, data = toy
    args = ("eval", found("llama"), "--task", "arc_easy", *data, "--json")
    plain = jdna(*args).json
    assert (plain["run"]["dtype"], plain["run"]["bits"]) == ("float32", 32)
    assert jdna(*args, "--device-map", "auto").json["run"]["cached"]
    spread = jdna(*args, "--device-map", "auto", "--force").json
    assert spread["metrics"] == plain["metrics"]
    half = jdna(*args, "--dtype", "bfloat16", "--device-map", "sequential").json
    assert (half["run"]["dtype"], half["run"]["bits"]) == ("bfloat16", 16)
    assert half["metrics"]["loss"] == pytest.approx(plain["metrics"]["loss"], rel=0.01)
    assert half["metrics"]["loss"] != plain["metrics"]["loss"]
    assert jdna(*args, "--dtype", "auto").json["run"]["dtype"] == "float32"


def test_a_model_larger_than_its_memory_is_evaluated_from_disk(jdna, toy, monkeypatch):
    """What a device map does where a device is too small: the rest goes to files."""
    from jdna_cli.compute.devices import Placing

    found, data = toy
    args = ("eval", found("llama"), "--task", "arc_easy", *data, "--json")
    plain = jdna(*args).json["metrics"]
    own = Placing.arguments
    monkeypatch.setattr(
        Placing, "arguments", lambda self: {**own(self), "max_memory": {"cpu": 40_000}}
    )
    small = jdna(*args, "--device-map", "auto", "--force").json
    assert small["metrics"]["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert small["metrics"]["accuracy"] == plain["accuracy"]


def test_a_pruned_model_that_was_not_trained_is_compared_with_its_dense_self(jdna, toy):
    found, data = toy
    jdna("prune", found("llama"), "--sparsity", 0.5)
    for model in (found("llama"), "run:1"):
        for shots in (0, 2):
            jdna("eval", model, "--task", "arc_easy", "--shots", shots, *data)
        jdna("eval", model, "--task", "wikitext2", "--max-length", 32, *data)
    rows = jdna(
        "db", "query", "SELECT metric, score, dense_score, relative FROM performance "
        "WHERE sparsity = 0.5", "--json"
    ).json["rows"]  # fmt: skip
    assert len(rows) == 3
    for metric, score, dense, relative in rows:
        expected = dense / score if metric == "perplexity" else score / dense
        assert relative == pytest.approx(expected)


def test_the_report_orders_a_task_by_its_condition_from_easy_to_hard(jdna, toy):
    found, data = toy
    jdna("prune", found("llama"), "--sparsity", 0.5)
    settings = (("--shots", 10), ("--options", 4), ("--shots", 2), ("--options", 2), ())
    for model in (found("llama"), "run:1"):
        for condition in settings:
            jdna("eval", model, "--task", "arc_easy", *condition, *data)
    rows = [r for r in jdna("report", "--format", "json").json if r["sparsity"] == 0.5]
    assert [row["label"].partition(" ")[2] for row in rows] == [
        "(options 2, shots 0)", "(options 4, shots 0)", "(shots 10)", "(shots 2)", "(shots 0)",
    ]  # fmt: skip


def test_what_is_cut_is_counted_and_a_question_is_never_torn(jdna, families, tmp_path):
    """Shots may go from the left, and are told; a question or an option may not."""
    data = toys.write(tmp_path / "data", train=8, validation=6)
    model = families("llama")
    for task in ("arc_easy", "nq_open", "mawps"):
        args = ("eval", model, "--task", task, "--data-dir", data, "--json")
        whole = jdna(*args, "--shots", 1).json["run"]["protocol"]
        assert "lost their beginning" not in (whole or "")
        args = (*args, "--shots", 4)
        cut = jdna(*args, "--max-length", 60).json["run"]["protocol"]
        count, total = re.findall(r"(\d+) of (\d+) prompts lost their beginning", cut)[0]
        assert int(count) == int(total) == (30 if task == "arc_easy" else 6)
        assert ("for the answer" in cut) == (task != "arc_easy")
        message = jdna(*args, "--max-length", 8, code=2).err
        assert re.search(r"the (question|answer) (of )?\d+ takes \d+ tokens, and \d+ are", message)
        assert "--max-length 8" in message


@pytest.mark.parametrize("name", ["arc_easy", "squad", "multi30k", "sst2"])
def test_a_limit_draws_the_same_whatever_the_order_and_the_condition(shared_data, name):
    task = lookup.get(name)
    whole = datasets.load(task, "validation", shared_data)

    def kept(limit, seed=0, records=whole, **more):
        put = Conditions(limit=limit, seed=seed, pairs=task.pairs[:1], **more)
        return conditions.apply(task, records, put)

    hundred = kept(100)
    assert len(hundred) == 100
    assert set(hundred.ids) < set(kept(200).ids)
    assert set(hundred.ids) != set(kept(100, seed=1).ids)
    backwards = datasets.Records(tuple(reversed(whole.examples)))
    assert set(kept(100, records=backwards).ids) == set(hundred.ids)
    assert len(kept(10**6)) == len(kept(None))
    under = {"arc_easy": {"options": 2}, "squad": {"book": "open", "context_words": 90}}.get(name)
    if under:
        assert kept(100, **under).ids == hundred.ids
        both = {e.id: e for e in kept(None, **under).examples}
        assert all(both[e.id] == e for e in kept(100, **under).examples)


def test_a_limited_measurement_is_recorded_marked_and_kept_apart(jdna, families, tmp_path):
    data = toys.write(tmp_path / "data", train=24, validation=16)
    model, seen = families("llama"), ("--task", "arc_easy", "--data-dir", data, "--json")
    whole = jdna("eval", model, *seen).json["run"]
    some = jdna("eval", model, *seen, "--limit", 10).json["run"]
    pruned = jdna("prune", model, "--sparsity", 0.5, "--json").json["run"]["id"]
    jdna("eval", f"run:{pruned}", *seen, "--limit", 10)
    sql = "SELECT sample, sparsity, dense_run_id FROM performance ORDER BY run_id"
    assert jdna("db", "query", sql, "--json").json["rows"] == [
        [None, 0.0, whole["id"]], [10, 0.0, some["id"]], [10, 0.5, some["id"]],
    ]  # fmt: skip
    file = jdna.home / str(some["id"]) / "predictions-validation.jsonl"
    assert len(file.read_text().splitlines()) == 10
    assert "arc_easy (10 drawn)" in jdna("report", "drop").out
    # A limit that leaves nothing out is none.
    assert jdna("eval", model, *seen, "--limit", 5000).json["run"]["cached"]
