"""Random, a control: every weight is as likely to go as any other.

score ~ U(0, 1), drawn from the seed and the tensor's name, so that a tensor's draw does not depend
on the others and masks of rising sparsity are nested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = "seed"
PARTS = "alike"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """Uniform draws of the weight's shape, float32."""
    import torch

    flat = statistics.draw().random(weight.numel(), dtype="float32")
    return torch.from_numpy(flat).view(weight.shape)
