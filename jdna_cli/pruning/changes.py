"""What a pruning is to do, tensor by tensor, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jdna_cli.errors import JdnaError
from jdna_cli.sparsity import selection
from jdna_cli.sparsity.criteria import Criterion, Statistics
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.quantization import Quantized


@dataclass(frozen=True)
class Change:
    """One tensor's new values, in its file's layout and type, and how they came about.

    `tensor` is None where it has been written in pieces already; the weights that are not zero were
    counted then.
    """

    name: str
    tensor: Tensor | None
    mask: Mask | None
    quantized: Quantized | None = None
    counted: int | None = None

    @property
    def left(self) -> int:
        """Number of its weights that are not zero: those of the mask, less what was zero before."""
        if self.tensor is None:
            assert self.counted is not None
            return self.counted
        return selection.count_nonzero(self.tensor)


def score_of(criterion: Criterion, weight: Tensor, statistics: Statistics) -> Tensor:
    """A weight's scores, on the CPU.

    Raises:
        JdnaError: a user's own function fails, or gives something else than scores.
    """
    assert criterion.score is not None
    if criterion.identity is None:
        return criterion.score(weight, statistics).cpu()
    try:
        found: Any = criterion.score(weight, statistics)
    except Exception as error:
        raise JdnaError(
            f"criterion {criterion.name!r} fails at {statistics.name!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, torch.Tensor) or found.shape != weight.shape:
        what = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise JdnaError(
            f"criterion {criterion.name!r} gives {what} for {statistics.name!r}, "
            f"whose shape is {list(weight.shape)}"
        )
    return found.detach().cpu()
