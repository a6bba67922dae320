"""Inverse magnitude, a control: the LARGEST weights go first.

score = a strictly falling function of |w|. If small weights held nothing that matters, removing the
large ones would have to hurt more, at every sparsity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

PARTS = "same"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """The number whose bit pattern is that of infinity less that of |w|: exact, without new ties.

    Patterns of non-negative IEEE numbers are ordered as their values are; 1 / |w| would round
    neighbours together. weight: any shape, float32, float16 or bfloat16; returns the same.
    """
    import torch

    kind = torch.int32 if weight.element_size() == 4 else torch.int16
    infinity = torch.tensor(torch.inf, dtype=weight.dtype).view(kind)
    pattern = weight.detach().abs().contiguous().view(kind)
    turned = (infinity - pattern).view(weight.dtype)
    # NaN has no rank: it stays what it is, and is refused by name.
    return torch.where(weight.isnan(), weight, turned)
