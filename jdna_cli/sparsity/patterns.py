"""Sparsity patterns: from scores to a mask.

Two patterns: unstructured, whose scope says where scores compete (the whole model, a tensor, or an
output row), and N:M, which keeps N of each M consecutive weights along the input dimension.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jdna_cli.sparsity import masks, selection
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.parallel import ahead
from jdna_cli.sparsity.targets import Target

T = TypeVar("T")

BLOCK = 1 << 20  # weights ranked at a time
GROUPS = 1 << 17  # groups ranked at a time: what a core's cache holds


@dataclass(frozen=True)
class Scored:
    """One tensor's scores, and which of its dimensions runs along the input."""

    name: str
    score: Tensor
    input_dim: int
    weight: Tensor | None = None  # carried along for whoever finishes


Item = Scored | Callable[[], Scored]
Source = Callable[[], Iterable[Item]]
Finish = Callable[[Scored, Mask], T]


def unstructured(
    source: Source, sparsity: float, scope: str, total: int | None = None
) -> Iterator[tuple[str, Mask]]:
    """Masks that remove exactly round(s · n) weights: of the model, of each tensor, or each row.

    Masks come one by one, in the order of the source, so that not all of them need be in memory.

    Args:
        source: yields the scores of all prunable tensors, or functions that return them (they are
            called in several threads), the same each time it is called.
        sparsity: s, 0 ≤ s < 1.
        scope: `global`, `layer` or `row` (a row: all weights of one output).
        total: number of scores; counted where it is not given.
    """
    return each_unstructured(source, sparsity, scope, _named, total)


def each_unstructured(
    source: Source,
    sparsity: float,
    scope: str,
    finish: Finish[T],
    total: int | None = None,
    sample: selection.Source | None = None,
) -> Iterator[T]:
    """`finish(scored, mask)` of each tensor, in the thread that found its mask.

    Args are those of `unstructured`, with `sample` as in `selection.cutoff`.
    """
    if scope != "global":
        yield from each_alone(source, lambda scored: Target(sparsity), scope, finish)
        return
    if total is None:
        total = sum(_resolved(item).score.numel() for item in source())
    cut = selection.cutoff(lambda: map(_pair, source()), round(sparsity * total), total, sample)

    def together(own: tuple[Item, int]) -> T:
        scored = _resolved(own[0])
        bits, kept, _ = selection.kept(scored.score, selection.Cutoff(cut.key, own[1]))
        return finish(scored, Mask(bits, tuple(scored.score.shape), kept))

    yield from ahead(together, zip(source(), cut.shares, strict=True))


def n_of_m(source: Source, n: int, m: int) -> Iterator[tuple[str, Mask]]:
    """Masks that keep the N highest of each M consecutive weights along the input dimension.

    The width must be a multiple of `m` (the caller checks, it knows how to say so).
    """
    return each_n_of_m(source, n, m, _named)


def each_n_of_m(source: Source, n: int, m: int, finish: Finish[T]) -> Iterator[T]:
    """`finish(scored, mask)` of each tensor, in the thread that found its mask."""
    return each_alone(source, lambda scored: Target(None, (n, m)), "layer", finish)


def each_alone(
    source: Source, target_of: Callable[[Scored], Target], scope: str, finish: Finish[T]
) -> Iterator[T]:
    """`finish(scored, mask)` of each tensor, by what each is to lose by itself."""

    def one(item: Item) -> T:
        scored = _resolved(item)
        return finish(scored, alone(scored, target_of(scored), scope))

    return ahead(one, source())


def alone(scored: Scored, target: Target, scope: str) -> Mask:
    """The mask of one tensor by what it is to lose: N:M, or a share of all or of each row."""
    if target.sparsity is None:
        n, m = target.groups
        return keep_n(rank_in_groups(scored, m), n, scored.input_dim)
    return (_by_row if scope == "row" else _by_layer)(scored, target.sparsity)


def _named(scored: Scored, mask: Mask) -> tuple[str, Mask]:
    return scored.name, mask


def _resolved(item: Item) -> Scored:
    return item() if callable(item) else item


def _pair(item: Item) -> selection.Item:
    if not callable(item):
        return item.name, item.score

    def later() -> tuple[str, Tensor]:
        scored = item()
        return scored.name, scored.score

    return later


@dataclass(frozen=True)
class Ranks:
    """Rank of each weight in its group of M, 0 = highest: one ranking serves every N.

    `places` is (M, groups) uint8: the first weights of all groups, then the second ones, …; groups
    follow each other along the input, then row by row.
    """

    places: npt.NDArray[np.uint8]
    rows: int


