"""The Python API: the same requests, records and answers as the shell's; its page runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from jdna_cli import Workspace
from jdna_cli.errors import RequestError
from jdna_cli.specs import EvalSpec, FinetuneSpec, PruneSpec
from tests.conftest import run_jdna

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
SMALL = {"task": "living", "max_train_samples": 32, "epochs": 1}


@pytest.fixture
def workspace(tmp_path):
    with Workspace(tmp_path / "home") as found:
        yield found


def test_the_page_runs_as_it_stands(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "MiniLM")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) > 5
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    assert "did you mean 'sparsity'?" in told
    assert re.search(r"train 2/2", told)


def test_shell_and_notebook_answer_each_other(workspace, bert):
    tuned = workspace.finetune(bert, sparsity=0.5, seed=3, **SMALL)
    assert (tuned.id, tuned.cached, tuned.sparsity) == (2, False, 0.5)
    flags = ("--task", "living", "--max-train-samples", 32, "--epochs", 1, "--seed", 3)
    there = run_jdna("finetune", bert, "--sparsity", 0.5, *flags, "--home", workspace.home,
                     "--json").json  # fmt: skip
    assert there["run"]["cached"]
    assert there["run"]["id"] == tuned.id
    assert there["metrics"] == tuned.metrics
    run_jdna("eval", "run:2", "--task", "living", "--home", workspace.home)
    measured = workspace.evaluate(tuned, "living")
    assert measured.cached
    assert measured.metrics["accuracy"] == tuned.metrics["accuracy"]
    assert workspace.run(2).metrics == tuned.metrics
    assert workspace.prune(bert, sparsity=0.5).cached


def test_results_are_typed_frames_and_tables(workspace, bert):
    dense = workspace.finetune(bert, **SMALL)
    workspace.finetune(bert, sparsity=0.5, **SMALL)
    row = dense.to_pandas()
    assert row["accuracy"] == dense.metrics["accuracy"]
    assert dense.folder.is_dir()
    assert "accuracy" in dense._repr_html_()
    drop = workspace.report("drop")
    frame = drop.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(drop.columns)
    assert len(frame) == len(drop) == 2
    shown = run_jdna("report", "drop", "--home", workspace.home, "--json").json["rows"]
    assert shown == list(drop)
    found = workspace.query("SELECT id, '<b>' AS text FROM run ORDER BY id")
    assert [row["id"] for row in found] == [1, 2, 3]
    assert "&lt;b&gt;" in found._repr_html_()
    assert len(workspace.query("SELECT id FROM run WHERE id > 99")) == 0


def test_progress_is_off_or_a_function_or_the_shells(workspace, bert, capsys):
    workspace.finetune(bert, **SMALL)
    assert capsys.readouterr() == ("", "")
    told = []
    watched = Workspace(workspace.home, progress=lambda *one: told.append(one))
    watched.finetune(bert, **{**SMALL, "epochs": 2})
    assert [done for what, done, total, _ in told if what == "train" and total] == [1, 2, 3, 4]
    assert "tokenizing" in [what for what, *_ in told]
    watched.close()


def test_wrong_requests_are_exceptions_and_leave_nothing(workspace, bert):
    for call, message in (
        (lambda: workspace.prune(bert, sparsty=0.5), "did you mean 'sparsity'"),
        (lambda: workspace.prune(bert), "give either --sparsity"),
        (lambda: workspace.finetune(bert, "nothing"), "unknown task 'nothing'"),
        (lambda: workspace.finetune("no/where/at/all", "living"), "no/where/at/all"),
        (lambda: workspace.run(7), "there is no run 7"),
        (lambda: workspace.report("nonsense"), "nonsense"),
        (lambda: workspace.query("DROP TABLE run"), "only statements that read"),
    ):
        with pytest.raises(RequestError, match=re.escape(message)):
            call()
    assert not [path for path in workspace.home.iterdir() if path.name.isdigit()]


@pytest.mark.parametrize("spec", [PruneSpec, FinetuneSpec, EvalSpec])
def test_every_field_of_a_request_is_an_option(spec):
    from jdna_cli.workspace import _asked

    values = dict.fromkeys(spec.model_fields)
    assert _asked(spec, values) == values


def test_importing_it_is_cheap():
    code = (
        "import sys; from jdna_cli import Workspace; Workspace('nowhere'); "
        "print([m for m in ('torch', 'transformers', 'sqlmodel', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not Path("nowhere").exists()
