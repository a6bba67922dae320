"""An answer must not depend on its company: on its batch, on padding, on what files say of it.

Over every family × kind of task × side of padding × padding token × batch size.
"""

import json
import shutil

import pytest
import torch
import transformers

from jdna_cli.compute import devices
from jdna_cli.scoring import setup
from jdna_cli.scoring.batches import Features
from jdna_cli.scoring.language_model import token_losses
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.specs import EvalSpec, FinetuneSpec, ModelSource
from jdna_cli.tasks import lookup
from tests import toys

SIZES = {1: 1, 3: 1, 64: 8}  # of a batch, and of what its length is a multiple
KINDS = ("classification", "regression", "multiple-choice", "arithmetic", "question-answering")
# How files describe padding: the token (its own, none, that which ends a text, or one that the
# configuration knows nothing of), and the side.
PADDINGS = [("own", "left"), ("none", "right"), ("end", "right"), ("stranger", "right")]
CASES = [
    (family, kind, padding, side)
    for i, family in enumerate(toys.FAMILIES)
    for j, kind in enumerate(KINDS)
    for n, (padding, side) in enumerate(PADDINGS)
    if (i + j + n) % 2 == 0  # each pairing of two of the three, half of all
    and (kind != "question-answering" or toys.form(family) != "encoder")
    # What the configuration says of padding is read by decoders' heads alone.
    and (padding != "stranger" or toys.form(family) == "decoder")
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("company") / "data", train=12, validation=9)