def rank_in_groups(scored: Scored, m: int) -> Ranks:
    """Rank the weights of each M along the input; of equal scores the first is higher.

    Raises:
        JdnaError: a score is NaN.
    """
    score = scored.score.movedim(scored.input_dim, -1)
    rows = score.numel() // score.shape[-1]
    raw = selection.keys(score).reshape(-1, m)
    top = raw.dtype.type(np.iinfo(raw.dtype).max >> 1)
    places = np.empty((m, len(raw)), dtype=np.uint8)
    highest = np.zeros(len(raw) // GROUPS + 1, dtype=raw.dtype)

    def rank(start: int) -> None:
        block, own = raw[start : start + GROUPS], places[:, start : start + GROUPS]
        # Columns of the groups side by side: each comparison runs over contiguous memory.
        columns = np.empty((m, len(block)), dtype=raw.dtype)
        np.bitwise_and(block.T, top, out=columns)
        highest[start // GROUPS] = columns.max()
        own[:] = np.arange(m, dtype=np.uint8)[:, None]
        later = np.empty(len(block), dtype=bool)
        for i in range(m):
            for j in range(i + 1, m):
                np.greater(columns[j], columns[i], out=later)
                own[i] += later.view(np.uint8)
                own[j] -= later.view(np.uint8)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets go of the interpreter
        list(pool.map(rank, range(0, len(raw), GROUPS)))
    selection.refuse_nan_key(scored.name, score.dtype, int(highest.max()))
    return Ranks(places, rows)


def keep_n(ranks: Ranks, n: int, input_dim: int) -> Mask:
    """The mask that keeps the N highest of each group, in the weight's own layout."""
    m, groups = ranks.places.shape
    shape = (ranks.rows, m * groups // ranks.rows)
    if input_dim == 1 and 8 % m == 0:
        return Mask(_bytes_of_groups(ranks.places, n), shape, groups * n)
    kept = torch.from_numpy(np.ascontiguousarray((ranks.places < n).T)).view(shape)
    return masks.pack(kept if input_dim == 1 else kept.T.contiguous())


def _bytes_of_groups(places: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.uint8]:
    """The packed bits of masks of groups of 2, 4 or 8, first weights in the highest bits."""
    m, groups = places.shape
    bits = np.zeros(-(-groups * m // 8) * (8 // m), dtype=np.uint8)
    for start in range(0, groups, GROUPS):
        part = places[:, start : start + GROUPS]
        own, stays = bits[start : start + part.shape[1]], np.empty(part.shape[1], dtype=bool)
        for row in part:
            np.add(own, own, out=own)  # a shift, which NumPy does far slower
            np.less(row, n, out=stays)
            own |= stays.view(np.uint8)
    joined = bits.reshape(-1, 8 // m)
    found = joined[:, 0].copy()
    for i in range(1, 8 // m):
        found *= 1 << m
        found |= joined[:, i]
    return found


def _by_layer(scored: Scored, sparsity: float) -> Mask:
    k = round(sparsity * scored.score.numel())
    cut = selection.cutoff(lambda: [(scored.name, scored.score)], k)
    bits, kept, _ = selection.kept(scored.score, cut)
    return Mask(bits, tuple(scored.score.shape), kept)


@functools.cache
def _widens() -> bool:
    """Whether NumPy finds a key among 32 bits sooner than among 16.

    It does several times over where it knows AVX2 alone, and does not with AVX-512.
    """
    narrow = np.random.default_rng(0).integers(0, 1 << 15, (32, 2048), dtype=np.uint16)

    def spent(rows: npt.NDArray[np.generic]) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            np.partition(rows, 1024, axis=1)
            times.append(time.perf_counter() - began)
        return min(times)

    return spent(narrow.astype(np.uint32)) < 0.7 * spent(narrow)


def _by_row(scored: Scored, sparsity: float) -> Mask:
    selection.refuse_nan(scored.name, scored.score)
    rows = scored.score.movedim(scored.input_dim, -1)
    width = rows.shape[-1]
    k = round(sparsity * width)
    stays = np.ones((rows.numel() // width, width), dtype=bool)
    step = max(1, BLOCK // width)
    for start in range(0, stays.shape[0] if k else 0, step):
        raw = selection.keys(rows[start : start + step]).reshape(-1, width)
        block = raw & raw.dtype.type(np.iinfo(raw.dtype).max >> 1)
        wide = block.astype(np.uint32) if block.itemsize == 2 and _widens() else block
        key = np.partition(wide, k - 1, axis=1)[:, k - 1 : k].astype(block.dtype)
        own = stays[start : start + step]
        np.greater(block, key, out=own)
        # Of the weights that equal the last one that goes, the later ones of a row stay.
        at = np.flatnonzero(block == key)
        row = at // width
        missing = width - k - np.count_nonzero(own, axis=1)
        last = np.searchsorted(row, np.arange(len(own)), side="right")
        stay = np.arange(len(row)) >= last[row] - missing[row]
        own.reshape(-1)[at[stay]] = True
    kept = torch.from_numpy(stays)
    return masks.pack(kept if scored.input_dim == 1 else kept.T.contiguous())
