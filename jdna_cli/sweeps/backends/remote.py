"""Cells on other machines: run in a home of the machine's own, and handed back to be recorded here.

SQLite is never shared over a network: a machine's own home lies on its own disk, and the driver
alone writes to the sweep's database. Where that is a server (`--db postgresql+psycopg://…`), cells
write to it themselves, and the home folder must be one that all machines see.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from jdna_cli.compute import threads
from jdna_cli.errors import InterruptedRunError, JdnaError, redact
from jdna_cli.results import Outcome
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.signals import AskedToStop
from jdna_cli.store.ledger import Ledger
from jdna_cli.store.tables import Run
from jdna_cli.sweeps import run_cell
from jdna_cli.sweeps.backends.local import DEATHS, Watcher
from jdna_cli.sweeps.cells import Cell, resolved
from jdna_cli.sweeps.queue import State
from jdna_cli.sweeps.run_cell import SweepSettings

OLD_SECONDS = 7 * 24 * 3600.0  # since a home of cells was written to; then it goes


@dataclass(frozen=True)
class FinishedCell:
    """One finished run on its way to the driver: its row, its numbers, its small files."""

    key: str
    number: int
    parent: int | None
    other: int | None
    columns: dict[str, Any]
    outcome: Outcome
    files: dict[str, bytes]
    cached: bool


@dataclass(frozen=True)
class Failed:
    """A cell that failed for a reason of its own; `final`: it would again."""

    error: str
    final: bool


Result = list[FinishedCell] | Failed


def attempt(where: SweepSettings, chain: Sequence[Cell], with_models: bool) -> Result:
    """`perform`, with the cell's own failures as words: schedulers have their own for errors."""
    threads.prepare()
    try:
        return perform(where, chain, with_models)
    except InterruptedRunError as error:
        # Whoever stopped it begins it again: it has no result, and goes on from its checkpoint.
        sys.exit(error.exit_code)
    except JdnaError as error:
        return Failed(*run_cell.failure(error))


def perform(where: SweepSettings, chain: Sequence[Cell], with_models: bool) -> list[FinishedCell]:
    """Run the last cell of `chain` on this machine, and those before it that it needs.

    Args:
        where: of the sweep.
        chain: the cell, after all that it needs, in order; what this machine has is not run again.
        with_models: whether models travel too.

    Raises:
        JdnaError: a cell failed.
    """
    served = where.db is not None and not where.db.startswith("sqlite")
    own = where if served else replace(where, home=str(_own_home(where)), db=None)
    ledger = Ledger(Path(own.home), own.db)
    ledger.recognise_dead()
    data_dir = Path(where.data_dir) if where.data_dir else None
    workspace = OpenWorkspace(ledger, data_dir, False, True, where.allow_pickle)
    runs: dict[str, int] = {}
    handed = []
    try:
        for cell in chain:
            done = run_cell.run(workspace, cell.kind, resolved(cell, runs))
            assert done.run.id is not None
            runs[cell.key] = done.run.id
            if not done.cached:
                run_cell.mark(ledger, done.folder, where.name)
            handed.append(_handed(cell.key, done.run, done.outcome, done.folder, with_models,
                                  cached=done.cached, bare=served))  # fmt: skip
    finally:
        ledger.close()
    return handed


