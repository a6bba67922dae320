"""The page, the plots, and what is handed to trackers."""

import io
import os
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import simulated
from jdna_cli import reports
from jdna_cli.reports import page
from tests.pipelines.test_variants import SMALL
from tests.reports.test_reports import source

# ------------------------------------------------------------------------------------------- page


def test_the_page_needs_no_network_and_names_are_text(jdna, tmp_path):
    own = {"model": "<script>alert(1)</script>", "task": "</script><b>x"}
    found = [simulated.dense(**own, score=0.9), {**own, "sparsity": 0.5, "score": 0.8}]
    home = simulated.record(tmp_path / "evil", found)
    file = tmp_path / "report.html"
    assert f"html: {file}" in jdna("report", "--home", home, "--html", file).out
    text = file.read_text()
    assert "<script>alert" not in text
    assert "</script><b>x" not in text
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)', text)
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


def test_figures_are_in_the_page_and_each_point_is_reached_by_keyboard(jdna, home, tmp_path):
    file = tmp_path / "report.html"
    jdna("report", "--home", home, "--html", file, "--title", "Who breaks <first>?")
    text = file.read_text()
    assert "<title>Who breaks &lt;first&gt;?</title>" in text
    points = re.findall(r'class="point" tabindex="0" role="img" aria-label="([^"]+)"', text)
    assert len(points) > 50
    assert any("±" in told for told in points)
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names)), "a name stands for one thing"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used <= set(names)
    assert len(text) < 5_000_000


def test_what_all_tables_share_is_said_once(jdna, tmp_path):
    own = {"model": "only-one", "criterion": "magnitude"}
    found = [{**own, "task": task, "sparsity": s, "score": 0.9 - s / 4}
             for task in ("a", "b") for s in (0.3, 0.5)]  # fmt: skip
    found += [simulated.dense(model="only-one", task=task, score=0.9) for task in ("a", "b")]
    home, file = simulated.record(tmp_path / "one", found), tmp_path / "report.html"
    jdna("report", "--home", home, "--html", file)
    text = file.read_text()
    text = text[: text.index('<section aria-labelledby="runs">')]
    assert text.count("magnitude global") == 1
    assert "All tables and figures: only-one · " in text
    assert "How much each task loses" in text


def test_a_page_of_very_many_tables_shows_some_and_says_how_many_are_left(
    jdna, tmp_path, monkeypatch
):
    monkeypatch.setattr(page, "MOST", 2)
    many = page.MOST + 3
    cells = [cell for i in range(many) for cell in (
        simulated.dense(model=f"org/m{i}", task="a", score=0.9),
        {"model": f"org/m{i}", "task": "a", "sparsity": 0.5, "score": 0.8},
    )]  # fmt: skip
    home, file = simulated.record(tmp_path / "many", cells), tmp_path / "report.html"
    jdna("report", "drop", "--home", home, "--html", file)
    (chapter,) = re.findall(r'<section aria-labelledby="drop">.*?</section>', file.read_text(),
                            flags=re.DOTALL)  # fmt: skip
    assert chapter.count("<table") == chapter.count("<svg") == page.MOST
    assert "3 more are left out here" in chapter


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
    assert done.stdout.count('class="point"') > figures
    assert "<title>" not in done.stdout.partition("<body")[2], "the script has run"


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
    assert "unknown tracker 'comet': did you mean 'comet_ml'?" in jdna(*args, "comet", code=2).err
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
    told = [(e.step, e.value) for e in found.Scalars("train/loss")]
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
