"""Column by column, each one's error made good by those to its right: SparseGPT and GPTQ.

For a linear layer y = W x, changing column j of W by an error e changes the output least if every
later column changes by -e · [H⁻¹]_j,later / [H⁻¹]_jj, where H = X Xᵀ over calibration tokens. With
U upper triangular and Uᵀ U = H⁻¹ this is -e · U_j,later / U_jj, for all columns from left to right.

Sources: Frantar et al. 2022 (GPTQ, arXiv 2210.17323), Frantar and Alistarh 2023 (SparseGPT,
arXiv 2301.00774), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from jdna_cli.errors import JdnaError

if TYPE_CHECKING:
    from jdna_cli.sparsity.quantization import Quantized

BLOCK = 128  # columns between two updates of all that is to the right
DAMPING = 0.01  # of the mean diagonal of H
ESCALATIONS = 6  # tenfold each
WORTH_RECORDING = 3  # blocks of one tensor, at least


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
    quantized: Quantized | None = None  # where what was kept was rounded, too


class Rule(Protocol):
    """Says what becomes of each column when its turn comes.

    `settle` must be the same steps on the same memory for every block of one width, whatever the
    values: on a GPU they are recorded once, and repeated.
    """

    def open(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """Before a block of columns from `start`: weight (out, b) as it is by now, scale (b,)."""

    def settle(self, weight: Tensor, scale: Tensor, j: int) -> Tensor:
        """Final value (out,) of column j of the block."""

    def close(self) -> None:
        """After the block."""

    @property
    def unit(self) -> int:
        """Columns that are to be in one block."""


Settle = Callable[[Rule, Tensor, Tensor, Tensor, Tensor], None]


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
    # Turned, so that each column lies in one piece.
    rest = weight.detach().T.float().clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(rest).all():
        raise JdnaError(f"tensor {name!r} holds NaN or infinity, whose error cannot be made good")
    upper, width = factor.upper, max(1, block // rule.unit) * rule.unit
    settle: Settle = (
        _Recorded() if rest.is_cuda and len(rest) > WORTH_RECORDING * width else _settle
    )
    for start in range(0, len(rest), width):
        end = min(start + width, len(rest))
        part, own = rest[start:end], upper[start:end, start:end]
        # An input that is always zero can go for nothing: its score is zero.
        scale = torch.where(factor.dead[start:end], torch.inf, own.diagonal())
        errors = torch.empty_like(part)
        rule.open(part.T, scale, start)
        settle(rule, part, own, scale, errors)
        rule.close()
        # As rows times columns: the same product to the last bit, however many threads there are.
        rest[end:] -= (errors.T.contiguous() @ upper[start:end, end:]).T
    return rest.T.contiguous()


def _settle(rule: Rule, part: Tensor, own: Tensor, scale: Tensor, errors: Tensor) -> None:
    """Settle the columns of a block, `part` (b, out) in place; `errors` (b, out) is written."""
    for j in range(len(part)):
        settled = rule.settle(part.T, scale, j)
        torch.div(part[j] - settled, own[j, j], out=errors[j])
        part[j:] -= own[j, j:, None] * errors[j]
        part[j] = settled


class _Recorded:
    """The same on a GPU, which is told some thousand small steps more slowly than it does them.

    They are recorded at the second block and repeated for all that have its shape.
    """

    def __init__(self) -> None:
        self._places: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self, rule: Rule, part: Tensor, own: Tensor, scale: Tensor, errors: Tensor
    ) -> None:
        given = (part, own, scale, errors)
        if not self._places or part.shape != self._places[0].shape:
            _settle(rule, *given)
            self._places = self._places or tuple(tensor.clone() for tensor in given)
            return
        for place, tensor in zip(self._places, given, strict=True):
            place.copy_(tensor)
        if self._graph is None:
            self._graph = self._record(rule)
        self._graph.replay()
        settled, _, _, lost = self._places
        part.copy_(settled)
        errors.copy_(lost)

    def _record(self, rule: Rule) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                _settle(rule, *self._places)
            finally:
                graph.capture_end()
        torch.cuda.synchronize()
        return graph


def scores(weight: Tensor, scale: Tensor) -> Tensor:
    """(w / U_jj)²: how much worse the layer gets if a weight goes. weight (out, b), scale (b,)."""
    return (weight / scale).square()


class Choice:
    """What is kept, as far as it is chosen yet; what was zero at the beginning stays zero."""

    def __init__(self, weight: Tensor) -> None:
        """Nothing is chosen yet of `weight` (out, in), as it is before the first column."""
        # Turned, as the weights are: (in, out), and (b, out) of the block.
        self._zero = (weight == 0).T.contiguous()
        self._nothing = torch.zeros((), device=weight.device)
        self._own = self._removed = self._gone = self._zero[:0]
        self._parts: list[Tensor] = []

    @property
    def unit(self) -> int:
        """Any number of columns will do."""
        return 1

    def kept(self) -> Tensor:
        """(out, in) bool."""
        return ~torch.cat(self._parts).T.contiguous()

    def open(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """All is kept."""
        zero = self._zero[start : start + weight.shape[1]]
        self._take(zero, torch.zeros_like(zero))

    def settle(self, weight: Tensor, scale: Tensor, j: int) -> Tensor:
        """The weight where it is kept, else zero."""
        return torch.where(self._gone[j], self._nothing, weight[:, j])

    def close(self) -> None:
        """Remember what was chosen."""
        self._parts.append(self._removed.clone())

    def _take(self, zero: Tensor, removed: Tensor) -> None:
        """Set the block's masks (b, out), in the same memory as those of the last one."""
        if len(self._own) != len(zero):
            self._own, self._removed, self._gone = (torch.empty_like(zero) for _ in range(3))
        self._own.copy_(zero)
        self._removed.copy_(removed)
        torch.logical_or(self._own, self._removed, out=self._gone)


