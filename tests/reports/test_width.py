"""At 80 columns nothing is wider, whatever is shown; every command ends its help with examples."""

import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer

from jdna_cli import reports
from jdna_cli.cli import completing
from jdna_cli.cli.app import app
from jdna_cli.reports.rendering import tables
from tests.conftest import run_jdna

WIDTH = 80


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def widest(text):
    return max((line for line in text.splitlines()), key=len, default="")


@pytest.mark.parametrize("name", sorted(set(reports.names()) - {"compare", "paper"}))
def test_reports_fit(name, home, measured):
    for place in (home, measured.home):
        found = run_jdna("report", name, "--home", place)
        assert found.code in (0, 2), found.err
        assert len(widest(found.out)) <= WIDTH, widest(found.out)


def test_the_two_reports_that_are_asked_for_something_fit(home, measured):
    for args in (("compare", "--run", 1, "--run", 3), ("paper", "cross-task")):
        found = run_jdna("report", *args, "--home", measured.home)
        assert found.code == 0, found.err
        assert len(widest(found.out)) <= WIDTH, widest(found.out)


COMMANDS = (
    ("runs", "list"), ("runs", "show", 1), ("runs", "show", 3), ("tasks", "list"),
    ("db", "path"), ("sweep", "--list"), ("doctor",),
    ("report", "list"), ("sweep", "cross-task/small", "--dry-run"),
)  # fmt: skip


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: " ".join(map(str, args)))
def test_commands_fit(args, measured, monkeypatch):
    monkeypatch.chdir(measured.home.parent)
    rest = () if args[0] == "report" or args[1:] == ("--list",) else ("--home", "home")
    rest = () if args == ("report", "list") else rest
    found = run_jdna(*args, *rest)
    assert found.code == 0, found.err
    assert len(widest(found.out)) <= WIDTH, widest(found.out)
    assert re.search(r"\w\n", found.out)


def test_results_of_runs_fit(measured, monkeypatch):
    monkeypatch.chdir(measured.home.parent)
    for args in (
        ("prune", "TinyBERT", "--pattern", "2:4"),
        ("prune", "TinyBERT", "--sparsity", 0.4),
        ("prune", "TinyBERT", "--sparsity", 0.4, "--dry-run"),
        ("eval", "run:1", "--task", "living"),
        ("interpolate", "run:1", "run:3", "--task", "living", "--points", 3),
    ):
        found = run_jdna(*args, "--home", "home")
        assert found.code == 0, found.err
        assert len(widest(found.out)) <= WIDTH, widest(found.out)


def test_a_name_is_shortened_in_its_middle_and_never_broken():
    from jdna_cli.reports.rendering import tables

    long = "encoder.layer.0.attention.output.dense.weight"
    rows = [[f"{long}.{i}", "words that can be folded where they end", "0.123", long] for i in "ab"]
    text = tables.render(("tensor", "why", "share", "other"), rows, "table")
    assert len(widest(text)) <= WIDTH
    first = [line.split()[0] for line in text.splitlines() if line.startswith("encoder")]
    assert all("…" in name for name in first)
    assert [name[-2:] for name in first] == [".a", ".b"], "ends tell names apart"
    assert "0.123" in text


def test_a_row_is_left_out_of_a_table_that_says_nothing_of_it():
    names = [f"a_kind_of_matrix_{i}" for i in range(4)]
    rows = [["block.0", "0.1", "0.1", "0.1", ""], ["outside", "", "", "", "0.2"]]
    text = tables.sections_as_text([tables.Section("", ("block", *names), rows, fixed=1)], "table")
    parts = [part for part in text.split("\n\n") if part.strip()]
    assert len(parts) == 2
    assert "block.0" in parts[0]
    assert "outside" not in parts[0]
    assert "outside" in parts[1]
    assert "block.0" not in parts[1]


def walk(command, path=()):
    """Every command, with its words."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, one in below.items():
        yield from walk(one, (*path, name))


ALL = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_fits_and_ends_with_lines_that_are_understood(path):
    told = run_jdna(*path, "--help").out
    assert len(widest(told)) <= WIDTH, widest(told)
    lines = [line.strip() for line in told.splitlines()]
    ends = [line for line in lines[lines.index("Examples:") + 1 :] if line]
    assert 1 <= len(ends) <= 3
    for line in ends:
        words = shlex.split(line.partition(" > ")[0])
        assert tuple(words[1 : 1 + len(path)]) == path
        ALL[path].make_context(line, words[1 + len(path) :])  # refuses what it does not know


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jdna finetune M --task rt", {"rte"}),
        ("jdna report verd", {"verdict"}),
        ("jdna report drop --criterion wan", {"wanda"}),
        ("jdna finetune M --regime quantized-", {"quantized-to-dense"}),
        ("jdna sweep cross-task/", {"cross-task/small", "cross-task/paper"}),
        ("jdna tasks show wmt", {"wmt_en_cs", "wmt_en_is"}),
        ("jdna runs show ", {"1", "2", "3", "4", "5", "6", "7", "8", "9"}),
        ("jdna eval run:", {"run:1", "run:2"}),
    ],
)
def test_shells_complete_tasks_runs_and_reports(line, expected, measured, monkeypatch):
    monkeypatch.setenv("JDNA_HOME", str(measured.home))
    monkeypatch.setenv("_JDNA_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    found = subprocess.run(
        [sys.executable, "-c", "from jdna_cli.cli.app import app; app(prog_name='jdna')"],
        env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    values = set(re.findall(r'"([^"]+?)"(?::"[^"]*")?', found.stdout.replace("\\\\:", ":")))
    assert expected <= values, (found.stdout, found.stderr)


def test_completion_without_a_database_is_silent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completing.numbers(SimpleNamespace(params={}), "") == []
    (tmp_path / "jdna-runs").mkdir()
    (tmp_path / "jdna-runs" / "jdna.db").write_text("no database")
    assert completing.models(SimpleNamespace(params={}), "run:") == []


def test_the_caption_of_a_latex_table_is_a_sentence_and_its_notes_stand_below():
    section = tables.Section("Drop · org/one · sparse", ("task", "50%"), [["a_b", "1"]],
                             ("± half of it", "Read on."))  # fmt: skip
    text = tables.sections_as_text([section], "latex")
    assert "\\caption{Drop, org/one, sparse.}" in text
    caption, table, notes = (text.index(part) for part in ("\\caption", "\\toprule", "\\parbox"))
    assert caption < table < notes
    assert "$\\pm$ half of it. Read on." in text
