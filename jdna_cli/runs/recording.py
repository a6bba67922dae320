"""The one way a run happens: resolve, find, execute.

A command's `resolve` makes a request of what was asked: names have become identities. `find` has
the finished run of the same fingerprint, if there is one. `execute` opens a run, lets a pipeline do
the work, and records what it returns, or the failure.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jdna_cli.observer import Observer, Silent
from jdna_cli.results import Outcome
from jdna_cli.signals import StopSignals
from jdna_cli.store.ledger import Ledger, NewRun
from jdna_cli.store.tables import Run

if TYPE_CHECKING:
    from jdna_cli.run_context import RunContext


@dataclass(frozen=True)
class OpenWorkspace:
    """What every request shares: where runs are recorded, where data is, how to go about it.

    Where it is for looking up alone (`lookup_only`), a model that a run wrote and that is gone is
    known by what it was. Where nobody wants a fine-tuned model, only what was measured, the model
    is not written.
    """

    ledger: Ledger
    data_dir: Path | None = None
    force: bool = False
    resume: bool = False
    allow_pickle: bool = False
    observer: Observer = field(default_factory=Silent)
    lookup_only: bool = False
    keeps_model: bool = True


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

    @abstractmethod
    def prepare(self) -> Execution:
        """Check all that can be checked before anything is computed.

        Raises:
            RequestError: says what is wrong.
        """


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
    """Compute what was asked, and record what becomes of it."""
    workspace, execution = request.workspace, request.prepare()
    ledger, new_run = workspace.ledger, execution.new_run
    workspace.observer.phase("loading libraries")
    from jdna_cli.compute import devices
    from jdna_cli.run_context import RunContext
    from jdna_cli.runs import precision

    if slow := precision.warning(new_run.spec):
        workspace.observer.say(slow)
    kind = new_run.spec.kind
    cut_off = ledger.resumable(new_run.fingerprint) if workspace.resume else None
    if workspace.resume and cut_off is None and kind == "finetune":
        workspace.observer.say("no run of this request was cut off: starting from the beginning")
    if cut_off is not None:
        run = ledger.take_up(cut_off)
    else:
        run = ledger.start(new_run, devices.versions(), request.out)
    folder, work = ledger.folder(run), ledger.work(run)
    title = f"run {run.id} · {run.kind}"
    with (
        ledger.running(run, fresh=cut_off is None),
        StopSignals(workspace.observer, graceful=kind == "finetune") as stopper,
        workspace.observer.progress(title) as progress,
    ):
        tokens = ledger.home / ".tokens"
        outcome = execution.pipeline(
            RunContext(
                folder,
                workspace.data_dir,
                work,
                progress,
                stopper.asked,
                tokens,
                workspace.keeps_model,
            )
        )
        run = ledger.finish(run, outcome)
    shutil.rmtree(work, ignore_errors=True)
    return RecordedRun(run, outcome, folder, cached=False, notes=outcome.notes)
