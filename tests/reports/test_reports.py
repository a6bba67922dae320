"""Reports say what the database says, and that there is nothing where there is nothing."""

import json
import re
import time

import pytest

from benchmarks import simulated
from jdna_cli import reports
from jdna_cli.reports import cells, labels
from jdna_cli.reports.query import Filters, source_of
from jdna_cli.reports.rendering import plots
from jdna_cli.store import reading
from tests.conftest import run_jdna
from tests.pipelines.test_variants import SMALL


def source(home, **filters):
    return source_of(f"sqlite:///{home}/jdna.db", home, Filters(**filters))


# ---------------------------------------------------------------------------------------- figures


def test_cells_are_those_of_the_view(home):
    own = cells.load(source(home))
    view = reading.query(f"sqlite:///{home}/jdna.db", "SELECT * FROM performance_drop").records()
    names = [name for name in view[0] if name in own[0]]
    assert {"mean_relative_drop", "sd_relative_drop", "difficulty", "share_lost", "n"} < set(names)
    key = (*cells.CONDITION_COLUMNS, *cells.PRUNING_COLUMNS)
    mine = {tuple(row[name] for name in key): row for row in own}
    assert len(mine) == len(own) == len(view)
    for row in view:
        found = mine[tuple(row[name] for name in key)]
        for name in names:
            if isinstance(row[name], float):
                assert found[name] == pytest.approx(row[name], abs=1e-12), name
            else:
                assert found[name] == row[name], name


@pytest.mark.parametrize("name", sorted(set(reports.names()) - {"compare", "paper", "dynamics",
                                                                "barrier", "tradeoff", "sizes",
                                                                "quantization", "layers",
                                                                "scan"}))  # fmt: skip
def test_every_report_is_a_table_a_figure_and_data(jdna, home, name, tmp_path):
    args = ("report", name, "--home", home)
    assert "──" in jdna(*args).out
    assert jdna(*args, "--format", "markdown").out.count("|---|")
    latex = jdna(*args, "--format", "latex").out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") > 0
    rows = jdna(*args, "--json").json["rows"]
    columns = jdna(*args, "--format", "csv").out.splitlines()[0].split(",")
    assert list(rows[0]) == columns
    assert not [name for name in columns if name.startswith("_")]
    tasks = {row["task"] for row in rows}
    # Of all forms in one report, and one form of the others: the same bytes each time.
    for suffix in plots.SUFFIXES if name == "regimes" else (".svg",):
        made = []
        for i in range(2):
            file = tmp_path / f"{i}{suffix}"
            condition = {"context": "context_words", "languages": "pairs"}.get(name, name)
            few = ("easy", f"by-{condition}") if f"by-{condition}" in tasks else ("easy", "hard")
            jdna(*args, "--plot", file, "--task", few[0], "--task", few[1])
            made.append(file.read_bytes())
        assert made[0] == made[1], suffix


def test_the_conditions_are_ordered_from_easy_to_hard(jdna, home):
    for name, words in (("adequacy", ("100% of the data", "50% of the data", "25% of the data")),
                        ("options", ("4 options", "2 options")), ("shots", ("4 shots", "0 shots")),
                        ("book", ("open book", "closed book")),
                        ("context", ("200 words", "50 words")),
                        ("languages", ("en-de ", "en-de,de-en"))):  # fmt: skip
        found = jdna("report", name, "--home", home).out
        places = [found.index(word) for word in words]
        order = sorted(places) if name not in ("options", "context") else places
        assert places == order, name


