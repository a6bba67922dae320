"""One cell, run by the functions that the commands call."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import command_line
from jdna_cli.errors import JdnaError, NotFiniteError, RequestError, redact
from jdna_cli.jobs import finetuning, measuring, pruning
from jdna_cli.jobs.running import Desk, Done, Missing
from jdna_cli.results import Outcome
from jdna_cli.store.ledger import REMEMBERED, Ledger, has_weights
from jdna_cli.store.tables import Run
from jdna_cli.sweeps.cells import Cell, resolved

MARK = ".sweep"  # in the folder of a run that a sweep made


@dataclass(frozen=True)
class SweepSettings:
    """Where the cells of a sweep read and are recorded; travels to workers as JSON."""

    home: str
    db: str | None
    data_dir: str | None
    allow_pickle: bool = False
    name: str = ""


def run(desk: Desk, kind: str, values: dict[str, Any]) -> Done:
    """Run a request, or find it in the database."""
    asked = dict(values)
    for name in ("include", "exclude"):
        if name in asked:
            asked[name] = tuple(asked[name])
    if kind == "prune":
        return pruning.prune(desk, asked)
    if kind == "finetune":
        return finetuning.finetune(desk, {"model": None, **asked})
    if kind == "eval":
        return measuring.evaluate(desk, {"shots": 0, **asked})
    return measuring.interpolate(desk, {"shots": 0, **asked})


def look_up(desk: Desk, cell: Cell, runs: dict[str, int], *, with_model: bool) -> int | None:
    """The run that has a cell's result, and its model where that is needed; None: there is none.

    Args:
        desk: a desk that only looks.
        cell: the cell.
        runs: those of the cells that it needs, as far as they are known.
        with_model: whether the run must still have its model.

    Raises:
        RequestError: the cell's request is wrong.
    """
    if any(key not in runs for key in cell.needs):
        return None
    try:
        found = run(desk, cell.kind, resolved(cell, runs))
    except Missing:
        return None
    if with_model and not has_weights(found.folder):
        return None
    return found.run.id


def mark(ledger: Ledger, folder: Path, sweep: str) -> None:
    """Note that a sweep made a run, and may take its model away; and what that model is."""
    (folder / MARK).write_text(f"{sweep}\n")
    if has_weights(folder):
        (folder / REMEMBERED).write_text(f"{ledger.identity(folder)}\n")


def release(folder: Path) -> int:
    """Take away the model of a run that a sweep made; returns the bytes that this freed.

    Metrics, masks, grids and predictions stay.
    """
    if not (folder / MARK).is_file():
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
