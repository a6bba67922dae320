"""Magnitude: the weights nearest to zero go first.

score = |w|. Han et al. 2015 (arXiv 1506.02626); the criterion of the Junk DNA Hypothesis
(Yin et al. 2024, arXiv 2310.02277).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdna_cli.sparsity.criteria import Statistics

if TYPE_CHECKING:
    from torch import Tensor

PARTS = "same"


def score(weight: Tensor, statistics: Statistics) -> Tensor:
    """|w|, left implicit: the absolute value of a score ranks, so the weight is its own score."""
    return weight
