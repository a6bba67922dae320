"""First-order Taylor: the weights whose removal changes the loss least, to first order.

score = |w · E[∂L/∂w]|, the mean over calibration examples. Molchanov et al. 2017
(arXiv 1611.06440), eq. 7, for single weights. The loss is the task's own, or that of pre-training
where calibration is a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = "gradients"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """The product w · E[g], float32, of the weight's shape; its absolute value ranks."""
    assert statistics.gradient is not None
    return weight.detach().float() * statistics.gradient
