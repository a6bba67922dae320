"""The straight line between two models, and the loss barrier on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def move_(
    target: Mapping[str, Tensor], a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float
) -> None:
    """Set `target` in place to (1 − α) a + α b, bit for bit a at α = 0 and b at α = 1.

    Args:
        target: parameters and buffers by name; `a` and `b` have the same names, shapes and dtypes.
        a: one end.
        b: the other end.
        alpha: 0 ≤ α ≤ 1. Tensors that are not floating point are taken from the nearer end.
    """
    for name, tensor in target.items():
        if alpha in (0.0, 1.0) or not tensor.is_floating_point():
            tensor.detach().copy_((b if alpha > 0.5 else a)[name])
        else:
            torch.lerp(a[name], b[name], alpha, out=tensor.detach())


def first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str | None:
    """Say in words how two models' tensors first differ in name or shape; None if they do not."""
    for name in [*a, *(n for n in b if n not in a)]:
        if name not in b:
            return f"tensor {name!r} is only in the first"
        if name not in a:
            return f"tensor {name!r} is only in the second"
        if a[name].shape != b[name].shape:
            shapes = f"{list(a[name].shape)} in the first, {list(b[name].shape)} in the second"
            return f"tensor {name!r} is {shapes}"
    return None


def barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Max over α of loss(α) − ((1 − α) loss(0) + α loss(1)); alphas run from 0 to 1.

    Zero where the line nowhere rises above the chord, since both ends lie on it. Source: Entezari
    et al. 2022 (arXiv 2110.06296), definition 2.3.
    """
    first, last = losses[0], losses[-1]
    return max(
        loss - ((1 - alpha) * first + alpha * last)
        for alpha, loss in zip(alphas, losses, strict=True)
    )
