"""The exact k smallest scores of a whole model, found without sorting or copying it.

For IEEE-754 numbers without their sign bit the order of values is the order of bit patterns. A
key is that pattern as an integer; everything here ranks keys, so float32, float16 and bfloat16
are exact, denormals and infinities included. Equal keys are settled by position: the first ones
go. The count never depends on ties.

Method: a sorted sample brackets the key of rank k; one pass counts what lies below the bracket and
gathers what lies inside; the few candidates are partitioned exactly. Where they would be many, they
are counted by bit pattern instead, so that memory does not grow with the model. A sample that
misled only costs time: the bracket is checked, and counting begins again without one.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity.parallel import ahead

Keys = npt.NDArray[Any]  # uint32 for float32, uint16 for the 16-bit types
Counts = npt.NDArray[np.int64]
Item = tuple[str, Tensor] | Callable[[], tuple[str, Tensor]]
Source = Callable[[], Iterable[Item]]

BLOCK = 1 << 18  # elements per pass: small enough for the cache, large enough to forget Python
SAMPLE = 1 << 17
GATHER = 1 << 22  # candidates that are gathered at most; where more are expected they are counted
FEW_BINS = 12
KEPT_BINS = 1 << 12  # a finer histogram is not kept for each tensor
CLUSTERED = 2  # neighbours are alike: a sample of stretches says less than one of single scores

_BITS = {
    torch.float32: (torch.int32, np.uint32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float16: (torch.int16, np.uint16, 0x7FFF, 0x7C00),
    torch.bfloat16: (torch.int16, np.uint16, 0x7FFF, 0x7F80),
}


@dataclass(frozen=True)
class Cutoff:
    """What goes: every key below `key`, and the first `ties` of those equal to it.

    `shares` says how many of those ties lie in each tensor of the source.
    """

    key: int
    ties: int
    shares: tuple[int, ...] = ()


def keys(score: Tensor) -> Keys:
    """View the bits of `score` (any shape, contiguous, on the CPU) as unsigned integers.

    The sign bit is still there; `_block_keys` takes it off block by block.

    Raises:
        JdnaError: the dtype has no key.
    """
    if score.dtype not in _BITS:
        raise JdnaError(f"scores of dtype {score.dtype} cannot be ranked; use float32 or 16 bits")
    signed, unsigned, _, _ = _BITS[score.dtype]
    return score.detach().contiguous().view(signed).numpy().reshape(-1).view(unsigned)


def _block_keys(raw: Keys) -> Iterator[Keys]:
    mask = raw.dtype.type(np.iinfo(raw.dtype).max >> 1)
    buffer = np.empty(min(BLOCK, raw.size), dtype=raw.dtype)
    for start in range(0, raw.size, BLOCK):
        block = raw[start : start + BLOCK]
        yield np.bitwise_and(block, mask, out=buffer[: block.size])


def count_nonzero(values: Tensor) -> int:
    """How many values are neither 0 nor -0: any shape and device; on a CPU as `keys`."""
    if values.dtype not in _BITS or values.device.type != "cpu":
        return int(torch.count_nonzero(values))
    return sum(int(np.count_nonzero(block)) for block in _block_keys(keys(values)))


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; any shape and device."""
    if values.dtype not in _BITS or values.device.type != "cpu":
        return bool(torch.isfinite(values).all())
    infinity = _BITS[values.dtype][3]
    return all(int(block.max()) < infinity for block in _block_keys(keys(values)))


def refuse_nan(name: str, score: Tensor) -> None:
    """Refuse a tensor that holds NaN, which has no rank.

    Raises:
        JdnaError: `score` holds NaN; the message names the tensor.
    """
    highest = max((int(block.max()) for block in _block_keys(keys(score))), default=0)
    refuse_nan_key(name, score.dtype, highest)


def refuse_nan_key(name: str, dtype: torch.dtype, highest: int) -> None:
    """As `refuse_nan`, of the highest key of a tensor.

    Raises:
        JdnaError: it is that of NaN.
    """
    if highest > _BITS[dtype][3]:
        raise JdnaError(f"tensor {name!r} holds NaN, which has no magnitude to rank")


