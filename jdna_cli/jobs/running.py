"""The one way a run happens.

Options have become a spec; the ledger looks for a finished twin and opens a run; a pipeline does
the work and returns plain numbers; the ledger writes them, or the failure.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from jdna_cli.errors import InterruptedRunError
from jdna_cli.results import Outcome
from jdna_cli.store.ledger import Ledger, NewRun
from jdna_cli.store.tables import Run

if TYPE_CHECKING:
    from jdna_cli.engine.place import Place

Progress = Callable[[str, int, int, str], None]


class Observer(Protocol):
    """Who is told how a run gets on."""

    def say(self, text: str) -> None:
        """One line."""

    def phase(self, text: str) -> None:
        """What is done now, before a run has begun."""

    def progress(self, title: str) -> contextlib.AbstractContextManager[Progress]:
        """While a run lasts: what to call with (what, done, of how many, a note)."""


class Silent:
    """Nobody is told."""

    def say(self, text: str) -> None:
        """Nothing is said."""

    def phase(self, text: str) -> None:
        """Nothing is said."""

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Nothing is shown."""
        yield lambda what, done, total, note: None


@dataclass(frozen=True)
class Desk:
    """What every request shares: where runs are recorded, where data is, how to go about it.

    Where it only looks (`look`), what the database has not is `Missing`, and nothing is run. Where
    nobody wants a fine-tuned model, only what was measured, the model is not written.
    """

    ledger: Ledger
    data_dir: Path | None = None
    force: bool = False
    resume: bool = False
    allow_pickle: bool = False
    observer: Observer = field(default_factory=Silent)
    look: bool = False
    keeps_model: bool = True


class Missing(Exception):  # noqa: N818
    """The database has not what a desk was to look up."""


@dataclass(frozen=True)
class Done:
    """A recorded run, what it measured, and whether the database already had it."""

    run: Run
    outcome: Outcome
    folder: Path
    cached: bool
    notes: tuple[str, ...] = ()


def answer(
    desk: Desk,
    fingerprint: str,
    out: Path | None = None,
    fits: Callable[[Run], bool] = lambda run: True,
) -> Done | None:
    """The finished run that has this result already, if there is one and it may be used."""
    ledger = desk.ledger
    twin = None if desk.force else ledger.finished(fingerprint, fits)
    if twin is None or (out is not None and ledger.folder(twin) != out.resolve()):
        if desk.look:
            raise Missing
        return None
    assert twin.id is not None
    return Done(twin, ledger.outcome(twin.id), ledger.folder(twin), cached=True)


def perform(
    desk: Desk,
    opening: NewRun,
    action: Callable[[Place], Outcome],
    out: Path | None = None,
) -> Done:
    """Run `action` and record what becomes of it."""
    ledger = desk.ledger
    desk.observer.phase("loading libraries")
    from jdna_cli.engine import devices
    from jdna_cli.engine.place import Place, Surroundings
    from jdna_cli.jobs import precision

    if slow := precision.warning(opening.spec):
        desk.observer.say(slow)
    kind = opening.spec.kind
    cut_off = ledger.resumable(opening.fingerprint) if desk.resume else None
    if desk.resume and cut_off is None and kind == "finetune":
        desk.observer.say("no run of this request was cut off: starting from the beginning")
    if cut_off is not None:
        run = ledger.take_up(cut_off)
    else:
        run = ledger.start(opening, devices.versions(), out)
    folder, work = ledger.folder(run), ledger.work(run)
    title = f"run {run.id} · {run.kind}"
    with (
        ledger.running(run, fresh=cut_off is None),
        Stopper(desk.observer, graceful=kind == "finetune") as stopper,
        desk.observer.progress(title) as progress,
    ):
        surroundings = Surroundings(work, progress, stopper.asked)
        tokens = ledger.home / ".tokens"
        outcome = action(Place(folder, desk.data_dir, surroundings, tokens, desk.keeps_model))
        run = ledger.finish(run, outcome)
    shutil.rmtree(work, ignore_errors=True)
    return Done(run, outcome, folder, cached=False, notes=outcome.notes)


class Stopper:
    """Turns the first SIGINT or SIGTERM into a request to stop, and the second into a stop.

    Where work cannot stop in an orderly way (`graceful` is False), or has not come to where it is
    asked for, as while a model is loaded, the first one stops it.
    """

    def __init__(self, observer: Observer, *, graceful: bool) -> None:
        self._observer, self._graceful = observer, graceful
        self._asked = 0
        self._heard = False  # whether anybody has looked yet
        self._before: dict[signal.Signals, Any] = {}

    def asked(self) -> int:
        """Number of the signal that asked to stop, else 0."""
        self._heard = True
        return self._asked

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._graceful and not self._heard:
            raise InterruptedRunError(
                "interrupted before the first step: the same command begins again", number
            )
        if self._asked or not self._graceful:
            raise InterruptedRunError("interrupted: the same command begins again", number)
        self._asked = number
        self._observer.say("stopping after this step, with a checkpoint (once more: at once)")