def test_an_interval_stands_in_each_cell_that_has_seeds(jdna, home):
    rows = jdna("report", "--home", home, "--task", "easy", "--regime", "sparse", "--criterion",
                "magnitude", "--json").json["rows"]  # fmt: skip
    own = [r for r in rows if r["sparsity"] == 0.5 and r["model"] == "org/one"
           and (r["data_fraction"], r["pattern"]) == (1.0, "unstructured")]  # fmt: skip
    (row,) = own
    half = row["ci_high"] - row["mean_relative_drop"]
    shown = jdna("report", "--home", home, "--task", "easy", "--regime", "sparse").out
    assert f"{100 * row['mean_relative_drop']:.1f} ± {100 * half:.1f}" in shown
    # Chance is 50 %: a drop of so many points is that much of the way down.
    assert row["share_lost"] == pytest.approx(
        (row["dense_score"] - row["score"]) / (row["dense_score"] - 0.5)
    )


def test_regimes_and_criteria_stand_side_by_side(jdna, home):
    found = jdna("report", "regimes", "--home", home, "--task", "hard").out
    assert all(word in found for word in ("sparse ", "dense-frozen", "sparse-to-dense"))
    found = jdna("report", "criteria", "--home", home, "--task", "easy").out
    assert all(word in found for word in ("magnitude", "random", "wanda"))