def cutoff(
    source: Source, k: int, total: int | None = None, sample: Source | None = None
) -> Cutoff:
    """Find what to remove so that exactly `k` of all scores go, the smallest first.

    Args:
        source: yields (name, score) pairs, or functions that return them (they are called in
            several threads), the same each time it is called; scores on the CPU, all of one dtype.
            It is called two to five times.
        k: how many go, 0 ≤ k ≤ number of scores.
        total: number of scores; counted where it is not given, which takes one more call.
        sample: yields parts of the scores that are like the whole, where not all need be read to
            know about where the cutoff lies. A bad sample costs time, never the answer.

    Raises:
        JdnaError: a score is NaN, or the dtypes differ.
    """
    if total is None:
        total = sum(ahead(lambda item: resolved(item)[1].numel(), source()))
    if not 0 <= k <= total:
        raise ValueError(f"k must lie between 0 and {total}, got {k}")
    if k == 0:
        checked = ahead(lambda item: refuse_nan(*resolved(item)), source())
        return Cutoff(0, 0, tuple(0 for _ in checked))
    drawn = _sample(sample or source, total if sample is None else None)
    low, high, share = _bracket(drawn, k, total, 6 if sample is None else 6 * CLUSTERED)
    if share * total > GATHER:
        return _by_counting(source, k, low, high)
    return _by_gathering(source, k, low, high)


def resolved(item: Item) -> tuple[str, Tensor]:
    """The pair that an item is, or returns."""
    return item() if callable(item) else item


