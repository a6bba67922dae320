"""A few things at once, in order: NumPy and reading let go of the interpreter."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def ahead(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`function` of each item, in order, computed in as many threads as torch has.

    At most as many results as there are threads are under way, or wait to be taken.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[Future[B]] = collections.deque()
        try:
            for item in items:
                if len(pending) == threads:
                    yield pending.popleft().result()
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for waiting in pending:
                waiting.cancel()


def each_on_one_thread(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """`function` of each item, in order, as many at once as torch has threads, each on one of them.

    For work of many small steps, which threads within a step slow down. What comes out does not
    depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)
