"""A search leaves ordinary runs, ends as it says, and is what the report says afterwards."""

import json

import pytest

from jdna_cli import Workspace
from jdna_cli.errors import JdnaError, RequestError
from tests.conftest import run_jdna

RECIPE = {"epochs": 6, "lr": 2e-3, "max_length": 24, "checkpoint_every": 0}


@pytest.fixture
def workspace(tmp_path, animals):
    with Workspace(tmp_path / "home", data_dir=animals) as found:
        yield found


def kinds(workspace):
    rows = workspace.query("SELECT kind, status, COUNT(*) AS n FROM run GROUP BY kind, status")
    return {(row["kind"], row["status"]): row["n"] for row in rows}


def test_a_search_is_ordinary_runs_and_the_report_says_the_same(workspace, tiny):
    asked = {"tolerance": 0.1, "seeds": 2, "budget": "6 runs", **RECIPE}
    found = workspace.advise(tiny("bert"), "sst2", **asked)
    assert found.begun == len(found.runs) == kinds(workspace)["finetune", "finished"] <= 6
    assert found.stopped_because in ("the budget is spent", "the interval is narrower than asked")
    (row,) = workspace.report("advise", tolerance=0.1)
    assert found.critical == {
        "sparsity": row["critical_sparsity"], "low": row["ci_low"], "high": row["ci_high"],
    }  # fmt: skip
    assert row["ci_low"] <= row["critical_sparsity"] <= row["ci_high"]
    # Asked again it begins where it ended; what is recorded counts for another tolerance too.
    again = workspace.advise(tiny("bert"), "sst2", **{**asked, "budget": "3 runs",
                                                      "tolerance": 0.2})  # fmt: skip
    assert set(found.runs) <= set(again.runs)
    assert again.begun <= 3
    assert not list(workspace.query("SELECT * FROM run WHERE status <> 'finished'"))


def test_a_search_of_patterns_names_one_that_was_measured(workspace, tiny):
    found = workspace.advise(tiny("bert"), "sst2", patterns="4", seeds=2, tolerance=0.2,
                             budget="5 runs", **RECIPE)  # fmt: skip
    measured = {one["pattern"] for one in found.row["_levels"]}
    assert measured <= {"3:4", "2:4", "1:4"}
    assert found.row["pattern"] in {None, *measured}


def test_without_training_the_bracket_is_halved(workspace, tiny):
    tuned = workspace.finetune(tiny("bert"), "sst2", **RECIPE)
    found = workspace.advise(tuned, "sst2", finetune=False, tolerance=0.05)
    levels = found.row["_levels"]
    below = max([0.0, *(x["sparsity"] for x in levels if x["mean_relative_drop"] <= 0.05)])
    above = min(x["sparsity"] for x in levels if x["mean_relative_drop"] > 0.05)
    assert above - below <= 0.0201 or found.row["between"][0] <= below
    assert kinds(workspace)["finetune", "finished"] == 1
    assert found.row["interval_over"] == "examples"


def test_a_task_that_the_dense_model_does_not_learn_has_no_answer(workspace, tiny):
    found = workspace.advise(tiny("bert"), "sst2", seeds=2,
                             **{**RECIPE, "epochs": 1, "lr": 1e-7})  # fmt: skip
    assert found.stopped_because == "the dense model is at chance level"
    assert found.critical == {"sparsity": None, "low": None, "high": None}
    assert kinds(workspace) == {("finetune", "finished"): 2}  # nothing was spent on pruned ones


def test_a_request_that_cannot_be_is_refused_before_anything_runs(workspace, tiny):
    for wrong in ({"criterion": "wanda"}, {"patterns": "3:4,3:5"}, {"epochs": 0}, {"colour": "red"},
                  {"budget": "1 runs"}, {"shots": 2}):  # fmt: skip
        with pytest.raises(RequestError):
            workspace.advise(tiny("bert"), "sst2", **{**RECIPE, **wrong})
    assert kinds(workspace) == {}


def test_dense_runs_that_fail_are_told(workspace, tiny):
    with pytest.raises(JdnaError, match="the dense run failed"):
        workspace.advise(tiny("bert"), "sst2", seeds=1, **{**RECIPE, "lr": 1e30})


@pytest.mark.slow
def test_the_command_prints_its_way_and_its_answer(tmp_path, tiny, animals):
    home = tmp_path / "home"
    words = ["advise", tiny("bert"), "--task", "sst2", "--data-dir", animals, "--home", home,
             "--tolerance", "10%", "--seeds", 2, "--budget", "5 runs", "--workers", 2]  # fmt: skip
    for name, value in RECIPE.items():
        words += [f"--{name.replace('_', '-')}", value]
    plot = tmp_path / "a.svg"
    done = run_jdna(*words, "--plot", plot)
    assert done.code == 0, done.err
    assert done.err.count("dense · seed") == 2
    assert "of the prunable weights may go" in done.out
    assert "A grid would have taken 20" in done.out
    assert "make it: jdna finetune" in done.out
    assert plot.is_file()
    words[words.index("5 runs")] = "3 runs"
    found = json.loads(run_jdna(*words, "--json").out)
    assert set(found["critical"]) == {"sparsity", "low", "high"}
    assert found["stopped_because"]
    assert len(found["runs"]) >= 5
