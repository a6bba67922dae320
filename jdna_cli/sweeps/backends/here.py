"""The engine of a notebook: one cell after the other, in this process."""

from __future__ import annotations

import time
from dataclasses import replace

from jdna_cli.errors import InterruptedRunError, JdnaError
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.sweeps import run_cell
from jdna_cli.sweeps.backends.local import Watcher
from jdna_cli.sweeps.cells import Cell, resolved
from jdna_cli.sweeps.queue import State


class Silent:
    """Shows nothing."""

    def started(self, cell: Cell, worker: int) -> None:
        """A cell has begun."""

    def progress(self, worker: int, event: dict[str, object]) -> None:
        """How far it is."""

    def ended(self, cell: Cell, worker: int, event: dict[str, object], state: State) -> None:
        """A cell has ended."""


def run(state: State, workspace: OpenWorkspace, watcher: Watcher, name: str) -> None:
    """Run all that waits, or that is asked for meanwhile; cut-off runs are taken up.

    Args:
        state: the queue.
        workspace: where all is recorded.
        watcher: who is shown.
        name: of what asks, in the folders of its runs.

    Raises:
        InterruptedRunError: a signal asked to stop.
    """
    while not state.over:
        cell = state.next()
        if cell is None:
            continue
        watcher.started(cell, 0)
        here = replace(
            workspace, resume=True, keeps_model=state.keeps(cell), needs_model=state.is_wanted(cell)
        )
        began = time.monotonic()
        try:
            done = run_cell.run(here, cell.kind, resolved(cell, state.runs))
        except InterruptedRunError:
            raise
        except JdnaError as error:
            text, final = run_cell.failure(error)
            again = state.fails(cell.key, text, final=final)
            watcher.ended(cell, 0, {"event": "failed", "error": text, "again": again}, state)
            continue
        if not done.cached:
            run_cell.mark(workspace.ledger, done.folder, name)
        assert done.run.id is not None
        state.done(cell.key, done.run.id, done.folder)
        score = run_cell.main_score(done.run, done.outcome)
        event = {"event": "done", "score": list(score) if score else None, "cached": done.cached,
                 "seconds": time.monotonic() - began, "remark": done.run.remark}  # fmt: skip
        watcher.ended(cell, 0, event, state)
