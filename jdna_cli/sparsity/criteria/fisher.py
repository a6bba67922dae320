"""Diagonal Fisher information: the weights whose removal changes the loss least, to second order.

score = w² · E[(∂L/∂w)²], the mean over calibration examples of each example's own squared gradient
(the empirical Fisher). LeCun et al. 1990 (Optimal Brain Damage), eq. 5, with the Hessian's diagonal
estimated as in Theis et al. 2018 (arXiv 1801.05787), eq. 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = "gradients"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """|w| · sqrt(E[g²]), float32: the square root ranks the same and does not underflow."""
    assert statistics.squared_gradient is not None
    return weight.detach().float() * statistics.squared_gradient.sqrt()