def test_pruning_and_rounding_stand_side_by_side_by_size(measured, tmp_path):
    rows = measured("report", "quantization", "--format", "json").json
    sizes = [row["bits_per_weight"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["criterion"] for row in rows] == ["magnitude", None, "magnitude"]
    half, rounded, most = rows
    # A mask of one bit, and the kept values of 32 bits.
    assert half["bits_per_weight"] == pytest.approx(1 + 0.5 * 32, abs=0.01)
    assert most["bits_per_weight"] == pytest.approx(1 + 0.1 * 32, abs=0.01)
    assert (rounded["quantization"], rounded["bits"]) == ("4 bits symmetric per channel", 4)
    found = measured("report", "compression", "--plot", tmp_path / "c.png").out
    assert "Compression · TinyBERT · living · dense" in found
    assert "quantized · symmetric per channel" in found
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_cost_is_what_was_measured_and_says_where_there_is_no_gain(measured, tmp_path):
    rows = measured("report", "tradeoff", "--format", "json").json
    packed = [row for row in rows if row["bytes"] and row["bytes"] < row["dense_bytes"]]
    assert [row["pattern"] for row in packed] == ["2:4"]
    timed = [row for row in rows if row["latency_ms"] is not None]
    dense, sparse = timed
    assert dense["speed_up"] == 1
    assert sparse["speed_up"] == pytest.approx(dense["latency_ms"] / sparse["latency_ms"])
    # On the front is what no other beats in both.
    for row, other in ((dense, sparse), (sparse, dense)):
        beaten = other["score"] >= row["score"] and other["latency_ms"] < row["latency_ms"]
        assert row["front_time"] == (not beaten)
    found = measured("report", "cost", "--plot", tmp_path / "c.svg").out
    assert "Cost · size on disk" in found
    said = "No gain in time" in found
    assert said == (sparse["speed_up"] < 1.05)
    assert (tmp_path / "c.svg").is_file()


def test_dynamics_tell_where_each_run_ended(measured, tmp_path):
    rows = measured("report", "dynamics", "--format", "json").json
    assert {row["step"] for row in rows} == {0, 8, 16, 24}
    found = measured("report", "dynamics", "--plot", tmp_path / "d.pdf").out
    assert "sparse 50% · seed 41" in found
    assert (tmp_path / "d.pdf").is_file()


def test_the_drop_of_what_was_rounded_or_taught_has_its_own_table(measured):
    found = measured("report").out
    assert "quantized · symmetric per channel" in found
    assert "4 bits" in found
    assert "taught by TinyBERT (dense)" in found


def test_two_runs_are_compared_on_the_same_examples(measured):
    (row,) = measured("report", "compare", "--run", 1, "--run", 3, "--json").json["rows"]
    folders = [measured.home / str(i) / "predictions-validation.jsonl" for i in (1, 3)]
    right = [[json.loads(x)["label"] == json.loads(x)["prediction"]
              for x in f.read_text().splitlines()] for f in folders]  # fmt: skip
    assert row["examples"] == len(right[0])
    assert row["only_first"] == sum(a and not b for a, b in zip(*right, strict=True))
    assert row["only_second"] == sum(b and not a for a, b in zip(*right, strict=True))
    assert row["difference"] == pytest.approx(row["second_score"] - row["first_score"])
    assert "sparsity none → 0.5" in row["differs_in"]
    for args, message in (((), "name the two runs"), (("--run", 1, "--run", 99), "no run 99"),
                          (("--run", 1, "--run", 2), "run 2 is finished (prune)")):  # fmt: skip
        assert message in measured("report", "compare", *args, code=2).err


def test_advice_is_a_sparsity_with_its_interval(jdna, home):
    rows = jdna("report", "advise", "--task", "hard", "--tolerance", "20%", "--regime", "sparse",
                "--home", home, "--json").json["rows"]  # fmt: skip
    own = {row["kind"]: row for row in rows}
    # drop = 0.9 s, a little less by what each seed adds: 20 % at about 0.22, between 0 and 30 %.
    row = own["unstructured"]
    assert row["ci_low"] <= row["critical_sparsity"] <= row["ci_high"]
    assert 0 < row["ci_low"] <= 0.2 / 0.9 <= row["ci_high"] < 0.3
    assert row["interval_over"] == "seeds"
    assert row["between"] == [0.0, 0.3]
    # Of N:M there is nothing between two patterns: 6:8 drops by 11 %, 4:8 by 23 %.
    assert own["N:M"]["pattern"] == "6:8"
    told = jdna("report", "advise", "--task", "hard", "--tolerance", "0.2", "--home", home).out
    assert "of the prunable weights may go" in told
    assert "--sparsity 0.15, between 0% and 30%" in told


def test_advice_of_one_seed_rests_on_its_examples(measured):
    (row,) = measured("report", "advise", "--criterion", "magnitude", "--tolerance", "50%",
                      "--regime", "sparse", "--json").json["rows"][:1]  # fmt: skip
    assert row["resampled"].endswith("examples")
    assert row["ci_low"] <= row["ci_high"]


def test_advice_is_a_sentence_for_patterns_and_perplexity_too(tmp_path):
    cell = {"model": "org/m", "seed": 1}
    text = {**cell, "task": "text", "metric": "perplexity", "chance": None, "human": None}
    rows = [simulated.dense(**text, score=20.0), simulated.dense(**cell, task="t", score=0.8)]
    rows += [{**text, "sparsity": s, "score": v} for s, v in ((0.3, 20.1), (0.5, 30.0))]
    rows += [{**cell, "task": "t", "pattern": p, "scope": None, "sparsity": s, "score": v}
             for p, s, v in (("6:8", 0.25, 0.799), ("4:8", 0.5, 0.6))]  # fmt: skip
    home = simulated.record(tmp_path / "home", rows)
    told = " ".join(run_jdna("report", "advise", "--home", home).out.split())
    assert "before perplexity rises above 20.20 (dense: 20.00)" in told
    assert "6:8 (25% zeros) is the sparsest pattern measured before accuracy drops by" in told
    home = simulated.record(
        tmp_path / "worse",
        [simulated.dense(**cell, task="t", score=0.8),
         {**cell, "task": "t", "pattern": "4:8", "scope": None, "sparsity": 0.5, "score": 0.6}],
    )  # fmt: skip
    told = " ".join(run_jdna("report", "advise", "--home", home).out.split())
    assert "at every pattern measured, from 4:8 on, accuracy drops by more than 1.0%" in told


def test_own_runs_stand_beside_the_published_curves(jdna, tmp_path):
    own = {"model": "org/roberta", "task": "sst2"}
    found = [simulated.dense(**own, score=0.95), {**own, "sparsity": 0.5, "score": 0.9}]
    home = simulated.record(tmp_path / "p", found)
    args = ("report", "paper", "cross-task", "--home", home)
    rows = jdna(*args, "--json").json["rows"]
    (mine,) = [row for row in rows if row["yours"] is not None]
    assert (mine["series"], mine["level"]) == ("SST-2 (easy)", "50")
    assert mine["difference"] == pytest.approx(100 * 0.9 / 0.95 - mine["published"])
    hidden = [row for row in rows if row["reading"] == "hidden"]
    assert hidden
    assert all(row["published"] is None for row in hidden)
    assert "org/roberta" in jdna(*args, "--plot", tmp_path / "p.svg").out
    assert "did you mean 'cross-task'" in jdna("report", "paper", "cros", "--home", home,
                                                code=2).err  # fmt: skip
    assert "name a published figure" in jdna("report", "paper", "--home", home, code=2).err


def test_the_published_curves_are_those_that_were_read(shared_data):
    from importlib import resources

    ours = (resources.files("jdna_cli.reports") / "published" / "figures.csv").read_text()
    assert ours == (shared_data.parent / "paper" / "figures.csv").read_text()


# ---------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--task", "hadr"), "--task: no finished run has 'hadr': did you mean 'hard'?"),
        (("--criterion", "wandb"), "did you mean 'wanda'?"),
        (("--seed", 77), "--seed: no finished run has '77': there is 1, 2, 3"),
        (("--task", "alone", "--regime", "dense-frozen"), "no finished run matches"),
        (("--since", "2030-01-01"), "no finished run matches --since 2030-01-01"),
        (("--tolerance", "lots"), "--tolerance: 'lots' is no share"),
        (("--html", "x.txt"), "--html: x.txt must end in .html"),
        (("--html", "/nowhere/x.html"), "there is no folder /nowhere"),
    ],
)
def test_a_filter_that_matches_nothing_says_what_there_is(jdna, home, args, message):
    found = jdna("report", *args, "--home", home, code=2)
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_filters_choose_and_keep_the_dense_references(jdna, home):
    args = ("report", "--home", home, "--json")
    rows = jdna(*args, "--regime", "sparse", "--task", "hard", "--pattern", "N:M").json["rows"]
    assert {row["pattern"] for row in rows} == {None, "2:8", "4:8", "6:8"}
    assert all(row["mean_relative_drop"] is not None for row in rows)
    rows = jdna(*args, "--model", "two").json["rows"]
    assert {row["model"] for row in rows} == {"/a/b/two"}
    rows = jdna(*args, "--seed", 2, "--since", "2026-01-01", "--until", "2026-01-01").json["rows"]
    assert {row["n"] for row in rows} == {1}


