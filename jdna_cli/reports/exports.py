"""The selected runs taken to another tracker: TensorBoard, MLflow, or Weights & Biases.

Only through those libraries, which are optional. A run is named by its number, and carries its
request, its results, and its training curves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.reports.query import Source, nothing

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.spec, run.started_at, run.finished_at
FROM run WHERE run.status = 'finished'"""
_METRICS = "SELECT split, name, value, step FROM metric WHERE run = ? ORDER BY step, id"


@dataclass(frozen=True)
class Exported:
    """One run on its way out."""

    name: str
    settings: dict[str, Any]
    results: dict[str, float]
    curves: list[tuple[str, int, float]]  # (name, step, value)


def _exported(source: Source) -> Iterator[Exported]:
    for row in source.records(_RUNS, "ORDER BY run.id"):
        spec = json.loads(row["spec"]) if isinstance(row["spec"], str) else row["spec"]
        settings = {"kind": row["kind"], **{k: v for k, v in spec.items() if v not in (None, [])}}
        results, curves = {}, []
        for split, name, value, step in source.query(_METRICS, (row["id"],)).rows:
            if step is None:
                results[f"{split}/{name}"] = value
            else:
                curves.append((f"{split}/{name}", step, value))
        yield Exported(f"run-{row['id']}-{row['task'] or row['kind']}", settings, results, curves)


def export(name: str, source: Source) -> tuple[int, str]:
    """Hand all selected runs over; returns how many, and where to.

    Raises:
        RequestError: the tracker is unknown or not installed, or no run matches.
    """
    if name not in TRACKERS:
        raise RequestError(f"--export: {name!r} is none of {', '.join(TRACKERS)}")
    runs = list(_exported(source))
    if not runs:
        raise nothing(source, "no finished run to export yet")
    try:
        return len(runs), TRACKERS[name](runs, source.home)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"--export {name} needs the extra `{name}`: pip install 'jdna[{name}]' ({error.name} "
            "is missing)"
        ) from None


def _to_tensorboard(runs: list[Exported], home: Path) -> str:
    from tensorboard.summary import Writer

    place = home / "exports" / "tensorboard"
    for run in runs:
        folder = place / run.name
        # A log grows: the same export again would say everything twice.
        for old in folder.glob("events.*"):
            old.unlink()
        writer = Writer(str(folder))
        last = max((step for _, step, _ in run.curves), default=0)
        for name, step, value in run.curves:
            writer.add_scalar(name, value, step)
        for name, value in run.results.items():
            writer.add_scalar(f"result/{name}", value, last)
        writer.close()
        (folder / "settings.json").write_text(json.dumps(run.settings, indent=1))
    return str(place)


def _to_mlflow(runs: list[Exported], home: Path) -> str:
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        place = home.absolute() / "exports"
        place.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    mlflow.set_experiment("jdna")
    for run in runs:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_params({k: str(v)[:500] for k, v in run.settings.items()})
            for name, step, value in run.curves:
                mlflow.log_metric(name, value, step=step)
            mlflow.log_metrics({f"result/{name}": value for name, value in run.results.items()})
    return str(mlflow.get_tracking_uri())


def _to_wandb(runs: list[Exported], home: Path) -> str:
    import wandb

    place = home / "exports"
    place.mkdir(parents=True, exist_ok=True)
    for run in runs:
        with wandb.init(project="jdna", name=run.name, config=run.settings, dir=place) as own:
            for name, step, value in run.curves:
                own.log({name: value, "step": step})
            own.summary.update({f"result/{name}": value for name, value in run.results.items()})
    return f"project jdna, files below {place}"


TRACKERS: dict[str, Callable[[list[Exported], Path], str]] = {
    "tensorboard": _to_tensorboard,
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
}
