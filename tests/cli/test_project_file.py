"""A project file gives defaults, flags and variables win, and schemas say what files may say."""

import json
import tomllib
from importlib import resources

import pytest

from jdna_cli.cli import project_file
from jdna_cli.sweeps import experiment
from jdna_cli.tasks import task_toml
from jdna_cli.tasks.built_in import all_tasks
from tests.conftest import run_jdna

PROJECT = """
home = "runs"
data_dir = "data"

[recipe]
epochs = 1
lr = 2e-3
max_train_samples = 32
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "jdna.toml").write_text(PROJECT)
    (tmp_path / "data").mkdir()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def test_home_and_recipe_are_those_of_the_file_above(project, bert, monkeypatch):
    found = run_jdna("finetune", bert, "--task", "living", "--json").json
    assert found["run"]["artifact"] == str(project / "runs" / "1")
    spec = json.loads((project / "runs" / "1" / "spec.json").read_text())
    assert (spec["epochs"], spec["lr"], spec["max_train_samples"]) == (1, 2e-3, 32)
    # The same words by hand are the same run; a flag wins over the file, a variable too.
    said = ("--epochs", 1, "--lr", 2e-3, "--max-train-samples", 32)
    assert run_jdna("finetune", bert, "--task", "living", *said, "--json").json["run"]["cached"]
    other = run_jdna("finetune", bert, "--task", "living", "--lr", 1e-3, "--json").json
    assert not other["run"]["cached"]
    monkeypatch.setenv("JDNA_HOME", str(project / "elsewhere"))
    run_jdna("prune", bert, "--sparsity", 0.5)
    assert (project / "elsewhere" / "jdna.db").is_file()


def test_doctor_says_where_settings_come_from(project, monkeypatch):
    told = run_jdna("doctor", "--json").json["checks"]
    (own,) = [check["detail"] for check in told if check["name"] == "project file"]
    assert str(project / "jdna.toml") in own
    assert "recipe.epochs" in own
    assert "home by the file" in own
    monkeypatch.setenv("JDNA_HOME", str(project))
    told = run_jdna("doctor", "--json").json["checks"]
    assert "home by JDNA_HOME" in str(told)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hom = 'x'", "did you mean 'home'?"),
        ("[recipe]\nepoch = 1", "did you mean 'epochs'?"),
        ("[recipe]\nmodel = 'x'", "unknown [recipe] setting 'model'"),
        ("home = 3", "home is text"),
        ("recipe = 3", "recipe is a table"),
        ("home = ", "jdna.toml"),
        ("[recipe]\nepochs = 'many'", "--epochs"),
    ],
)
def test_a_wrong_file_is_one_line(project, bert, text, said):
    (project / "jdna.toml").write_text(text)
    refused = run_jdna("finetune", bert, "--task", "living")
    assert refused.code == 2
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def validator(kind):
    jsonschema = pytest.importorskip("jsonschema")
    schema = run_jdna("config", "schema", kind).json
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_of_experiments_takes_all_that_are_shipped_and_no_others():
    checks = validator("experiment")
    top = resources.files("jdna_cli.sweeps") / "catalogue"
    for name in experiment.names():
        folder, _, form = name.partition("/")
        table = tomllib.loads((top / folder / f"{form}.toml").read_text(encoding="utf-8"))
        assert not list(checks.iter_errors(table)), name
    for wrong in ({"titel": "x"}, {"title": "x", "fixed": {"epoch": 1}},
                  {"title": "x", "fixed": {"epochs": 0}}, {"title": "x", "seeds": []},
                  {"title": "x", "levels": [{"sparsity": 1.5}]}):  # fmt: skip
        assert list(checks.iter_errors(wrong)), wrong


def test_the_schema_of_tasks_takes_every_task_and_that_of_projects_the_file():
    checks = validator("task")
    for task in all_tasks().values():
        assert not list(checks.iter_errors(tomllib.loads(task_toml.write(task)))), task.name
    assert list(checks.iter_errors({"kind": "classification", "colour": "red"}))
    project = validator("project")
    assert not list(project.iter_errors(tomllib.loads(PROJECT)))
    assert list(project.iter_errors({"recipe": {"epoch": 1}}))
    assert set(project.schema["properties"]) == {*project_file._PLACES, project_file._RECIPE}