def test_queries_use_indices(home):
    asked = []

    class Noting:
        def __call__(self, sql, values=()):
            asked.append((sql, values))
            return reading.query(f"sqlite:///{home}/jdna.db", sql, values)

    own = source(home, tasks=("hard",))
    noting = type(own)(Noting(), home, own.filters)
    for name in sorted(set(reports.names()) - {"compare", "paper"}):
        reports.load(name).rows(noting)
    assert asked
    for sql, values in asked:
        for step in _plan(home, sql, values):
            assert not re.search(r"SCAN (run|metric|point|layer)\b(?! USING)", step), sql


def _plan(home, sql, values):
    import sqlite3

    connection = sqlite3.connect(home / "jdna.db")
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(values))]
    finally:
        connection.close()


def test_reports_read_a_server(jdna, bert, postgres):
    where = ("--db", postgres())
    for way in ((), ("--sparsity", 0.5), ("--pattern", "4:8")):
        jdna("finetune", bert, *SMALL, *way, *where)
    given = ("--task", "living", "--seed", 41, "--since", "2020-01-01", "--pattern", "N:M")
    for name in sorted(set(reports.names()) - {"compare", "paper"}):
        for args in ((), given):
            rows = jdna("report", name, *where, *args, "--format", "json",
                        code=2 if args and name in EMPTY_HERE else 0)  # fmt: skip
            assert "SQL" not in rows.err, name
    assert "4:8" in jdna("report", *where, *given).out


