"""Compact forms of a tensor, exact: what is unpacked has the bits of what was packed.

| form | parts | bits per weight of b bits |
|---|---|---|
| dense | the tensor | b |
| bitmask | one bit per weight, the kept values in order | 1 + density · b |
| 2:4 | two bits for the place of each kept value, the kept values | 1 + b / 2 |
| codes | the codes, scales, zero points | bits + (b or b + 8) / group |

The layout of 2:4 is that of the hardware's: two values and two 2-bit places for each four weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.quantization import Grid, Quantized

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


def codes_bits(count: int, grid: Grid, scales: Tensor, zeros: Tensor | None) -> int:
    """Bits of `count` quantised weights in the form of codes."""
    besides = scales.numel() * scales.element_size() * 8
    return 8 * -(-count * grid.bits // 8) + besides + (0 if zeros is None else 8 * zeros.numel())


def pack_dense(weight: Tensor) -> Packed:
    """A tensor as it is."""
    return Packed({"tensor": weight}, {"form": "dense"})


def pack_sparse(weight: Tensor, mask: Mask) -> Packed:
    """A tensor that is zero where `mask` keeps nothing, in the smaller of its forms."""
    each = 8 * weight.element_size()
    if sparse_bits(mask, each) >= each * mask.total:
        return pack_dense(weight)
    values = weight.reshape(-1)[mask.unpacked().view(-1)]
    parts = {"values": values, "bits": torch.from_numpy(mask.bits)}
    return Packed(parts, {"form": "bitmask", "shape": list(weight.shape)})


def pack_two_of_four(weight: Tensor, mask: Mask, input_dim: int) -> Packed:
    """A tensor of which each four weights along the input keep two."""
    turned = weight.movedim(input_dim, -1)
    kept = mask.unpacked().movedim(input_dim, -1).reshape(-1, 4)
    places = kept.nonzero()[:, 1].to(torch.uint8).view(-1, 2)
    values = turned.reshape(-1, 4)[kept]
    nibbles = places[:, 0] | (places[:, 1] << 2)
    if len(nibbles) % 2:
        nibbles = torch.cat([nibbles, nibbles.new_zeros(1)])
    indices = nibbles[0::2] | (nibbles[1::2] << 4)
    form = {"form": "2:4", "shape": list(weight.shape), "input_dim": input_dim}
    return Packed({"values": values, "indices": indices}, form)


def pack_codes(quantized: Quantized, input_dim: int) -> Packed:
    """A quantised tensor (out, in); the form says how it is stored."""
    grid = quantized.grid
    codes = (quantized.codes - grid.lowest).to(torch.uint8).cpu().numpy().reshape(-1)
    step = BLOCK // 8 * 8
    packed = [
        np.packbits(np.unpackbits(codes[i : i + step, None], axis=1)[:, 8 - grid.bits :])
        for i in range(0, codes.size, step)
    ]
    parts = {"codes": torch.from_numpy(np.concatenate(packed)), "scales": quantized.scales.cpu()}
    if quantized.zeros is not None:
        parts["zeros"] = quantized.zeros.cpu()
    form = {"form": "codes", "shape": list(quantized.codes.shape), "input_dim": input_dim}
    return Packed(parts, {**form, **vars(grid)})


def unpack(packed: Packed) -> Tensor:
    """The tensor, bit for bit, in its own layout."""
    form, parts = packed.form, packed.parts
    if form["form"] == "dense":
        return parts["tensor"]
    shape = tuple(form["shape"])
    if form["form"] == "bitmask":
        total = math.prod(shape)
        kept = np.unpackbits(parts["bits"].numpy(), count=total).astype(bool)
        flat = torch.zeros(total, dtype=parts["values"].dtype)
        flat[torch.from_numpy(kept)] = parts["values"]
        return flat.view(shape)
    if form["form"] == "2:4":
        return _unpack_two_of_four(parts, shape, form["input_dim"])
    grid = Grid(form["bits"], form["asymmetric"], form["granularity"], form["group_size"])
    total, step = math.prod(shape), BLOCK // 8 * 8
    codes = np.empty(total, dtype=np.int16)
    raw = parts["codes"].numpy()
    for i in range(0, total, step):
        count = min(step, total - i)
        own = raw[i * grid.bits // 8 : (i * grid.bits + count * grid.bits + 7) // 8]
        flags = np.unpackbits(own, count=count * grid.bits).reshape(-1, grid.bits)
        codes[i : i + count] = flags @ (1 << np.arange(grid.bits - 1, -1, -1))
    known = torch.from_numpy(codes).view(shape) + grid.lowest
    found = Quantized(known, parts["scales"], parts.get("zeros"), grid).decoded()
    return found if form["input_dim"] == 1 else found.T.contiguous()


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
