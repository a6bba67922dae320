"""Masks: one bit per prunable weight, 1 = kept.

Bits are packed eight to a byte, most significant first, over the tensor flattened in row-major
order (`numpy.packbits`). They stay packed in memory and on disk: 0.125 bytes per weight.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity.safetensors_io import Writer

FORMAT = "jdna-mask-1"
BLOCK = 1 << 18
_MIXER = -0x61C8864680B583EB  # odd, its bits as good as random: 2⁶⁴ over the golden ratio

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mask:
    """Which weights of one tensor are kept. `bits` has ceil(total / 8) bytes."""

    bits: Bits
    shape: tuple[int, ...]
    kept: int

    @property
    def total(self) -> int:
        """Number of weights of the tensor."""
        return int(np.prod(self.shape))

    def unpacked(self) -> Tensor:
        """Bool tensor of the weight's shape, True = kept."""
        flat = np.unpackbits(self.bits, count=self.total).view(bool)
        return torch.from_numpy(flat).view(self.shape)

    def inverted(self) -> Mask:
        """The mask that keeps exactly what this one does not."""
        return pack(~self.unpacked())

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Offsets into the flat tensor, and the bits there as uint8 0 or 1."""
        for start in range(0, self.total, BLOCK):
            count = min(BLOCK, self.total - start)
            packed = self.bits[start // 8 : start // 8 + (count + 7) // 8]
            yield start, torch.from_numpy(np.unpackbits(packed, count=count))


def pack(kept: Tensor) -> Mask:
    """Pack a bool tensor, True = kept."""
    flat = kept.detach().cpu().contiguous().view(-1).numpy()
    return Mask(np.packbits(flat), tuple(kept.shape), int(np.count_nonzero(flat)))


def joined(parts: Sequence[Mask], shape: tuple[int, ...]) -> Mask:
    """The mask of a tensor from those of its flat pieces, each but the last of whole bytes."""
    bits = np.concatenate([part.bits for part in parts])
    return Mask(bits, shape, sum(part.kept for part in parts))


def both(one: Mask, other: Mask) -> Mask:
    """What both of two masks of one tensor keep."""
    return _mask(one.bits & other.bits, one.shape)


def unpack(bits: Tensor, shape: tuple[int, ...]) -> Mask:
    """The mask of packed bits (uint8, on the CPU), as `Mask.bits` are."""
    return _mask(bits.numpy(), shape)


def clear_(tensor: Tensor, mask: Mask) -> None:
    """Set to +0 in place what `mask` does not keep; the rest keeps its bits, NaN included.

    Args:
        tensor: on the CPU, contiguous, of the mask's shape, 16- or 32-bit floating point.
        mask: what is kept.
    """
    width = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    # As integers: no -0, and an infinity times nothing is nothing.
    flat = tensor.detach().view(-1).view(width)
    for start, bits in mask.blocks():
        flat[start : start + bits.numel()].mul_(bits)


def mask_applier(tensor: Tensor, mask: Mask) -> Callable[[Tensor], None]:
    """The fastest way to `clear_` tensors like `tensor` again and again, on its device.

    On the CPU the bits stay packed (0.125 bytes per weight); elsewhere they are unpacked once into
    one byte per weight, because there is no packed multiplication.
    """
    if tensor.device.type == "cpu":
        return lambda other: clear_(other, mask)
    kept = mask.unpacked().to(tensor.device)
    nothing = torch.zeros((), dtype=tensor.dtype, device=tensor.device)

    def clear(other: Tensor) -> None:
        torch.where(kept, other, nothing.to(other.dtype), out=other)

    return clear


def digest(one: Tensor, other: Tensor) -> int:
    """A sum that tells in which bits, and where, two tensors of one shape and type differ.

    Of each place the differing bits times an odd number of that place, modulo 2⁶⁴: a change of any
    one weight always shows, and several cancel out as seldom as random numbers do. Computed where
    the tensors are, 16- or 32-bit floating point, contiguous.
    """
    width = {2: torch.int16, 4: torch.int32}[one.element_size()]
    ones, others = (t.detach().reshape(-1).view(width) for t in (one, other))
    total = torch.zeros((), dtype=torch.int64, device=one.device)
    for start in range(0, ones.numel(), BLOCK):
        own = slice(start, start + BLOCK)
        bits = (ones[own] ^ others[own]).long()
        places = torch.arange(start, start + bits.numel(), device=one.device)
        total += bits.mul_(places.mul_(2).add_(1).mul_(_MIXER)).sum()
    return int(total)


def writer(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Writer:
    """Start a mask file: packed bits under each name, shapes in the words beside them."""
    return Writer(path, shapes, {"format": FORMAT, "shapes": json.dumps(dict(shapes))})


def add(file: Writer, name: str, mask: Mask) -> None:
    """Write one mask."""
    file.add(name, torch.from_numpy(mask.bits))


def save(masks: Mapping[str, Mask], path: Path) -> None:
    """Write all of `masks`."""
    with writer(path, {name: mask.shape for name, mask in masks.items()}) as file:
        for name, mask in masks.items():
            add(file, name, mask)


def load(path: Path) -> dict[str, Mask]:
    """Read what `save` wrote.

    Raises:
        JdnaError: the file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise JdnaError(f"{path} is not a mask file of format {FORMAT}")
            shapes = json.loads(meta["shapes"])
            return {name: _mask(file.get_tensor(name), tuple(shapes[name])) for name in shapes}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise JdnaError(f"{path} cannot be read as a mask: {error}") from error


def _mask(bits: Bits, shape: tuple[int, ...]) -> Mask:
    total = int(np.prod(shape))
    if bits.size != (total + 7) // 8:
        raise ValueError(f"{bits.size} bytes of bits do not fit shape {shape}")
    return Mask(bits, shape, int(np.count_nonzero(np.unpackbits(bits, count=total))))
