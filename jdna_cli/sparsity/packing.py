"""Compact forms of a tensor, exact: what is unpacked has the bits of what was packed.

| form | parts | bits per weight of b bits |
|---|---|---|
| dense | the tensor | b |
| bitmask | one bit per weight, the kept values in order | 1 + density · b |
| 2:4 | two bits for the place of each kept value, the kept values | 1 + b / 2 |
| codes | the codes, scales, zero points | bits + (b or b + 8) / group |
| kept codes | also one bit per weight | 1 + density · bits + (b or b + 8) / group |

The layout of 2:4 is that of the hardware's: two values and two 2-bit places for each four weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jdna_cli.sparsity import masks
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.quantization import Grid, Quantized, Rounding

BLOCK = 1 << 20


@dataclass(frozen=True)
class Packed:
    """One tensor's parts by name, and what is needed to put them together again (JSON)."""

    parts: dict[str, Tensor]
    form: dict[str, Any]

    @property
    def bits(self) -> int:
        """Bits of all parts together."""
        return sum(8 * part.numel() * part.element_size() for part in self.parts.values())


def sparse_bits(mask: Mask, each: int) -> int:
    """Bits of a pruned tensor in the smaller of its forms; `each`: bits of a weight."""
    return min(each * mask.total, 8 * -(-mask.total // 8) + each * mask.kept)


def rounded_bits(rounded: Quantized | Rounding, kept: Mask | None, total: int) -> int:
    """Bits of `total` rounded weights in the smaller of their forms; `kept`: the others are 0."""
    bits, scales, zeros = rounded.grid.bits, rounded.scales, rounded.zeros
    codes = 8 * -(-total * bits // 8)
    if kept is not None:
        codes = min(codes, 8 * -(-total // 8) + 8 * -(-kept.kept * bits // 8))
    besides = scales.numel() * scales.element_size() * 8
    return codes + besides + (0 if zeros is None else 8 * zeros.numel())


def pack_dense(weight: Tensor) -> Packed:
    """A tensor as it is."""
    return Packed({"tensor": weight}, {"form": "dense"})


def pack_sparse(weight: Tensor, mask: Mask) -> Packed:
    """A tensor that is zero where `mask` keeps nothing, in the smaller of its forms."""
    each = 8 * weight.element_size()
    if sparse_bits(mask, each) >= each * mask.total:
        return pack_dense(weight)
    values = _compressed(weight, mask.unpacked())
    parts = {"values": values, "bits": torch.from_numpy(mask.bits)}
    return Packed(parts, {"form": "bitmask", "shape": list(weight.shape)})


def pack_two_of_four(weight: Tensor, mask: Mask, input_dim: int) -> Packed:
    """A tensor of which each four weights along the input keep two."""
    turned = weight.movedim(input_dim, -1)
    kept = mask.unpacked().movedim(input_dim, -1).reshape(-1, 4)
    places = kept.nonzero()[:, 1].to(torch.uint8).view(-1, 2)
    values = _compressed(turned, kept)
    nibbles = places[:, 0] | (places[:, 1] << 2)
    if len(nibbles) % 2:
        nibbles = torch.cat([nibbles, nibbles.new_zeros(1)])
    indices = nibbles[0::2] | (nibbles[1::2] << 4)
    form = {"form": "2:4", "shape": list(weight.shape), "input_dim": input_dim}
    return Packed({"values": values, "indices": indices}, form)


def pack_codes(quantized: Quantized, input_dim: int, kept: Mask | None = None) -> Packed:
    """A quantised tensor (out, in), in the smaller of its forms.

    Args:
        quantized: codes and grid.
        input_dim: of the tensor in its file.
        kept: mask of the tensor in its file: what it does not keep is zero; None: all are kept.
    """
    grid, total = quantized.grid, quantized.codes.numel()
    codes = (quantized.codes - grid.lowest).to(torch.uint8).cpu().view(-1)
    name, bitmask = "codes", None
    if kept is not None and rounded_bits(quantized, kept, total) < rounded_bits(
        quantized, None, total
    ):
        flags = kept.unpacked() if input_dim == 1 else kept.unpacked().T.contiguous()
        name, bitmask, codes = "kept codes", masks.pack(flags).bits, _compressed(codes, flags)
    parts = {"codes": _pack_bits(codes.numpy(), grid.bits), "scales": quantized.scales.cpu()}
    if quantized.zeros is not None:
        parts["zeros"] = quantized.zeros.cpu()
    if bitmask is not None:
        parts["bits"] = torch.from_numpy(bitmask)
    form = {"form": name, "shape": list(quantized.codes.shape), "input_dim": input_dim}
    return Packed(parts, {**form, **vars(grid)})


def _pack_bits(codes: npt.NDArray[np.uint8], bits: int) -> Tensor:
    """Codes one after the other, the highest bit first; the last byte is filled up with zeros."""
    if bits in (2, 4, 8):
        return torch.from_numpy(_pack_whole(codes, 8 // bits, bits))
    step = BLOCK // 8 * 8
    packed = [
        np.packbits(np.unpackbits(codes[i : i + step, None], axis=1)[:, 8 - bits :])
        for i in range(0, codes.size, step)
    ]
    return torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *packed]))


def _pack_whole(codes: npt.NDArray[np.uint8], each: int, bits: int) -> npt.NDArray[np.uint8]:
    """As `_pack_bits`, where a byte holds `each` codes."""
    missing = -codes.size % each
    rows = np.append(codes, np.zeros(missing, np.uint8)).reshape(-1, each)
    packed = np.empty(len(rows), dtype=np.uint8)
    for start in range(0, len(rows), BLOCK // 8):
        own = packed[start : start + BLOCK // 8]
        part = rows[start : start + BLOCK // 8]
        own[:] = part[:, 0]
        for i in range(1, each):
            own *= 1 << bits
            own |= part[:, i]
    return packed


def _unpack_bits(raw: npt.NDArray[np.uint8], bits: int, total: int) -> Tensor:
    codes = np.empty(total, dtype=np.int16)
    if bits in (2, 4, 8):
        for i in range(each := 8 // bits):
            place = codes[i::each]
            place[:] = raw[: place.size] >> (8 - bits * (i + 1)) & (1 << bits) - 1
        return torch.from_numpy(codes)
    step = BLOCK // 8 * 8
    for i in range(0, total, step):
        count = min(step, total - i)
        own = raw[i * bits // 8 : (i * bits + count * bits + 7) // 8]
        flags = np.unpackbits(own, count=count * bits).reshape(-1, bits)
        codes[i : i + count] = flags @ (1 << np.arange(bits - 1, -1, -1))
    return torch.from_numpy(codes)


def _compressed(values: Tensor, kept: Tensor) -> Tensor:
    """The flat values that are kept (bool), in their order: as indexing does, far faster."""
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    raw = values.contiguous().view(-1).view(width).numpy()
    found = np.compress(kept.contiguous().view(-1).numpy(), raw)
    return torch.from_numpy(found).view(values.dtype)


def unpack(packed: Packed) -> Tensor:
    """The tensor, bit for bit, in its own layout."""
    form, parts = packed.form, packed.parts
    if form["form"] == "dense":
        return parts["tensor"]
    shape = tuple(form["shape"])
    if form["form"] == "bitmask":
        flat = torch.zeros(math.prod(shape), dtype=parts["values"].dtype)
        flat[_flags(parts, flat.numel())] = parts["values"]
        return flat.view(shape)
    if form["form"] == "2:4":
        return _unpack_two_of_four(parts, shape, form["input_dim"])
    grid = Grid(form["bits"], form["asymmetric"], form["granularity"], form["group_size"])
    total, raw = math.prod(shape), parts["codes"].numpy()
    if form["form"] == "codes":
        codes, kept = _unpack_bits(raw, grid.bits, total), None
    else:
        kept = _flags(parts, total)
        codes = torch.zeros(total, dtype=torch.int16)
        codes[kept] = _unpack_bits(raw, grid.bits, int(kept.sum()))
    known = codes.view(shape) + grid.lowest
    found = Quantized(known, parts["scales"], parts.get("zeros"), grid).decoded()
    if kept is not None:
        found.view(-1)[~kept] = 0
    return found if form["input_dim"] == 1 else found.T.contiguous()


def _flags(parts: dict[str, Tensor], total: int) -> Tensor:
    """The bit mask, one bool for each weight."""
    return torch.from_numpy(np.unpackbits(parts["bits"].numpy(), count=total).astype(bool))


def _unpack_two_of_four(parts: dict[str, Tensor], shape: tuple[int, ...], input_dim: int) -> Tensor:
    groups = math.prod(shape) // 4
    indices = parts["indices"]
    nibbles = torch.stack([indices & 15, indices >> 4], 1).view(-1)[:groups]
    places = torch.stack([nibbles & 3, nibbles >> 2], 1).long()
    found = torch.zeros(groups, 4, dtype=parts["values"].dtype)
    found.scatter_(1, places, parts["values"].view(-1, 2))
    turned = [shape[1 - input_dim], shape[input_dim]]
    found = found.view(turned)
    return found if input_dim == 1 else found.T.contiguous()
