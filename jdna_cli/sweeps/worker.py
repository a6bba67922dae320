"""A worker process: takes cells one after the other, and keeps what they share in memory.

It reads one JSON object a line from standard input (a cell to run) and writes one a line to the
descriptor named by JDNA_EVENTS (how far it is, what came of it). When its input ends, whoever asked
is gone: it stops what it does, with a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jdna_cli.errors import JdnaError, NotFiniteError, RequestError, redact
from jdna_cli.jobs.running import Desk, Progress
from jdna_cli.store.ledger import Ledger
from jdna_cli.sweeps import work

TELL_SECONDS = 0.5  # between two words on how far a run is


class Teller:
    """Says on the line of events how far a run is; an observer of runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = 0.0

    def tell(self, **event: Any) -> None:
        """One event."""
        with contextlib.suppress(BrokenPipeError):
            self._out.write(json.dumps(event) + "\n")
            self._out.flush()

    def say(self, text: str) -> None:
        """What a person would read goes to standard error."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """While a run lasts."""

        def told(what: str, done: int, total: int, note: str) -> None:
            now = time.monotonic()
            if now - self._last >= TELL_SECONDS:
                self._last = now
                self.tell(event="progress", what=what, done=done, total=total, note=note)

        yield told


def _inputs(found: queue.SimpleQueue[str | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        found.put(line)
    found.put(None)
    if busy.is_set():
        # As Ctrl-C would: a training writes its checkpoint first.
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Work until there is nothing more to do."""
    teller = Teller(os.fdopen(int(os.environ["JDNA_EVENTS"]), "w"))
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_inputs, args=(lines, busy), daemon=True).start()
    where = work.Where(**json.loads(sys.argv[1]))
    ledger = Ledger(Path(where.home), where.db)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    teller.tell(event="ready")
    while (line := lines.get()) is not None:
        busy.set()
        asked = json.loads(line)
        teller.tell(**_outcome(ledger, where, teller, asked))
        busy.clear()
    ledger.close()


def _outcome(
    ledger: Ledger, where: work.Where, teller: Teller, asked: dict[str, Any]
) -> dict[str, Any]:
    """What came of a cell, as an event."""
    # Another worker may have died in the middle of this cell: its run is taken up.
    ledger.recognise_dead()
    data_dir = Path(where.data_dir) if where.data_dir else None
    desk = Desk(
        ledger, data_dir, asked["force"], True, where.allow_pickle, teller,
        keeps_model=asked["keep"],
    )  # fmt: skip
    began = time.monotonic()
    try:
        done = work.run(desk, asked["kind"], asked["values"])
    except JdnaError as error:
        text = redact(" ".join(str(error).split()))
        final = isinstance(error, RequestError | NotFiniteError)
        return {"event": "failed", "key": asked["key"], "error": text, "final": final}
    except Exception as error:
        text = redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]
        return {"event": "failed", "key": asked["key"], "error": text, "final": False}
    if not done.cached:
        work.mark(ledger, done.folder, where.name)
    score = work.main_score(done)
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


if __name__ == "__main__":
    main()
