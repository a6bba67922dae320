"""The one way a run happens: resolve, find, execute.

A command's `resolve` makes a request of what was asked: names have become identities. `find` has
the finished run of the same fingerprint, if there is one. `execute` opens a run, lets a pipeline do
the work, and records what it returns, or the failure.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jdna_cli.compute.versions import versions
from jdna_cli.observer import Observer, Silent
from jdna_cli.results import Outcome
from jdna_cli.signals import StopSignals
from jdna_cli.store.ledger import AlreadyRunningError, Ledger, NewRun
from jdna_cli.store.tables import Run

if TYPE_CHECKING:
    from jdna_cli.run_context import RunContext

WAIT_SECONDS = 1.0  # between looks at a run of another process


@dataclass(frozen=True)
class OpenWorkspace:
    """What every request shares: where runs are recorded, where data is, how to go about it.

    Where it is for looking up alone (`lookup_only`), a model that a run wrote and that is gone is
    known by what it was. Where nobody wants a fine-tuned model (`keeps_model`), only what was
    measured, the model is not written; where the model itself is wanted (`needs_model`), a run that
    has it no more is no answer.
    """

    ledger: Ledger
    data_dir: Path | None = None
    force: bool = False
    resume: bool = False
    allow_pickle: bool = False
    observer: Observer = field(default_factory=Silent)
    lookup_only: bool = False
    keeps_model: bool = True
    needs_model: bool = False


@dataclass(frozen=True)
class RecordedRun:
    """A recorded run, what it measured, and whether the database already had it."""

    run: Run
    outcome: Outcome
    folder: Path
    cached: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Execution:
    """A run that may be opened, and what then computes its outcome."""

    new_run: NewRun
    pipeline: Callable[[RunContext], Outcome]


class Request(ABC):
    """What was asked, by content: its fingerprint is that of the result."""

    workspace: OpenWorkspace
    fingerprint: str
    out: Path | None = None  # where the model is to be, if that was said

    def is_answered_by(self, run: Run) -> bool:
        """Whether a finished run of this fingerprint has all that was asked for."""
        return True

    def check(self) -> None:  # noqa: B027 (many have nothing more to check)
        """Find what is wrong before anything is computed; nothing is made or recorded.

        Raises:
            RequestError: says what.
        """

    @abstractmethod
    def prepare(self) -> Execution:
        """What computes the result of a request that was checked; what it starts from is made."""


def run(request: Request) -> RecordedRun:
    """The recorded run that answers a request: one that is there, or a new one."""
    return find(request) or execute(request)


def find(request: Request) -> RecordedRun | None:
    """The finished run that has this result already, if there is one and it may be used."""
    ledger, out = request.workspace.ledger, request.out
    if request.workspace.force:
        return None
    twin = ledger.finished(request.fingerprint, request.is_answered_by)
    if twin is None or (out is not None and ledger.folder(twin) != out.resolve()):
        return None
    assert twin.id is not None
    return RecordedRun(twin, ledger.outcome(twin.id), ledger.folder(twin), cached=True)


def execute(request: Request) -> RecordedRun:
    """Compute what was asked, and record what becomes of it.

    Where another process computes the same, its result is waited for.
    """
    request.check()
    workspace, execution = request.workspace, request.prepare()
    ledger, new_run = workspace.ledger, execution.new_run
    workspace.observer.phase("loading libraries")
    from jdna_cli.run_context import RunContext
    from jdna_cli.runs import precision

    if slow := precision.warning(new_run.spec):
        workspace.observer.say(slow)
    claimed = _claimed(request, new_run)
    if isinstance(claimed, RecordedRun):
        return claimed
    run, fresh = claimed
    lease = ledger.lease
    graceful = new_run.spec.kind == "finetune"
    with (
        ledger.running(run, fresh=fresh),
        StopSignals(workspace.observer, graceful=graceful) as stopper,
        workspace.observer.progress(f"run {run.id} · {run.kind}") as progress,
    ):

        def stop() -> int:
            lease.check(run.id)
            return stopper.asked()

        def told(what: str, done: int, total: int, note: str) -> None:
            lease.check(run.id)
            progress(what, done, total, note)

        context = RunContext(
            folder=ledger.folder(run),
            data_dir=workspace.data_dir,
            work=ledger.work(run),
            progress=told,
            stop=stop,
            confirm=lambda: lease.confirm(run.id),
            fingerprint=new_run.fingerprint,
            tokens=ledger.home / ".tokens",
            keeps_model=workspace.keeps_model,
        )
        outcome = execution.pipeline(context)
        run = ledger.finish(run, outcome)
    shutil.rmtree(ledger.work(run), ignore_errors=True)
    return RecordedRun(run, outcome, ledger.folder(run), cached=False, notes=outcome.notes)


def _claimed(request: Request, new_run: NewRun) -> tuple[Run, bool] | RecordedRun:
    """A run that is this process's now, and whether it is new; or what another has made of it."""
    workspace, ledger = request.workspace, request.workspace.ledger
    told = False
    while True:
        cut_off = ledger.resumable(new_run.fingerprint) if workspace.resume else None
        try:
            if cut_off is not None:
                return ledger.take_up(cut_off), False
            run = ledger.start(new_run, versions(), request.out)
        except AlreadyRunningError as error:
            if not told:
                workspace.observer.say(f"{error}: its result is waited for")
            told = True
        else:
            if (found := find(request)) is not None:
                # Another came to the end between our look and our claim.
                ledger.forget(run)
                return found
            if workspace.resume:
                workspace.observer.say(
                    "no run of this request was cut off: starting from the beginning"
                )
            return run, True
        while ledger.running_twin(new_run.fingerprint) is not None:
            time.sleep(WAIT_SECONDS)
        if (found := find(request)) is not None:
            return found
