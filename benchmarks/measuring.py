"""How the benchmarks measure: medians, the peak of memory while a function runs, and ratios."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Ratio:
    """How jdna does beside something that was measured in the same run."""

    work: str
    beside: str
    value: float  # times as fast as a peer, or times what the limit takes
    aim: float | None
    peer: bool  # more is better; else less is


RATIOS: list[Ratio] = []


def beside_peer(work: str, peer: str, value: float, aim: float | None = None) -> None:
    """Note that jdna is `value` times as fast as a peer."""
    RATIOS.append(Ratio(work, peer, value, aim, True))


def beside_limit(work: str, limit: str, value: float, aim: float | None = None) -> None:
    """Note that jdna takes `value` times as long as a limit."""
    RATIOS.append(Ratio(work, limit, value, aim, False))


def seconds(function: Callable[[], object], repeat: int = 5) -> float:
    """Median time of `repeat` calls, after one that does not count."""
    function()
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_megabytes(function: Callable[[], object]) -> float:
    """Resident memory at its highest during one call, beyond what it was before, in MB."""
    process = psutil.Process()
    before, highest, stop = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.is_set():
            highest = max(highest, process.memory_info().rss)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        function()
    finally:
        stop.set()
        thread.join()
    return max(0, highest - before) / 1e6


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table under a heading."""
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, ""])
