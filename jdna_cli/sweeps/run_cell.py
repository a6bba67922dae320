"""One cell, run by the functions that the commands call."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jdna_cli import command_line
from jdna_cli.errors import JdnaError, NotFiniteError, RequestError, redact
from jdna_cli.results import Outcome
from jdna_cli.runs import evaluate, finetune, interpolate, prune, recording
from jdna_cli.runs.model_lookup import NeverWrittenError
from jdna_cli.runs.recording import OpenWorkspace, RecordedRun, Request
from jdna_cli.store.identity import REMEMBERED, has_weights
from jdna_cli.store.ledger import Ledger
from jdna_cli.store.run_reader import ModelGoneError
from jdna_cli.store.tables import Run
from jdna_cli.sweeps.cells import Cell, resolved
from jdna_cli.sweeps.experiment import LISTS

MARK = ".sweep"  # in the folder of a run that a sweep made


@dataclass(frozen=True)
class SweepSettings:
    """Where the cells of a sweep read and are recorded; travels to workers as JSON."""

    home: str
    db: str | None
    data_dir: str | None
    allow_pickle: bool = False
    name: str = ""


def request(workspace: OpenWorkspace, kind: str, values: dict[str, Any]) -> Request:
    """A cell's request by content.

    Raises:
        RequestError: a value is wrong, or something that it names is not there.
    """
    asked = dict(values)
    for name in LISTS:
        if name in asked:
            asked[name] = tuple(asked[name])
    resolve: dict[str, Callable[[OpenWorkspace, dict[str, Any]], Request]] = {
        "prune": prune.resolve,
        "finetune": finetune.resolve,
        "eval": evaluate.resolve,
        "interpolate": interpolate.resolve,
    }
    return resolve[kind](workspace, asked)


def run(workspace: OpenWorkspace, kind: str, values: dict[str, Any]) -> RecordedRun:
    """Run a request, or find it in the database; a model that was taken away is made again."""
    asked = dict(values)
    while True:
        try:
            return recording.run(request(workspace, kind, asked))
        except ModelGoneError as error:
            gone = f"run:{error.number}"
            if gone not in asked.values():
                raise
            again = f"run:{_made_again(workspace, error.number)}"
            asked = {name: again if value == gone else value for name, value in asked.items()}


def _made_again(workspace: OpenWorkspace, number: int) -> int:
    """A run of the same request as another's, with its model."""
    row = workspace.ledger.get(number)
    given = {name: value for name, value in row.spec.items() if value is not None}
    wanting = replace(workspace, needs_model=True, keeps_model=True)
    done = run(wanting, row.kind, given)
    mark(workspace.ledger, done.folder, "")
    assert done.run.id is not None
    return done.run.id


def look_up(
    workspace: OpenWorkspace, cell: Cell, runs: dict[str, int], *, with_model: bool
) -> int | None:
    """The run that has a cell's result, and its model where that is needed; None: there is none.

    Args:
        workspace: one for looking up alone.
        cell: the cell.
        runs: those of the cells that it needs, as far as they are known.
        with_model: whether the run must still have its model.

    Raises:
        RequestError: the cell's request is wrong.
    """
    if any(key not in runs for key in cell.needs):
        return None
    try:
        found = recording.find(request(workspace, cell.kind, resolved(cell, runs)))
    except NeverWrittenError:
        return None
    if found is None:
        return None
    if with_model and not has_weights(found.folder):
        return None
    return found.run.id


def mark(ledger: Ledger, folder: Path, sweep: str) -> None:
    """Note that a sweep made a run, and may take its model away; and what that model is."""
    (folder / MARK).write_text(f"{sweep}\n")
    if has_weights(folder):
        (folder / REMEMBERED).write_text(f"{ledger.identity(folder)}\n")


def release(ledger: Ledger, number: int, folder: Path) -> int:
    """Take away the model of a run that a sweep made; returns the bytes that this freed.

    Metrics, masks, grids and predictions stay. A model that another process needs stays, too.
    """
    if not ledger.let_go(number) or not (folder / MARK).is_file():
        return 0
    freed = 0
    for file in folder.glob("*.safetensors*"):
        if file.name not in ("mask.safetensors", "grid.safetensors"):
            freed += file.stat().st_size
            file.unlink()
    return freed


def failure(error: JdnaError) -> tuple[str, bool]:
    """A cell's own failure in one line, and whether it would fail again."""
    text = redact(" ".join(str(error).split()))
    return text, isinstance(error, RequestError | NotFiniteError)


def main_score(run: Run, outcome: Outcome) -> tuple[str, float] | None:
    """The main metric of a run, by name."""
    for m in outcome.measurements:
        if m.step is None and m.name == run.metric and m.split != "train":
            return m.name, m.value
    return None


def command(cell: Cell, where: SweepSettings, runs: dict[str, int]) -> str | None:
    """The cell as a command line; None where it needs a run that is not known yet."""
    if any(key not in runs and cell.kind != "finetune" for key in cell.needs):
        return None
    if any(
        str(v) == f"cell:{k}" and k not in runs for v in cell.values.values() for k in cell.needs
    ):
        return None
    values = resolved(cell, runs)
    values |= {"home": where.home, "db": where.db, "data_dir": where.data_dir}
    return shlex.join(command_line.words(cell.kind, values | {"allow_pickle": where.allow_pickle}))
