"""What a person sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 15.0  # between lines of progress where there is no terminal
PATIENCE_OF_LOGS = 60.0  # and where there is none: an error is to stay one line
PATIENCE = 1.0  # seconds until what is being done is named at a terminal


def printable(text: str) -> str:
    """A text without what a terminal would obey: names of folders may hold anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


def say(text: str) -> None:
    """One line to standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def tell(text: str, indent: str = "  ") -> None:
    """One line of words to standard output, folded where the terminal ends."""
    print(wrapped(printable(text), indent))


def room() -> int | None:
    """Columns of the terminal, or those that COLUMNS names; None: as many as it takes."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def wrapped(text: str, indent: str = "  ") -> str:
    """A line of words as lines that fit the terminal; what has no space is never broken."""
    width = room()
    if width is None or cell_count(text) <= width:
        return text
    return "\n".join(words(text, width, indent))


def words(text: str, width: int, indent: str = "") -> list[str]:
    """A text as lines of a width, broken between words alone."""
    return textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )


def cell_count(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def place(path: Path) -> str:
    """A path as one would name it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


class Waiting:
    """Names what is being done where it takes longer than a moment, and nothing else is shown."""

    def __init__(self) -> None:
        self._text = ""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def now(self, text: str) -> None:
        """From now on this is done; nothing where `text` is empty."""
        if not text and not self._text:  # as at every step of a training: nobody to wake
            return
        with self._changed:
            self._text = text
            self._changed.notify()
        if text and self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        patience = PATIENCE if sys.stderr.isatty() else PATIENCE_OF_LOGS
        with self._changed:
            while True:
                text = self._text
                if text and not self._changed.wait(patience):
                    say(f"{text} …")
                    self._changed.wait()
                elif not text:
                    self._changed.wait()


@contextlib.contextmanager
def phases() -> Iterator[Callable[[str], None]]:
    """For as long as something lasts: what to call with what is being done."""
    waiting = Waiting()
    try:
        yield waiting.now
    finally:
        waiting.now("")


class Reporter:
    """Progress of one run: a live bar at a terminal, a plain line now and then elsewhere.

    An instance is what the engine calls with (phase, done, total, note); the total of what cannot
    be counted is 0.
    """

    def __init__(self, title: str, waiting: Waiting) -> None:
        self._title, self._waiting = title, waiting
        self._live: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._last = time.monotonic()
        self._began: dict[str, float] = {}
        self._note = ""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.now("")
        if self._live:
            self._live.stop()

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` of `phase` are done."""
        self._note = note or self._note
        if not total:
            self._waiting.now(f"{self._title} · {phase}")
            return
        self._waiting.now("")
        if self._live:
            if phase not in self._bars:
                title = f"{self._title} · {phase}"
                self._bars[phase] = self._live.add_task(title, total=total, note="")
            self._live.update(self._bars[phase], completed=done, note=self._fitting(phase, total))
            return
        now = time.monotonic()
        began = self._began.setdefault(phase, self._last if not self._began else now)
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            parts = [self._title, f"{phase} {done}/{total}", self._note]
            spent = now - began
            # Nothing is known of what is left before something has taken its time.
            if done and spent > 0:
                parts.append(f"{spent / done * (total - done):.0f} s left")
            say(" · ".join(part for part in parts if part))

    def _fitting(self, phase: str, total: int) -> str:
        """The note, cut to the room that title, bar, counts and time leave."""
        room = shutil.get_terminal_size().columns - len(f"{self._title} · {phase}")
        room -= 2 * len(str(total)) + 38
        return self._note if len(self._note) <= room else f"{self._note[: max(0, room - 1)]}…"


class Terminal:
    """The observer of runs that were asked for at a terminal, or in a script."""

    def __init__(self) -> None:
        self._waiting = Waiting()

    def phase(self, text: str) -> None:
        """What is done now, before a run has begun."""
        self._waiting.now(text)

    def say(self, text: str) -> None:
        """One line to standard error."""
        say(text)

    def progress(self, title: str) -> Reporter:
        """A bar, or a line now and then."""
        return Reporter(title, self._waiting)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, allow_nan=False, default=str))


def size(count: int) -> str:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