# Of these the three runs of the test above have nothing; with filters that is an error.
EMPTY_HERE = ("barrier", "book", "context", "dynamics", "languages", "options", "scan", "shots",
              "sizes", "tradeoff", "verdict")  # fmt: skip


@pytest.mark.parametrize(
    "name", ["quantization", "tradeoff", "dynamics", "barrier", "advise", "scan"]
)
def test_an_empty_report_says_what_would_fill_it(jdna, bert, name):
    jdna("finetune", bert, *SMALL)
    found = jdna("report", name, code=2)
    assert len(found.err.strip().splitlines()) == 1
    assert "yet" in found.err or "nothing to report" in found.err
    jdna("report", name, "--plot", "x.png", code=2)
    assert jdna("report", name, "--format", "json").json == []


# ------------------------------------------------------------------------------------------- cards


def test_every_model_has_a_card(measured, monkeypatch):
    card = (measured.home / "3" / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert "- pruned" in head
    assert "type: living" in head
    assert "Regime sparse" in body
    zeros = measured("runs", "show", 3, "--json").json
    assert str(measured.home) not in card
    assert "Zeros among prunable weights" in body
    assert zeros
    pruned = (measured.home / "2" / "README.md").read_text()
    assert "Weights chosen by magnitude (scope global)" in pruned
    assert "quantized to 4 bits" in (measured.home / "4" / "README.md").read_text()
    # A folder is no repository of the hub, whatever it is called.
    monkeypatch.chdir(measured.home.parent)
    measured("prune", "TinyBERT", "--sparsity", 0.2, "--out", measured.home.parent / "carded")
    assert "base_model" not in (measured.home.parent / "carded" / "README.md").read_text()


def test_no_two_rows_look_alike(tmp_path):
    """Two folders of one name; data that was mended in between; runs of an earlier rule."""
    base = {"kind": "eval", "task": "t", "sparsity": 0.5}
    rows = [
        {**base, "model": "/a/x/bert", "score": 0.5, "recipe": "1"},
        {**base, "model": "/b/y/bert", "score": 0.6, "recipe": "2"},
        {**base, "model": "/b/y/gpt", "score": 0.6, "recipe": "3"},
        {**base, "model": "/b/y/gpt", "score": 0.7, "recipe": "4"},
        {**base, "model": "/b/y/t5", "score": 0.6, "recipe": "5"},
        {**base, "model": "/b/y/t5", "score": 0.7, "recipe": "6", "rule": 2},
    ]
    there = [simulated.dense(**{**row, "score": 0.9}) for row in rows]
    found = source(simulated.record(tmp_path / "home", [*rows, *there]))
    told = {(row["_name"], row["label"]) for row in labels.labelled(found)}
    assert told == {
        ("x/bert", "t"), ("y/bert", "t"), ("gpt", "t (from run 3)"), ("gpt", "t (from run 4)"),
        ("t5", "t (rule 1)"), ("t5", "t (rule 2)"),
    }  # fmt: skip
    listed = run_jdna("runs", "list", "--home", tmp_path / "home").out
    assert "x/bert" in listed


FINETUNE = {"epochs": 1, "lr": 2e-5, "warmup": 0.06, "lora_targets": [], "resume": False}


@pytest.mark.parametrize(
    ("others", "names"),
    [
        # What an evaluation cannot be asked does not tell a fine-tuning from it.
        ([{"kind": "eval", "settings": {"limit": 50}, "sample": 50}], {"t", "t (50 drawn)"}),
        ([{"kind": "eval", "settings": {"shots": 0}}], {"t", "t (eval)"}),
        ([{"settings": {**FINETUNE, "lr": 1e-4}}], {"t (lr 2e-05)", "t (lr 0.0001)"}),
        ([{"settings": {**FINETUNE, "epochs": 3}}, {"kind": "eval", "settings": {"chat": False}},
          {"kind": "eval", "settings": {"chat": True}}],
         {"t (epochs 1)", "t (epochs 3)", "t", "t (chat)"}),
    ],
)  # fmt: skip
def test_a_label_says_what_differs_and_no_more(others, names, tmp_path):
    base = {"model": "org/one", "task": "t", "score": 0.9, "settings": FINETUNE}
    rows = [{**base, "recipe": str(i), **other} for i, other in enumerate([{}, *others])]
    found = source(simulated.record(tmp_path / "home", [simulated.dense(**row) for row in rows]))
    assert {row["label"] for row in labels.labelled(found)} == names


def test_runs_pruned_in_different_ways_are_called_differently(tmp_path):
    own = {"kind": "prune", "model": "org/one", "task": None, "regime": None, "score": 0.0}
    half = {**own, "sparsity": 0.5, "recipe": "r"}
    ways = [
        half, {**half, "pattern": "2:4"}, {**half, "criterion": "wanda", "scope": "row"},
        {**half, "allocation": "owl"}, {**half, "sparsity": 0.505},
        {**half, "pattern": "2:4", "quantization": "4 bits channel symmetric"},
        {**half, "pattern": None, "criterion": None, "quantization": "4 bits channel symmetric"},
    ]  # fmt: skip
    home = simulated.record(tmp_path / "home", ways)
    for command in (("runs", "list"), ("report", "runs")):
        told = run_jdna(*command, "--home", home).out
        lines = [line for line in told.splitlines() if "prune" in line.split()[1:2]]
        assert [re.split(r"org/one +|  +0.0+$", line)[1].strip() for line in lines] == [
            "50%", "2:4", "50% wanda", "50% owl", "50.5%", "2:4 4 bits", "4 bits",
        ]  # fmt: skip


def test_levels_of_a_condition_are_shown_before_anything_was_pruned(tmp_path):
    own = {"kind": "eval", "model": "org/one", "task": "t"}
    rows = [
        simulated.dense(**own, shots=k, score=score, recipe=f"r{k}", settings={"shots": k})
        for k, score in ((8, 0.8), (0, 0.6))
    ]
    told = run_jdna("report", "shots", "--home", simulated.record(tmp_path / "home", rows)).out
    assert "dense runs only" in told
    table = [" ".join(line.split()) for line in told.splitlines() if " shots " in line]
    assert table == ["8 shots accuracy 80.0 1", "0 shots accuracy 60.0 1"]


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Asia/Tokyo", "2026-11-25"), ("America/Los_Angeles", "2026-11-24"), ("UTC", "2026-11-24")],
)
def test_days_are_those_of_this_machine(tmp_path, monkeypatch, zone, day):
    """A run of 22:30 UTC is one of the next morning in Tokyo."""
    cell = {"task": "t", "sparsity": 0.5, "score": 0.5, "finished_at": "2026-11-24 22:30:00.000000",
            "started_at": "2026-11-24 22:00:00.000000"}  # fmt: skip
    home = simulated.record(tmp_path / "home", [cell])
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for until, since, found in ((day, day, True), ("2026-11-23", None, False),
                                    (None, "2026-11-26", False)):  # fmt: skip
            asked = [x for n, v in (("--since", since), ("--until", until)) if v for x in (n, v)]
            told = run_jdna("report", "runs", *asked, "--home", home, "--json")
            assert (told.code == 0) is found, (until, since, told.err)
        (line,) = re.findall(r"started (.*) on", run_jdna("runs", "show", 1, "--home", home).out)
        assert line.startswith(day)
        assert line.split()[-1] in ("JST", "PST", "UTC")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "this machine's" in run_jdna("report", "--help").out
