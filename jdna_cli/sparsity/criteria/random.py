"""Random, a control: every weight is as likely to go as any other.

Scores are uniform over bit patterns (only their order counts), drawn from the seed, the tensor's
name and the place in it: a draw depends on no other, and masks of rising sparsity are nested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = "seed"
PARTS = "same"
STRETCH = 1 << 20  # weights that are drawn together
PATTERNS = 0x3FFF_FFFF  # those of the floats below 2, zero included


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """Random numbers of the weight's shape, float32, not negative, finite."""
    import numpy as np
    import torch

    found = np.empty(weight.numel() + 1, dtype=np.uint32)
    for start in range(0, weight.numel(), STRETCH):
        count = min(STRETCH, weight.numel() - start)
        draw = statistics.draw((statistics.offset + start) // STRETCH)
        raw = draw.bit_generator.random_raw(-(-count // 2)).view(np.uint32)[:count]
        np.bitwise_and(raw, PATTERNS, out=found[start : start + count])
    return torch.from_numpy(found[:-1].view(np.float32)).view(weight.shape)
