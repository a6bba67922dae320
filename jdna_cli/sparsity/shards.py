"""A weight of which each process holds some rows, as torch's fully sharded models hold theirs.

A tensor that is not divided is its own and only part: all functions take either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from jdna_cli.sparsity import masks
from jdna_cli.sparsity.masks import Mask


def local(tensor: Tensor) -> Tensor:
    """The rows that this process holds, in the memory of `tensor`."""
    if not isinstance(tensor, DTensor):
        return tensor
    divided: Any = tensor.detach()
    found: Tensor = divided.to_local()
    return found


def whole(tensor: Tensor) -> Tensor:
    """All rows, gathered where they are divided: then all processes must ask together."""
    own: Any = tensor.detach()
    found: Tensor = own.full_tensor() if isinstance(tensor, DTensor) else own
    return found


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All of `tensors` whole and on the CPU, gathered one by one; a tied one stays one tensor.

    Args:
        tensors: by name; all processes that hold a part of them must ask together.
        keep: whether this process wants them; else what comes back is empty.
    """
    gathered: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if id(tensor) not in seen:
            full = whole(tensor)
            seen[id(tensor)] = full.cpu() if keep else full.flatten()[:0]
        if keep:
            gathered[name] = seen[id(tensor)]
    return gathered


def rows_of(full: Tensor, like: Tensor) -> Tensor:
    """Of the whole tensor, the rows that this process holds of `like`."""
    if not isinstance(like, DTensor):
        return full
    assert like.placements == (Shard(0),)
    mesh = like.device_mesh
    size = -(-full.shape[0] // mesh.size())
    start = min(mesh.get_local_rank() * size, full.shape[0])
    return full[start : start + size]


def mask_of(mask: Mask, like: Tensor) -> Mask:
    """Of the whole tensor's mask, the part for the rows that this process holds of `like`."""
    if not isinstance(like, DTensor):
        return mask
    return masks.pack(rows_of(mask.unpacked(), like))