def _own_home(where: SweepSettings) -> Path:
    """A folder on this machine's own disk, the same for all cells of one sweep, and ours alone.

    Raises:
        JdnaError: somebody else has made it.
    """
    name = hashlib.sha256(f"{where.home}:{where.name}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"jdna-cells-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    there = folder.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise JdnaError(f"{folder} is not this user's alone: remove it")
    # What earlier sweeps have left, and nobody has come back to.
    for old in folder.parent.glob(f"jdna-cells-{os.getuid()}-*"):
        if old != folder and time.time() - old.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    os.utime(folder)
    return folder


def _handed(
    key: str, run: Run, outcome: Outcome, folder: Path, with_models: bool, *, cached: bool,
    bare: bool,
) -> FinishedCell:  # fmt: skip
    files: dict[str, bytes] = {}
    for file in sorted(folder.iterdir()) if not bare else ():
        small = file.suffix != ".safetensors" or file.stem in ("mask", "grid")
        if file.is_file() and (small or with_models):
            files[file.name] = file.read_bytes()
    apart = {"id", "parent", "other", "artifact"}
    assert run.id is not None
    return FinishedCell(
        key, run.id, run.parent, run.other, run.model_dump(exclude=apart), outcome, files, cached
    )


def adopt(ledger: Ledger, handed: Sequence[FinishedCell], *, served: bool) -> dict[str, int]:
    """Record runs that another machine made, each once; returns them by key of their cell."""
    known: dict[int, int] = {}
    found: dict[str, int] = {}
    for one in handed:
        if served:
            found[one.key] = one.number
            continue
        twin = ledger.finished(one.columns["fingerprint"])
        if twin is None:
            parent, other = (known.get(i) if i else None for i in (one.parent, one.other))
            twin = ledger.adopt(one.columns, one.outcome, one.files, parent, other)
        assert twin.id is not None
        known[one.number] = found[one.key] = twin.id
    return found


class Submitter(Protocol):
    """A scheduler that runs `perform` somewhere."""

    def submit(
        self, cell: Cell, where: SweepSettings, chain: list[Cell], with_models: bool
    ) -> None:
        """Hand a cell over."""

    def ended(self) -> list[tuple[Cell, Result | Exception]]:
        """Cells that have ended since the last call; waits a little if there are none."""

    def cancel(self) -> None:
        """Let go of what has not ended."""


def run(
    state: State, where: SweepSettings, watcher: Watcher, submitter: Submitter, ledger: Ledger
) -> None:
    """Run all waiting cells by a scheduler; this process alone writes to a SQLite database.

    Raises:
        InterruptedRunError: a signal asked to stop; what was handed over is cancelled.
    """
    served = where.db is not None and not where.db.startswith("sqlite")
    places: dict[str, int] = {}
    try:
        with AskedToStop() as asked:
            while not state.over and not asked.number:
                while (cell := state.next()) is not None:
                    places[cell.key] = len(places)
                    watcher.started(cell, places[cell.key])
                    submitter.submit(cell, where, chain_of(state, cell), state.keep == "all")
                for cell, result in submitter.ended():
                    event = _recorded(state, ledger, cell, result, served=served)
                    watcher.ended(cell, places[cell.key], event, state)
            if asked.number:
                raise InterruptedRunError("stopped; the same command goes on", asked.number)
    finally:
        submitter.cancel()


def _recorded(
    state: State, ledger: Ledger, cell: Cell, result: Result | Exception, *, served: bool
) -> dict[str, Any]:
    if isinstance(result, Failed):
        again = state.fails(cell.key, result.error, final=result.final)
        return {"event": "failed", "error": result.error, "again": again}
    if isinstance(result, Exception):
        text = redact(" ".join(str(result).split()))[:500]
        again = state.died(cell.key, text, DEATHS)
        return {"event": "failed", "error": text, "again": again}
    number = adopt(ledger, result, served=served)[cell.key]
    row = ledger.get(number)
    state.done(cell.key, number, ledger.folder(row))
    last = result[-1]
    score = run_cell.main_score(row, last.outcome)
    spent = (row.finished_at - row.started_at).total_seconds() if row.finished_at else 0.0
    return {"event": "done", "score": list(score) if score else None,
            "cached": last.cached, "seconds": spent, "remark": row.remark}  # fmt: skip


def chain_of(state: State, cell: Cell) -> list[Cell]:
    """A cell after all that it needs, those that need nothing first."""
    found: dict[str, Cell] = {}

    def add(one: Cell) -> None:
        for key in one.needs:
            add(state.cells[key])
        found.setdefault(one.key, one)

    add(cell)
    return list(found.values())