def _sample(source: Source, total: int | None) -> Keys:
    """A sorted sample of the keys: spread evenly over `total` scores, or all of them."""
    # An odd stride does not fall into step with the power-of-two widths of real models.
    stride = 1 if total is None else max(1, total // SAMPLE) | 1

    def part(name: str, score: Tensor) -> tuple[torch.dtype, Keys]:
        raw = keys(score)
        # Each tensor begins its steps somewhere else, without a count over those before it.
        offset = zlib.crc32(name.encode()) % stride if raw.size > stride else 0
        return score.dtype, raw[offset::stride].copy()

    found = list(ahead(lambda item: part(*resolved(item)), source()))
    kinds = {dtype for dtype, _ in found}
    if len(kinds) > 1:
        listed = ", ".join(sorted(map(str, kinds)))
        raise JdnaError(f"scores of several dtypes cannot be ranked together: {listed}")
    sample = np.concatenate([raw for _, raw in found] or [np.empty(0, dtype=np.uint32)])
    sample &= sample.dtype.type(np.iinfo(sample.dtype).max >> 1)
    sample.sort()
    return sample


def _bracket(sample: Keys, k: int, total: int, deviations: int) -> tuple[int, int, float]:
    """Keys between which the key of rank k lies, by some standard deviations of the sample.

    Returns also the share of all keys that is expected there.
    """
    position = (k - 1) / total * sample.size
    spread = deviations * math.sqrt(sample.size * (k / total) * (1 - (k - 1) / total)) + 8
    low, high = math.floor(position - spread), math.ceil(position + spread)
    top = _top(sample)
    return (
        int(sample[low]) if low >= 0 else 0,
        int(sample[high]) if high < sample.size else top,
        2 * spread / max(1, sample.size),
    )


def _top(raw: Keys) -> int:
    """The highest key of the type."""
    return int(np.iinfo(raw.dtype).max >> 1)


def _checked_blocks(name: str, score: Tensor) -> Iterator[Keys]:
    infinity = _BITS[score.dtype][3]
    for block in _block_keys(keys(score)):
        if int(block.max()) > infinity:
            refuse_nan(name, score)
        yield block


@dataclass
class _Seen:
    """What one tensor holds below a bracket, and inside it."""

    below: int = 0
    inside: list[Keys] = field(default_factory=list)


def _by_gathering(source: Source, k: int, low: int, high: int) -> Cutoff:
    """One pass: count below the bracket, gather inside it; then partition the few candidates."""
    gathered = 0

    def look(item: Item) -> _Seen:
        nonlocal gathered
        found = _Seen()
        for block in _checked_blocks(*resolved(item)):
            found.below += int(np.count_nonzero(block < low))
            if gathered <= 2 * GATHER:
                # One unsigned comparison for two: below `low` wraps round to a large number.
                found.inside.append(block[(block - block.dtype.type(low)) <= high - low])
                gathered += found.inside[-1].size
        return found

    seen = list(ahead(look, source()))
    rank = k - sum(x.below for x in seen)
    if gathered > 2 * GATHER or not 0 < rank <= gathered:
        # Heavy ties, or a sample that misled: counting needs neither room nor luck.
        return _by_counting(source, k, low, high)
    candidates = np.concatenate([part for x in seen for part in x.inside])
    candidates.partition(rank - 1)
    key = int(candidates[rank - 1])
    ties = rank - int(np.count_nonzero(candidates[: rank - 1] < key))
    return _shared(
        key, ties, [sum(int(np.count_nonzero(y == key)) for y in x.inside) for x in seen]
    )


def _by_counting(source: Source, k: int, low: int, high: int) -> Cutoff:
    """Histograms of at most 2¹⁶ bins, narrower each time; constant memory, one to four passes."""
    while True:
        shift = max(0, (high - low).bit_length() - 16)
        bins = ((high - low) >> shift) + 1
        look = functools.partial(_histogram, low=low, high=high, shift=shift)
        below, counts, own = 0, np.zeros(bins, dtype=np.int64), []
        top = high
        for found in ahead(look, source()):
            below, counts, top = below + found.below, counts + found.counts, found.top
            if bins <= KEPT_BINS:
                own.append(found.counts)
        reached = np.cumsum(counts)
        rank = k - below
        if not 0 < rank <= int(reached[-1]):
            low, high = 0, top  # the sample misled
            continue
        digit = int(np.searchsorted(reached, rank))
        rank -= int(reached[digit - 1]) if digit else 0
        if shift == 0:
            key = low + digit
            equal = [int(x[digit]) for x in own]
            return _shared(
                key, rank, equal or list(ahead(functools.partial(_equal, key=key), source()))
            )
        low, high = low + (digit << shift), min(high, low + ((digit + 1) << shift) - 1)


@dataclass
class _Counted:
    """One tensor's keys below a bracket, the histogram inside, and the highest key of its type."""

    below: int
    counts: Counts
    top: int


def _histogram(item: Item, low: int, high: int, shift: int) -> _Counted:
    bins = ((high - low) >> shift) + 1
    histogram = _Counted(0, np.zeros(bins, dtype=np.int64), high)
    for block in _checked_blocks(*resolved(item)):
        histogram.top = _top(block)
        if bins <= FEW_BINS and shift == 0:
            # Few bins are counted faster by as many comparisons.
            below = [int(np.count_nonzero(block < edge)) for edge in range(low, high + 2)]
            histogram.below += below[0]
            histogram.counts += np.diff(below)
            continue
        histogram.below += int(np.count_nonzero(block < low))
        offsets = block - block.dtype.type(low)
        inside = offsets[offsets <= high - low] >> shift
        histogram.counts += np.bincount(inside, minlength=bins)
    return histogram


def _equal(item: Item, key: int) -> int:
    """How many of a tensor's keys are equal to one."""
    raw = keys(resolved(item)[1])
    return sum(int(np.count_nonzero(block == key)) for block in _block_keys(raw))


def _shared(key: int, ties: int, counts: list[int]) -> Cutoff:
    """The cutoff, with the ties that each tensor gives: the first tensors give all they have."""
    shares, left = [], ties
    for count in counts:
        shares.append(min(count, left))
        left -= shares[-1]
    return Cutoff(key, ties, tuple(shares))


def kept(score: Tensor, cut: Cutoff) -> tuple[npt.NDArray[np.uint8], int, int]:
    """Which scores stay under `cut`, as packed bits (see `masks`), flat in row-major order.

    Returns:
        The bits, the number kept, and the ties still to be removed from the tensors that follow.
    """
    raw = keys(score)
    bits = np.empty((raw.size + 7) // 8, dtype=np.uint8)
    ties, count = cut.ties, 0
    for i, block in enumerate(_block_keys(raw)):
        stays = block >= cut.key
        if ties:
            equal = np.flatnonzero(block == cut.key)[:ties]
            stays[equal] = False
            ties -= equal.size
        count += int(np.count_nonzero(stays))
        packed = np.packbits(stays)
        bits[i * BLOCK // 8 : i * BLOCK // 8 + packed.size] = packed
    return bits, count, ties