def published(families, family, padding, side, place):
    """A family's model whose files say this of padding."""
    folder = shutil.copytree(families(family), place / "model")
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["padding_side"] = side
    if padding == "none":
        tokenizer.pop("pad_token", None)
        config["pad_token_id"] = None
    elif padding == "end":
        ends = tokenizer.get("eos_token") or tokenizer.get("sep_token")
        tokenizer["pad_token"] = ends
    elif padding == "stranger":
        config["pad_token_id"] = 7
    # What an encoder or an encoder-decoder is made of needs its number.
    if toys.form(family) == "decoder":
        (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def scorer_of(folder, task, length=64):
    spec = FinetuneSpec(model="m", task=task.name, max_length=length,
                        book="open" if task.kind == "question-answering" else None)  # fmt: skip
    source = ModelSource("m", folder, "id")
    scorer = setup.scorer_for(spec, task, source)
    model = scorer.load(source, new_head=True, seed=5)
    model.eval()
    return scorer, model


@pytest.mark.parametrize(("family", "kind", "padding", "side"), CASES)
def test_batches_of_any_size_give_the_same(
    families, data, tmp_path, monkeypatch, family, kind, padding, side
):
    task = lookup.get(toys.KINDS[kind])
    scorer, model = scorer_of(published(families, family, padding, side, tmp_path), task)
    part = setup.prepare(scorer, "validation", data)
    accelerator = devices.accelerator("no")
    found = []
    for size, unit in SIZES.items():
        monkeypatch.setattr(devices, "length_unit", lambda device, unit=unit: unit)
        found.append(scorer.measure(model, part.encoded, EvalContext(size, accelerator)))
    for other in found[1:]:
        assert other.loss == pytest.approx(found[0].loss, rel=1e-5, abs=1e-6)
        for one, same in zip(found[0].rows, other.rows, strict=True):
            assert one.get("written") == same.get("written")
            assert one.get("outputs", 0) == pytest.approx(same.get("outputs", 0), abs=1e-4)


@pytest.mark.parametrize("family", toys.FAMILIES)
@pytest.mark.parametrize("kind", ["classification", "multiple-choice", "arithmetic"])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(
    families, data, tmp_path, monkeypatch, family, kind
):
    task = lookup.get(toys.KINDS[kind])
    scorer, model = scorer_of(published(families, family, "none", "left", tmp_path), task)
    encoded = setup.prepare(scorer, "train", data).encoded
    device = torch.device("cpu")
    with torch.no_grad():
        whole = float(scorer.loss(model, encoded, range(len(encoded)), device))
        parts = [
            (scorer.weight(encoded, [i]), float(scorer.loss(model, encoded, [i], device)))
            for i in range(len(encoded))
        ]
        monkeypatch.setattr(devices, "length_unit", lambda device: 8)
        filled_up = float(scorer.loss(model, encoded, range(len(encoded)), device))
    assert filled_up == pytest.approx(whole, rel=1e-5)
    expected = sum(w * x for w, x in parts) / sum(w for w, _ in parts)
    assert whole == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", toys.DECODERS)
def test_a_decoders_head_reads_the_last_token_of_the_text(families, data, tmp_path, family):
    """Against transformers alone, one example at a time, without any padding."""
    task = lookup.get("rte")
    folder = published(families, family, "stranger", "left", tmp_path)
    scorer, model = scorer_of(folder, task)
    part = setup.prepare(scorer, "validation", data)
    found = scorer.measure(model, part.encoded, EvalContext(64, devices.accelerator("no")))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = None
    for example, row in zip(part.records.examples, found.rows, strict=True):
        ids = torch.tensor([tokenizer(*example.texts)["input_ids"]])
        with torch.no_grad():
            alone = model(input_ids=ids).logits[0]
        assert row["outputs"] == pytest.approx(alone.tolist(), abs=1e-5)


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_text_that_spells_a_special_token_is_text(families, family):
    tokenizer = transformers.AutoTokenizer.from_pretrained(families(family))
    spec = FinetuneSpec(model="m", task="sst2", max_length=64)
    source = ModelSource("m", families(family), "id")
    scorer = setup.scorer_for(spec, lookup.get("sst2"), source)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    plain, spelt = scorer.tokens(
        ["the dog is red", f"the dog {' '.join(tokenizer.all_special_tokens)} is red"]
    )["input_ids"]
    assert [i for i in spelt if i in special] == [i for i in plain if i in special]


@pytest.mark.parametrize("family", toys.ENCODER_DECODERS)
def test_html_in_the_data_does_not_end_a_training(jdna, families, family, tmp_path):
    rows = [
        {"text": f"the {a} <s>is</s> red </s>" if i % 2 else f"the {a}", "label": i % 2}
        for i, a in enumerate(toys.ANIMALS)
    ]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    file = tmp_path / "html.toml"
    file.write_text(
        'kind = "classification"\ntexts = ["text"]\nlabels = ["a", "b"]\n'
        f'[source]\nfiles = "{tmp_path}"\n'
    )
    found = jdna("finetune", families(family), "--task", file, "--epochs", 1, "--json").json
    assert found["run"]["status"] == "finished"


@pytest.mark.parametrize("vocabulary", [300, 49_152, 128_256])
def test_a_tokens_loss_is_that_of_float64(vocabulary):
    logits = torch.randn(2, 3, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    due = torch.tensor([[1, 5, vocabulary - 1], [0, -100, 7]])
    exact = torch.nn.functional.cross_entropy(
        logits.double().flatten(0, 1), due.flatten(), ignore_index=-100, reduction="none"
    )
    found = token_losses(logits, due)
    assert found.shape == due.shape
    assert float((found.flatten().double() - exact).abs().max()) < 1e-5


def test_a_token_without_an_embedding_is_told_before_the_start(jdna, families, tmp_path):
    folder = shutil.copytree(families("llama"), tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    rows = "".join(
        json.dumps({"text": t, "label": i}) + "\n" for i, t in enumerate(("dog", "zebra"))
    )
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    file = tmp_path / "own.toml"
    file.write_text(
        'kind = "classification"\ntexts = ["text"]\nlabels = ["a", "b"]\n'
        f'[source]\nfiles = "{tmp_path}"\n'
    )
    found = jdna("finetune", folder, "--task", file, "--epochs", 1, code=2)
    assert "gives token 'zebra'" in found.err
    assert "they do not belong together" in found.err
    assert jdna("runs", "list", "--json").json["runs"] == []


def test_no_seed_is_taken_that_no_library_takes(jdna, bert):
    for args in (
        ("finetune", bert, "--task", "living", "--seed", 2**32),
        ("prune", bert, "--sparsity", 0.5, "--criterion", "random", "--pruning-seed", 2**63),
        ("eval", bert, "--task", "living", "--seed", 2**64),
    ):
        found = jdna(*args, code=2)
        assert "seed" in found.err
        assert "4294967295" in found.err
    assert EvalSpec(model="m", task="t", split="s", seed=2**32 - 1).seed == 2**32 - 1


def test_what_is_cut_is_counted_and_told(jdna, families, tmp_path):
    data = toys.write(tmp_path / "data", train=40, validation=6)
    where = ("--data-dir", data, "--max-length", 48, "--json")
    args = ("eval", families("llama"), "--task", "arc_easy", *where)
    whole = jdna(*args, "--shots", 1).json["run"]
    short = jdna(*args, "--shots", 32).json["run"]
    said = dict(jdna("db", "query", "SELECT id, protocol FROM run", "--json").json["rows"])
    assert "lost their beginning" not in said[whole["id"]]
    assert "30 of 30 prompts lost their beginning, up to " in said[short["id"]]
    args = ("finetune", families("bert"), "--task", "rte", "--data-dir", data, "--epochs", 1)
    told = jdna(*args, "--max-length", 6)
    assert "6 of 6 texts cut to 6 tokens" in told.out
    assert "cut to" not in jdna(*args, "--max-length", 64).out


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "qwen"])
def test_a_line_break_before_an_answer_does_not_end_it(families, family):
    task = lookup.get("nq_open")
    spec = EvalSpec(model="m", task=task.name, split="validation", book="closed")
    scorer = setup.scorer_for(spec, task, ModelSource("m", families(family), "id"))
    tokenizer = scorer.tokens.tokenizer
    line = tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
    word = tokenizer("red", add_special_tokens=False)["input_ids"]
    prompt = [*word, *line, *word]
    stop = scorer._line_ends(len(prompt))
    answers = [[*line], [*line, *line], [*word], [*line, *word], [*word, *line]]
    ended = [bool(stop(torch.tensor([[*prompt, *answer]]), None)[0]) for answer in answers]
    assert ended == [False, False, False, False, True]


def test_a_batch_is_filled_up_to_a_unit_but_to_no_more_than_texts_may_have():
    texts = Features({"input_ids": [[1] * 5, [1] * 3, [1] * 11]}, filler=9, limit=12)
    lengths = [texts.batch(rows, 8)["input_ids"].shape[1] for rows in ([0, 1], [0, 2], [2], [1])]
    assert lengths == [8, 12, 11, 3], "a text alone is not padded"
    found = texts.batch([1, 1], 8)
    assert found["input_ids"].tolist() == [[1] * 3 + [9] * 5] * 2
    assert found["attention_mask"].tolist() == [[1] * 3 + [0] * 5] * 2


def test_a_link_that_leads_nowhere_is_no_file_of_the_tokenizer(families, tmp_path):
    folder = shutil.copytree(families("bert"), tmp_path / "model")
    (folder / "notes").symlink_to("absent")
    scorer, _ = scorer_of(folder, lookup.get("rte"))
    before = scorer.tokens.tokenizer
    assert scorer_of(folder, lookup.get("rte"))[0].tokens.tokenizer is before
    (folder / "tokenizer_config.json").touch()
    assert scorer_of(folder, lookup.get("rte"))[0].tokens.tokenizer is not before
