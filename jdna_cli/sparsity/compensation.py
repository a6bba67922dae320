"""Column by column, each one's error made good by those to its right: SparseGPT and GPTQ.

For a linear layer y = W x, changing column j of W by an error e changes the output least if every
later column changes by -e · [H⁻¹]_j,later / [H⁻¹]_jj, where H = X Xᵀ over calibration tokens. With
U upper triangular and Uᵀ U = H⁻¹ this is -e · U_j,later / U_jj, for all columns from left to right.

Sources: Frantar et al. 2022 (GPTQ, arXiv 2210.17323), Frantar and Alistarh 2023 (SparseGPT,
arXiv 2301.00774), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from jdna_cli.errors import JdnaError

BLOCK = 128  # columns between two updates of all that is to the right
DAMPING = 0.01  # of the mean diagonal of H
ESCALATIONS = 6  # tenfold each


@dataclass(frozen=True)
class Factor:
    """U (in, in) float32 with Uᵀ U = (H + λI)⁻¹, and the inputs that were always zero."""

    upper: Tensor
    dead: Tensor  # (in,) bool
    damping: float  # of the mean diagonal, that sufficed


class Pruned(NamedTuple):
    """A layer that was pruned and made good, (out, in) float32; what was kept, (out, in) bool."""

    weight: Tensor
    kept: Tensor
    damping: float


class Rule(Protocol):
    """Says what becomes of each column when its turn comes."""

    def block(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """Before a block of columns from `start`: weight (out, b) as it is by now, scale (b,)."""

    def settle(self, weight: Tensor, scale: Tensor, start: int, j: int) -> Tensor:
        """Final value (out,) of column j of the block."""

    def width(self, block: int) -> int:
        """Columns of a block, at most about `block`, that the rule can work on."""


def factor(gram: Tensor, name: str) -> Factor:
    """Factorise the damped Hessian of a layer, in float64.

    Args:
        gram: X Xᵀ, (in, in), float32 or float64.
        name: of the tensor, for messages.

    Raises:
        JdnaError: it is not finite, or not positive definite with any damping that was tried.
    """
    hessian = gram.double()
    if not torch.isfinite(hessian).all():
        raise JdnaError(f"the calibration activations of {name!r} are not finite")
    diagonal = hessian.diagonal().clone()
    dead = diagonal == 0
    mean = float(diagonal.mean()) or 1.0
    for i in range(ESCALATIONS):
        damping = DAMPING * 10**i
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        damped.diagonal()[dead] = mean
        lower, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return Factor(upper.float(), dead, damping)
    raise JdnaError(
        f"the Hessian of {name!r} is not positive definite, even with damping {damping:g}: "
        "calibrate with more or other samples"
    )


def sweep(weight: Tensor, factor: Factor, rule: Rule, name: str, block: int = BLOCK) -> Tensor:
    """Settle all columns from left to right; returns (out, in) float32.

    Args:
        weight: (out, in), any floating dtype, not changed; on the device of `found`.
        factor: factor of this layer's Hessian.
        rule: settles a column.
        name: of the tensor, for messages.
        block: columns at a time.

    Raises:
        JdnaError: the weight is not finite.
    """
    rest = weight.detach().float().clone()
    if not torch.isfinite(rest).all():
        raise JdnaError(f"tensor {name!r} holds NaN or infinity, whose error cannot be made good")
    upper, width = factor.upper, rule.width(block)
    for start in range(0, rest.shape[1], width):
        end = min(start + width, rest.shape[1])
        part, own = rest[:, start:end], upper[start:end, start:end]
        # An input that is always zero can go for nothing: its score is zero.
        scale = torch.where(factor.dead[start:end], torch.inf, own.diagonal())
        errors = torch.empty_like(part)
        rule.block(part, scale, start)
        for j in range(end - start):
            settled = rule.settle(part, scale, start, j)
            errors[:, j] = (part[:, j] - settled) / own[j, j]
            part[:, j:] -= errors[:, j : j + 1] * own[j, j:]
            part[:, j] = settled
        rest[:, end:] -= errors @ upper[start:end, end:]
    return rest


def scores(weight: Tensor, scale: Tensor) -> Tensor:
    """(w / U_jj)²: how much worse the layer gets if a weight goes. weight (out, b), scale (b,)."""
    return (weight / scale).square()


class _Kept:
    """What was kept of the blocks so far."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def kept(self) -> Tensor:
        """(out, in) bool."""
        return torch.cat(self._parts, dim=1)

    def settle(self, weight: Tensor, scale: Tensor, start: int, j: int) -> Tensor:
        """The weight where it is kept, else zero."""
        zero = torch.zeros((), device=weight.device)
        return torch.where(self._parts[-1][:, j], weight[:, j], zero)


class Share(_Kept):
    """Removes exactly round(s · n) weights, block by block, the lowest scores of all rows."""

    def __init__(self, sparsity: float) -> None:
        super().__init__()
        self._sparsity = sparsity

    def width(self, block: int) -> int:
        """Any will do."""
        return block

    def block(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """Choose the block's share, so that shares add up; of equal scores the first go."""
        rows, end = weight.shape[0], start + weight.shape[1]
        count = round(self._sparsity * rows * end) - round(self._sparsity * rows * start)
        kept = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
        order = scores(weight, scale).flatten().argsort(stable=True)
        kept[order[:count]] = False
        self._parts.append(kept.view_as(weight))


class NOfM(_Kept):
    """Keeps the N highest scores of each M columns, as they are when the group's turn comes."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self._n, self._m = n, m

    def width(self, block: int) -> int:
        """Whole groups."""
        return max(1, block // self._m) * self._m

    def block(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """Room for the block's choice."""
        self._parts.append(torch.ones_like(weight, dtype=torch.bool))

    def settle(self, weight: Tensor, scale: Tensor, start: int, j: int) -> Tensor:
        """Choose at the beginning of a group; of equal scores the first stay."""
        if j % self._m == 0:
            own = slice(j, j + self._m)
            order = scores(weight[:, own], scale[own]).argsort(dim=1, descending=True, stable=True)
            self._parts[-1][:, own].scatter_(1, order[:, self._n :], False)
        return super().settle(weight, scale, start, j)
