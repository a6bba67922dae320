"""A worker process: takes cells one after the other, and keeps what they share in memory.

It is forked from a server that has imported what computes, so that it starts at once. What comes
down its line are cells to run; what goes up is how far it is, and what came of them. When the line
ends, whoever asked is gone: it stops what it does, with a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jdna_cli.errors import JdnaError, redact
from jdna_cli.observer import Progress
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.store.ledger import Ledger
from jdna_cli.sweeps import run_cell

TELL_SECONDS = 0.5  # between two words on how far a run is


class EventSender:
    """Says on the line of events how far a run is; an observer of runs."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._last = 0.0

    def tell(self, **event: Any) -> None:
        """One event."""
        with contextlib.suppress(BrokenPipeError):
            self._line.send(event)

    def say(self, text: str) -> None:
        """What a person would read goes to standard error."""
        print(text, file=sys.stderr, flush=True)

    def phase(self, text: str) -> None:
        """The board shows what is counted alone."""

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """While a run lasts."""

        def told(what: str, done: int, total: int, note: str) -> None:
            now = time.monotonic()
            if total and now - self._last >= TELL_SECONDS:
                self._last = now
                self.tell(event="progress", what=what, done=done, total=total, note=note)

        yield told


Asked = dict[str, Any]


def _inputs(
    line: Connection, found: queue.SimpleQueue[Asked | None], busy: threading.Event
) -> None:
    with contextlib.suppress(EOFError, OSError):
        while (asked := line.recv()) is not None:
            found.put(asked)
    found.put(None)
    if busy.is_set():
        # As Ctrl-C would: a training writes its checkpoint first.
        os.kill(os.getpid(), signal.SIGTERM)


def main(line: Connection, where: run_cell.SweepSettings, environment: Mapping[str, str]) -> None:
    """Work until there is nothing more to do.

    Args:
        line: to whoever asks.
        where: cells are read and recorded.
        environment: of the process; CUDA is told its device before it is first used.
    """
    # A session of its own: Ctrl-C at the terminal is the driver's to pass on.
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    _quiet()
    teller = EventSender(line)
    asked_for: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_inputs, args=(line, asked_for, busy), daemon=True).start()
    ledger = Ledger(Path(where.home), where.db)
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    teller.tell(event="ready")
    while (asked := asked_for.get()) is not None:
        busy.set()
        teller.tell(**_outcome(ledger, where, teller, asked))
        busy.clear()
    ledger.close()


def _quiet() -> None:
    """What libraries print is nobody's to read, unless a log was asked for."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1) if os.environ.get("JDNA_SWEEP_LOG") else (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _outcome(
    ledger: Ledger, where: run_cell.SweepSettings, teller: EventSender, asked: dict[str, Any]
) -> dict[str, Any]:
    """What came of a cell, as an event."""
    # Another worker may have died in the middle of this cell: its run is taken up.
    ledger.recognise_dead()
    data_dir = Path(where.data_dir) if where.data_dir else None
    workspace = OpenWorkspace(
        ledger, data_dir, False, True, where.allow_pickle, teller,
        keeps_model=asked["keep"], needs_model=asked["wanted"],
    )  # fmt: skip
    began = time.monotonic()
    try:
        done = run_cell.run(workspace, asked["kind"], asked["values"])
    except JdnaError as error:
        text, final = run_cell.failure(error)
        return {"event": "failed", "key": asked["key"], "error": text, "final": final}
    except Exception as error:
        text = redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]
        return {"event": "failed", "key": asked["key"], "error": text, "final": False}
    if not done.cached:
        run_cell.mark(ledger, done.folder, where.name)
    score = run_cell.main_score(done.run, done.outcome)
    return {
        "event": "done",
        "key": asked["key"],
        "run": done.run.id,
        "cached": done.cached,
        "folder": str(done.folder),
        "score": list(score) if score else None,
        "remark": done.run.remark,
        "seconds": time.monotonic() - began,
    }
