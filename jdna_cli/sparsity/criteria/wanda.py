"""Wanda: magnitude times the norm of the input it meets, compared within an output row.

score = |w_ij| · ‖x_j‖₂, the norm over all calibration tokens. Sun et al. 2023 (arXiv 2306.11695),
eq. 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = "activations"
SCOPE = "row"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """The product w · ‖x‖ along the input dimension, float32, of the weight's shape."""
    assert statistics.input_norm is not None
    along = [1, 1]
    along[statistics.input_dim] = -1
    return weight.detach().float() * statistics.input_norm.view(along)
