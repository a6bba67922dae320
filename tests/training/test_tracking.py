"""Trackers are told what is measured while it trains, and a run does not depend on them."""

from pathlib import Path

import pytest

from jdna_cli.training import tracking
from tests import toys
from tests.conftest import impatience

TRAINED = ("--epochs", 2, "--max-length", 48, "--batch-size", 4, "--checkpoint-every", 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("tracked") / "data", train=24, validation=16)


@pytest.fixture
def asked(bert, data):
    return ("finetune", bert, "--task", "rte", "--data-dir", data, *TRAINED)


def recorded(jdna, run):
    query = f"SELECT split || '/' || name, step, value FROM metric WHERE run = {run} AND step > 0"
    return sorted(map(tuple, jdna("db", "query", query, "--json").json["rows"]))


def events(folder):
    """All scalars of a run's event files, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {
        name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]
    }


def test_what_is_measured_stands_in_the_event_file_while_it_trains(jdna, asked, monkeypatch):
    pytest.importorskip("tensorboard")
    seen = []

    def log(self, measured, **others):
        before(self, measured, **others)
        seen.append(events(jdna.home / "exports" / "tensorboard" / "run-1-rte"))

    before = tracking.Tracking.log
    monkeypatch.setattr(tracking.Tracking, "log", log)
    told = jdna(*asked, "--log-with", "tensorboard", "--json")
    assert "tensorboard: run-1-rte in" in told.err
    # Each time something was told, it could be read.
    counts = [sum(map(len, one.values())) for one in seen]
    assert counts == sorted(set(counts))
    last = events(jdna.home / "exports" / "tensorboard" / "run-1-rte")
    rows = recorded(jdna, 1)
    assert {name for name, _, _ in rows} == {n for n in last if n.count("/") == 1} - {
        "train/learning_rate"
    }
    for name, step, value in rows:
        assert dict(last[name])[step] == pytest.approx(value, rel=1e-6)
    ((_, accuracy),) = last["result/validation/accuracy"]
    assert accuracy == pytest.approx(told.json["metrics"]["accuracy"])
    # A run that is told to somebody is the run that is not.
    assert jdna(*asked, "--json").json["run"]["cached"]


def test_a_run_that_goes_on_goes_on_in_its_curves(jdna, asked, monkeypatch):
    pytest.importorskip("tensorboard")
    jdna(*asked)
    with impatience(monkeypatch):
        jdna(*asked, "--force", "--log-with", "tensorboard", code=130)
    jdna(*asked, "--force", "--log-with", "tensorboard", "--resume")
    place = jdna.home / "exports" / "tensorboard" / "run-2-rte"
    for name, step, value in recorded(jdna, 2):
        assert dict(events(place)[name])[step] == pytest.approx(value, rel=1e-6)


def test_mlflow_has_the_same(jdna, asked, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    jdna(*asked, "--log-with", "mlflow")
    (run,) = mlflow.search_runs(experiment_names=["jdna"], output_format="list")
    assert run.info.run_name == "run-1-rte"
    assert run.data.params["task"] == "rte"
    client = mlflow.MlflowClient()
    for name, step, value in recorded(jdna, 1):
        history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        assert history[step] == pytest.approx(value)


def test_a_tracker_that_fails_is_told_of_and_the_training_goes_on(jdna, asked):
    pytest.importorskip("tensorboard")
    plain = jdna(*asked, "--json").json["metrics"]["loss"]
    (jdna.home / "exports").mkdir()
    (jdna.home / "exports" / "tensorboard").write_text("a file where a folder should be")
    found = jdna(*asked, "--force", "--log-with", "tensorboard", "--json")
    assert "tensorboard is told nothing more: " in found.err
    assert found.json["metrics"]["loss"] == plain


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("tensorbord", "unknown tracker 'tensorbord': did you mean 'tensorboard'?"),
        ("swanlab", "--log-with swanlab: swanlab is not installed: pip install 'swanlab'"),
    ],
)
def test_a_tracker_that_is_not_there_is_told_before_anything_is_read(jdna, asked, tracker, message):
    refused = jdna(*asked, "--log-with", tracker, code=2).err
    assert message in refused
    assert len(refused.strip().splitlines()) == 1
    assert not Path(jdna.home / "1").exists()
