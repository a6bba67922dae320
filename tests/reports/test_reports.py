"""Reports say what the database says, and that there is nothing where there is nothing."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from benchmarks import simulated
from jdna_cli import reports
from jdna_cli.reports import cells, page
from jdna_cli.reports.query import Filters, source_of
from jdna_cli.reports.rendering import plots
from jdna_cli.store import reading
from tests.conftest import run_jdna
from tests.pipelines.test_variants import SMALL


class Measured:
    """Runs of a tiny model, and the commands on them."""

    def __init__(self, home):
        self.home = home

    def __call__(self, *args, code=0):
        found = run_jdna(*args, "--home", self.home)
        assert found.code == code, (found.code, found.out, found.err)
        return found


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """Dense, pruned, rounded and taught; measured in time, and looked upon."""
    place = tmp_path_factory.mktemp("measured")
    model, call = shutil.copytree(tiny("bert"), place / "TinyBERT"), Measured(place / "home")
    call("finetune", model, *SMALL)
    for way in (("--sparsity", 0.5, "--dynamics", "--dynamics-every", 8), ("--quantize", 4),
                ("--sparsity", 0.9, "--teacher", "run:1")):  # fmt: skip
        call("finetune", model, *SMALL, *way)
    call("prune", model, "--pattern", "2:4", "--packed")
    for run in (1, 3):
        call("eval", f"run:{run}", "--task", "living", "--time")
    return call


def every_kind():
    """Cells of every condition and way, some of them awkward."""
    for seed in (1, 2, 3):
        own = {"model": "org/one", "seed": seed}
        for task, top, lost in (("easy", 0.95, 0.1), ("middle", 0.85, 0.3), ("hard", 0.7, 0.9)):
            here = {**own, "task": task}
            yield simulated.dense(**here, score=top + 0.001 * seed)
            for regime, share in (("sparse", 1.0), ("dense-frozen", 0.5), ("sparse-to-dense", 0.8)):
                for s in (0.3, 0.5, 0.7):
                    score = top * (1 - share * lost * s) + 0.003 * seed
                    yield {**here, "regime": regime, "sparsity": s, "score": score}
            for n in (2, 4, 6):
                yield {**here, "pattern": f"{n}:8", "scope": None, "sparsity": 1 - n / 8,
                       "score": top * (1 - lost * (1 - n / 8) / 2)}  # fmt: skip
        for criterion in ("random", "wanda"):
            yield {**own, "task": "easy", "criterion": criterion, "sparsity": 0.5, "score": 0.6}
        for share in (0.5, 0.25):
            here = {**own, "task": "easy", "data_fraction": share}
            yield simulated.dense(**here, score=0.9)
            yield {**here, "sparsity": 0.5, "score": 0.9 - 0.1 / share}
        for condition, values in (
            ("options", (4, 2)),
            ("shots", (4, 0)),
            ("book", ("open", "closed")),
            ("context_words", (200, 50)),
            ("pairs", ("en-de", "en-de,de-en")),
        ):
            for i, value in enumerate(values):
                here = {**own, "task": f"by-{condition}", condition: value, "kind": "eval",
                        "chance": 0.0, "recipe": f"{condition}-{value}",
                        "data_fraction": None}  # fmt: skip
                yield simulated.dense(**here, score=0.8)
                yield {**here, "sparsity": 0.5, "score": 0.7 - 0.2 * i}
        yield {**own, "task": "alone", "sparsity": 0.5, "score": 0.5}  # no dense run
        text = {**own, "task": "text", "metric": "perplexity", "human": None, "chance": None}
        yield simulated.dense(**text, score=20.0)
        yield {**text, "sparsity": 0.5, "score": 30.0}
        yield {**own, "model": "/a/b/two", "task": "easy", "sparsity": 0.5, "score": 0.7}
        yield simulated.dense(**{**own, "model": "/a/b/two", "task": "easy"}, score=0.9)
    # Measured again: a fine-tuning counts before an evaluation, else the latest.
    yield {"model": "org/one", "task": "easy", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.1}  # fmt: skip
    yield {"model": "org/one", "task": "again", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.1}  # fmt: skip
    yield {"model": "org/one", "task": "again", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.3}  # fmt: skip
    yield simulated.dense(model="org/one", task="again", seed=1, kind="eval", score=0.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return simulated.record(tmp_path_factory.mktemp("every"), every_kind())


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
                                                                "quantisation"}))  # fmt: skip
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
    rows = measured("report", "quantisation", "--format", "json").json
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
    assert "sparsity None → 0.5" in row["differs_in"]
    for args, message in (((), "name the two runs"), (("--run", 1, "--run", 99), "no run 99"),
                          (("--run", 1, "--run", 2), "run 2 is finished (prune)")):  # fmt: skip
        assert message in measured("report", "compare", *args, code=2).err


def test_advice_is_a_sparsity_with_its_interval(jdna, home):
    rows = jdna("report", "advise", "--task", "hard", "--tolerance", "20%", "--regime", "sparse",
                "--home", home, "--json").json["rows"]  # fmt: skip
    own = {row["kind"]: row for row in rows}
    # drop = 0.9 s, a little less by what each seed adds: 20 % at about 0.22, between 0 and 30 %.
    row = own["unstructured"]
    assert row["critical_sparsity"] == pytest.approx(0.2 / 0.9, abs=0.02)
    assert row["ci_low"] <= row["critical_sparsity"] <= row["ci_high"]
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
EMPTY_HERE = ("barrier", "book", "context", "dynamics", "languages", "options", "shots", "sizes",
              "tradeoff", "verdict")  # fmt: skip


@pytest.mark.parametrize("name", ["quantisation", "tradeoff", "dynamics", "barrier", "advise"])
def test_an_empty_report_says_what_would_fill_it(jdna, bert, name):
    jdna("finetune", bert, *SMALL)
    found = jdna("report", name, code=2)
    assert len(found.err.strip().splitlines()) == 1
    assert "yet" in found.err or "nothing to report" in found.err
    jdna("report", name, "--plot", "x.png", code=2)
    assert jdna("report", name, "--format", "json").json == []


# ------------------------------------------------------------------------------------------- page


def test_the_page_needs_no_network_and_names_are_text(jdna, tmp_path):
    own = {"model": "<script>alert(1)</script>", "task": "</script><b>x"}
    found = [simulated.dense(**own, score=0.9), {**own, "sparsity": 0.5, "score": 0.8}]
    home = simulated.record(tmp_path / "evil", found)
    file = tmp_path / "report.html"
    assert f"html: {file}" in jdna("report", "--home", home, "--html", file).out
    text = file.read_text()
    ours = text[: text.index("<script>\n/**")] if "<script>\n/**" in text else text
    assert "<script>alert" not in text
    assert "</script><b>x" not in text
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)', ours)
    assert not list(tmp_path.glob("*.part"))


def test_the_page_tells_how_each_number_was_made(jdna, measured, tmp_path):
    file = measured.home.parent / "report.html"
    measured("report", "--html", file)
    text = file.read_text()
    assert "jdna finetune" in text
    links = re.findall(r'href="([^"]*spec\.json)"', text)
    assert links
    assert all((file.parent / link).is_file() for link in links)
    assert 'id="drop"' in text
    assert 'id="tradeoff"' in text
    # The command that the page gives makes the same request again.
    (line,) = re.findall(r"(jdna finetune [^<]*--quantize 4[^<]*)<", text)
    import html as escaping
    import shlex

    again = measured(*shlex.split(escaping.unescape(line))[1:], "--json")
    assert again.json["run"]["cached"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(jdna, home, tmp_path, monkeypatch):
    file = tmp_path / "report.html"
    file.write_text("old")

    def full(*args, **rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.tempfile, "mkstemp", full)
    found = jdna("report", "--home", home, "--html", file, code=1)
    assert "could not be written: No space left on device" in found.err
    assert file.read_text() == "old"


def test_without_plotly_the_page_has_pictures_that_say_what_they_show(jdna, home, tmp_path):
    code = "import sys; sys.modules['plotly'] = None; from jdna_cli.cli.app import main; main()"
    file = tmp_path / "report.html"
    words = [sys.executable, "-c", code, "report", "--home", str(home), "--html", str(file)]
    subprocess.run(words, check=True, capture_output=True)
    text = file.read_text()
    pictures = re.findall(r'<img class="picture" src="(data:image/svg[^"]+)"\s+alt="([^"]+)"', text)
    assert pictures
    for source, told in pictures:
        assert base64.b64decode(source.partition(",")[2]).startswith(b"<?xml")
        assert told.startswith("Figure: ")
    assert "Plotly" not in text


CHROME = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no Chromium here")
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_by_a_browser(jdna, home, tmp_path, dark):
    file = tmp_path / "report.html"
    jdna("report", "--home", home, "--html", file)
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    done = subprocess.run(
        [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--virtual-time-budget=20000", *scheme, f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    figures = done.stdout.count('class="plot')
    assert figures > 10
    assert done.stdout.count('class="main-svg"') >= figures


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(jdna, home, tmp_path):
    text = [r"\documentclass{article}\usepackage{booktabs}\usepackage[utf8]{inputenc}"
            r"\usepackage{amssymb}\begin{document}"]  # fmt: skip
    for name in ("drop", "verdict", "advise", "runs", "regimes", "languages"):
        text.append(jdna("report", name, "--home", home, "--format", "latex", "--task", "easy",
                         "--task", "hard", "--task", "by-pairs").out)  # fmt: skip
    file = tmp_path / "tables.tex"
    file.write_text("\\clearpage\n".join([*text, r"\end{document}"]))
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name],
                          cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "booktabs" in text[0]


def test_a_table_fits_a_terminal_of_80_columns(home, monkeypatch, tmp_path):
    from jdna_cli.reports.rendering import tables

    monkeypatch.setattr(tables.sys, "stdout", _Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR")
    chosen = reports.load("drop")
    found = chosen.sections(chosen.rows(source(home)))
    text = tables.sections_as_text(found, "table")
    assert "\x1b[48;5;" in text
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    titles = {section.title for section in found}
    assert max(len(line) for line in bare.splitlines() if line not in titles) <= 80
    # Numbers stand there without colour too.
    monkeypatch.setenv("NO_COLOR", "1")
    plain = tables.sections_as_text(found, "table")
    assert plain.split() == bare.split()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


# ----------------------------------------------------------------------------------------- exports


def test_an_unknown_tracker_and_a_missing_one_are_told_apart(jdna, home, monkeypatch):
    args = ("report", "--home", home, "--export")
    assert "'comet' is none of tensorboard, mlflow, wandb" in jdna(*args, "comet", code=2).err
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "pip install 'jdna[mlflow]'" in jdna(*args, "mlflow", code=2).err


def test_runs_are_exported_to_tensorboard(jdna, bert, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    jdna("finetune", bert, *SMALL)
    for _ in range(2):  # the second time nothing is there twice
        assert jdna("report", "--export", "tensorboard", "--json").json["exported"] == 1
    (folder,) = (jdna.home / "exports" / "tensorboard").iterdir()
    found = EventAccumulator(str(folder)).Reload()
    curve = jdna("db", "query", "SELECT step, value FROM metric WHERE run = 1 AND split = 'train' "
                 "AND name = 'loss' AND step IS NOT NULL", "--json").json["rows"]  # fmt: skip
    told = [(e.step, e.tensor_proto.float_val[0]) for e in found.Tensors("train/loss")]
    assert [step for step, _ in told] == [step for step, _ in curve]
    assert [v for _, v in told] == pytest.approx([v for _, v in curve])


def test_runs_are_exported_to_mlflow(jdna, bert, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    jdna("finetune", bert, *SMALL)
    jdna("report", "--export", "mlflow", "--json")
    (run,) = mlflow.search_runs(experiment_names=["jdna"], output_format="list")
    accuracy = jdna("db", "query", "SELECT score FROM performance", "--json").json["rows"][0][0]
    assert run.data.params["task"] == "living"
    assert run.data.metrics["result/validation/accuracy"] == accuracy


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
    assert "quantised to 4 bits" in (measured.home / "4" / "README.md").read_text()
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
    told = {(row["_name"], row["label"]) for row in cells.labelled(found)}
    assert told == {
        ("x/bert", "t"), ("y/bert", "t"), ("gpt", "t (from run 3)"), ("gpt", "t (from run 4)"),
        ("t5", "t (rule 1)"), ("t5", "t (rule 2)"),
    }  # fmt: skip
    listed = run_jdna("runs", "list", "--home", tmp_path / "home").out
    assert "x/bert" in listed


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