class Share(Choice):
    """Removes exactly round(s · n) weights, block by block, the lowest scores of all rows."""

    def __init__(self, weight: Tensor, sparsity: float) -> None:
        super().__init__(weight)
        self._sparsity = sparsity

    def open(self, weight: Tensor, scale: Tensor, start: int) -> None:
        """Choose the block's share, so that shares add up; of equal scores the first go."""
        rows, end = weight.shape[0], start + weight.shape[1]
        count = round(self._sparsity * rows * end) - round(self._sparsity * rows * start)
        zero = self._zero[start:end]
        removed = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
        order = _lowest_if(scores(weight, scale), zero).flatten().argsort(stable=True)
        removed[order[:count]] = True
        self._take(zero, removed.view_as(weight).T)


class NOfM(Choice):
    """Keeps the N highest scores of each M columns, as they are when the group's turn comes."""

    def __init__(self, weight: Tensor, n: int, m: int) -> None:
        super().__init__(weight)
        self._n, self._m = n, m

    @property
    def unit(self) -> int:
        """Whole groups."""
        return self._m

    def settle(self, weight: Tensor, scale: Tensor, j: int) -> Tensor:
        """Choose at the beginning of a group; of equal scores the first stay."""
        if j % self._m == 0:
            own = slice(j, j + self._m)
            known = _lowest_if(scores(weight[:, own], scale[own]), self._own[own])
            order = known.argsort(dim=1, descending=True, stable=True)
            self._removed[own].T.scatter_(1, order[:, self._n :], True)
            torch.logical_or(self._own[own], self._removed[own], out=self._gone[own])
        return super().settle(weight, scale, j)


def _lowest_if(scores: Tensor, zero: Tensor) -> Tensor:
    """Scores (out, b), lowest where nothing can be lost: where `zero` (b, out)."""
    return scores.masked_fill(zero.T, -1.0)
