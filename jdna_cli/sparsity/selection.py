"""The exact k smallest scores of a whole model, found without sorting or copying it.

For IEEE-754 numbers without their sign bit the order of values is the order of bit patterns. A
key is that pattern as an integer; everything here ranks keys, so float32, float16 and bfloat16
are exact, denormals and infinities included. Equal keys are settled by position: the first ones
go. The count never depends on ties.

Method: a sorted sample brackets the key of rank k; one pass counts what lies below the bracket and
gathers what lies inside; the few candidates are partitioned exactly. A sample that misled only
costs time: the bracket is checked, and the fallback counts bit patterns in two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jdna_cli.errors import JdnaError

Keys = npt.NDArray[Any]  # uint32 for float32, uint16 for the 16-bit types
Source = Callable[[], Iterable[tuple[str, Tensor]]]

BLOCK = 1 << 18  # elements per pass: small enough for the cache, large enough to forget Python
SAMPLE = 1 << 17
GATHER_FLOOR = 1 << 20

_BITS = {
    torch.float32: (torch.int32, np.uint32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float16: (torch.int16, np.uint16, 0x7FFF, 0x7C00),
    torch.bfloat16: (torch.int16, np.uint16, 0x7FFF, 0x7F80),
}


@dataclass(frozen=True)
class Cutoff:
    """What goes: every key below `key`, and the first `ties` of those equal to it."""

    key: int
    ties: int


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


def refuse_nan(name: str, score: Tensor) -> None:
    """Refuse a tensor that holds NaN, which has no rank.

    Raises:
        JdnaError: `score` holds NaN; the message names the tensor.
    """
    infinity = _BITS[score.dtype][3]
    if any(int(block.max()) > infinity for block in _block_keys(keys(score))):
        raise JdnaError(f"tensor {name!r} holds NaN, which has no magnitude to rank")


def cutoff(source: Source, k: int, total: int | None = None) -> Cutoff:
    """Find what to remove so that exactly `k` of all scores go, the smallest first.

    Args:
        source: yields (name, score) pairs, the same each time it is called; scores on the CPU,
            all of one dtype. It is called two to four times.
        k: how many go, 0 ≤ k ≤ number of scores.
        total: number of scores; counted where it is not given, which takes one more call.

    Raises:
        JdnaError: a score is NaN, or the dtypes differ.
    """
    if total is None:
        total = sum(score.numel() for _, score in source())
    sample = _sample(source, total)
    if not 0 <= k <= total:
        raise ValueError(f"k must lie between 0 and {total}, got {k}")
    if k == 0:
        for name, score in source():
            refuse_nan(name, score)
        return Cutoff(0, 0)
    return _refine(source, k, *_bracket(sample, k, total), limit=max(GATHER_FLOOR, total // 16))


def _sample(source: Source, total: int) -> Keys:
    """A sorted sample of the keys of `total` scores, spread evenly over all tensors."""
    # An odd stride does not fall into step with the power-of-two widths of real models.
    stride = max(1, total // SAMPLE) | 1
    offset, parts, kinds = 0, [np.empty(0, dtype=np.uint32)], set()
    for _, score in source():
        kinds.add(score.dtype)
        raw = keys(score)
        parts.append(raw[(-offset) % stride :: stride].copy())
        offset += raw.size
    if len(kinds) > 1:
        listed = ", ".join(sorted(map(str, kinds)))
        raise JdnaError(f"scores of several dtypes cannot be ranked together: {listed}")
    sample = np.concatenate(parts[1:] or parts)
    sample &= sample.dtype.type(np.iinfo(sample.dtype).max >> 1)
    sample.sort()
    return sample


def _bracket(sample: Keys, k: int, total: int) -> tuple[int, int]:
    """Keys between which the key of rank k lies, by six standard deviations of the sample."""
    position = (k - 1) / total * sample.size
    spread = 6 * math.sqrt(sample.size * (k / total) * (1 - (k - 1) / total)) + 8
    low, high = math.floor(position - spread), math.ceil(position + spread)
    top = int(np.iinfo(sample.dtype).max >> 1)
    return (
        int(sample[low]) if low >= 0 else 0,
        int(sample[high]) if high < sample.size else top,
    )


def _refine(source: Source, k: int, low: int, high: int, limit: int) -> Cutoff:
    """One pass: count below the bracket, gather inside it; then partition the candidates."""
    below, equal, gathered = 0, 0, 0
    inside: list[Keys] = []
    for name, score in source():
        infinity = _BITS[score.dtype][3]
        for block in _block_keys(keys(score)):
            if int(block.max()) > infinity:
                refuse_nan(name, score)
            below += int(np.count_nonzero(block < low))
            if low == high:
                equal += int(np.count_nonzero(block == low))
            elif gathered <= limit:
                # One unsigned comparison for two: below `low` wraps round to a large number.
                inside.append(block[(block - block.dtype.type(low)) <= high - low])
                gathered += inside[-1].size
    if low == high and below < k <= below + equal:
        return Cutoff(low, k - below)
    if gathered > limit or not below < k <= below + gathered:
        # Heavy ties, or a sample that misled: counting patterns needs neither room nor luck.
        return _by_counting(source, k)
    return _partition(np.concatenate(inside), k - below)


def _partition(candidates: Keys, rank: int) -> Cutoff:
    """Cutoff of the `rank` smallest (from 1) of a few candidates."""
    candidates.partition(rank - 1)
    key = candidates[rank - 1]
    return Cutoff(int(key), rank - int(np.count_nonzero(candidates[: rank - 1] < key)))


def _by_counting(source: Source, k: int) -> Cutoff:
    """Exact cutoff by histograms of the high, then the low 16 bits; constant memory, two passes."""
    prefix, rank = 0, k
    bits = max(keys(score).dtype.itemsize * 8 for _, score in source())
    for shift in range(bits - 16, -1, -16):
        counts = np.zeros(1 << 16, dtype=np.int64)
        for _, score in source():
            for block in _block_keys(keys(score)):
                chosen = block if shift == bits - 16 else block[(block >> (shift + 16)) == prefix]
                counts += np.bincount((chosen >> shift) & 0xFFFF, minlength=1 << 16)
        reached = np.cumsum(counts)
        digit = int(np.searchsorted(reached, rank))
        rank -= int(reached[digit - 1]) if digit else 0
        prefix = (prefix << 16) | digit
    return Cutoff(prefix, rank)


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
