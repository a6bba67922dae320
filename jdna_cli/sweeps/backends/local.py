"""The local engine: worker processes that stay alive, each with its share of the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing.util
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from jdna_cli.compute import threads
from jdna_cli.errors import InterruptedRunError
from jdna_cli.signals import AskedToStop
from jdna_cli.sweeps.backends.worker import main as start_worker
from jdna_cli.sweeps.cells import Cell, resolved
from jdna_cli.sweeps.queue import State
from jdna_cli.sweeps.run_cell import SweepSettings

DEATHS = 5  # of the processes of one cell, before it counts as failed
GRACE_SECONDS = 60.0  # for a checkpoint, when the sweep is asked to stop


class Watcher(Protocol):
    """Who is shown how a sweep gets on."""

    def started(self, cell: Cell, worker: int) -> None:
        """A cell was given to a worker."""

    def progress(self, worker: int, event: dict[str, Any]) -> None:
        """How far a worker is."""

    def ended(self, cell: Cell, worker: int, event: dict[str, Any], state: State) -> None:
        """A cell is done, failed, or is to be tried again."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What a worker may use."""

    threads: int
    device: str | None = None  # number of a CUDA device

    def environment(self) -> dict[str, str]:
        """The variables that say so."""
        found = {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        return found if self.device is None else {**found, "CUDA_VISIBLE_DEVICES": self.device}


def shares(workers: int | None, per_device: int) -> list[Share]:
    """How the machine is divided: a worker or more per GPU, else a few threads per worker."""
    cores = threads.cores().usable
    devices = _devices()
    if devices:
        count = workers or len(devices) * per_device
        own = [devices[i % len(devices)] for i in range(count)]
    else:
        count = workers or min(4, cores)
        own = [None] * count
    return [Share(max(1, cores // count), device) for device in own]


def _devices() -> list[str | None]:
    """CUDA devices, found without importing torch here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name != "-1"]
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [str(i) for i in range(len(told.stdout.splitlines()))] if told.returncode == 0 else []


_HEAVY = tuple(f"jdna_cli.pipelines.{name}" for name in ("finetune", "evaluate", "prune"))
_SOCKET = 107 - len("/listener-xxxxxxxx")  # the longest folder of a socket


def _processes() -> Any:
    """How workers come to be: forked from a server that has imported what computes.

    The server has no threads and no device yet. It listens in the temporary folder; where that has
    too long a name for a socket, each worker imports for itself.
    """
    if len(multiprocessing.util.get_temp_dir()) > _SOCKET:
        return multiprocessing.get_context("spawn")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(_HEAVY))
    return forks


class Worker:
    """One process, and the thread that listens to it."""

    def __init__(
        self, number: int, share: Share, where: SweepSettings, events: queue.SimpleQueue[Any]
    ) -> None:
        self.number = number
        self.cell: Cell | None = None
        processes = _processes()
        self._line, theirs = processes.Pipe()
        environment = {**os.environ, **share.environment()}
        self.process = processes.Process(target=start_worker, args=(theirs, where, environment))
        self.process.start()
        theirs.close()
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def _listen(self, events: queue.SimpleQueue[Any]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                events.put((self, self._line.recv()))
        # Reaped before anybody asks whether it lives.
        self.process.join()
        events.put((self, {"event": "gone", "code": self.process.exitcode}))

    def give(self, cell: Cell, values: dict[str, Any], *, wanted: bool, keep: bool) -> bool:
        """Hand over a cell; returns whether it could be."""
        self.cell = cell
        asked = {"key": cell.key, "kind": cell.kind, "values": values, "wanted": wanted,
                 "keep": keep}  # fmt: skip
        try:
            self._line.send(asked)
        except OSError:
            return False
        return True

    def dismiss(self) -> None:
        """There is nothing more to do: it ends, with a checkpoint if it is busy."""
        with contextlib.suppress(OSError):
            self._line.send(None)


def run(state: State, where: SweepSettings, watcher: Watcher, divided: list[Share]) -> None:
    """Run all waiting cells.

    Raises:
        InterruptedRunError: a signal asked to stop; workers have written their checkpoints.
    """
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    count = min(len(divided), state.most)
    workers = [Worker(i, divided[i], where, events) for i in range(count)]
    idle: list[Worker] = []
    asked = AskedToStop()
    try:
        with asked:
            while not state.over and not asked.number:
                try:
                    worker, event = events.get(timeout=0.2)
                except queue.Empty:
                    continue
                if event["event"] == "ready":
                    idle.append(worker)
                elif event["event"] == "progress":
                    watcher.progress(worker.number, event)
                else:
                    _ended(state, worker, event, watcher)
                    if event["event"] == "gone":
                        fresh = Worker(worker.number, divided[worker.number], where, events)
                        workers[workers.index(worker)] = fresh
                    else:
                        idle.append(worker)
                _hand_out(state, idle, watcher)
            if asked.number:
                raise InterruptedRunError("stopped; the same command goes on", asked.number)
    finally:
        _dismiss(workers)


def _ended(state: State, worker: Worker, event: dict[str, Any], watcher: Watcher) -> None:
    cell, worker.cell = worker.cell, None
    if cell is None:
        return
    if event["event"] == "done":
        state.done(cell.key, event["run"], Path(event["folder"]))
    elif event["event"] == "failed":
        event["again"] = state.fails(cell.key, event["error"], final=event["final"])
    else:
        how = f"its process ended with code {event['code']}"
        if event["code"] < 0:
            how = f"its process was killed ({signal.Signals(-event['code']).name})"
        event["error"] = how
        event["again"] = state.died(cell.key, how, max(DEATHS, state.retries))
    watcher.ended(cell, worker.number, event, state)


def _hand_out(state: State, idle: list[Worker], watcher: Watcher) -> None:
    """Give waiting cells to idle workers."""
    while idle and (cell := state.next()) is not None:
        worker = idle.pop()
        values, wanted = resolved(cell, state.runs), state.is_wanted(cell)
        if worker.give(cell, values, wanted=wanted, keep=state.keeps(cell)):
            watcher.started(cell, worker.number)
        # One that could not be told is gone, and says so itself.


def _dismiss(workers: list[Worker]) -> None:
    for worker in workers:
        worker.dismiss()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.1, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
