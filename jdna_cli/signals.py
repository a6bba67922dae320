"""SIGINT and SIGTERM as requests to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from jdna_cli.errors import InterruptedRunError
from jdna_cli.observer import Observer

if TYPE_CHECKING:
    pass


class StopSignals:
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


class AskedToStop:
    """Notes the first SIGINT or SIGTERM; the second is what it always was."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> AskedToStop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.number = number
        for signal_, handler in self._before.items():
            signal.signal(signal_, handler)
