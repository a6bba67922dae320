"""Who is told how a run gets on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

# Called with what is being done, how much is done, of how much, and a note.
Progress = Callable[[str, int, int, str], None]


def ignore(what: str, done: int, total: int, note: str) -> None:
    """Progress that nobody is told of."""


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
        yield ignore
