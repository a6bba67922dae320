"""Criteria: what scores a weight's importance. One file per criterion, named after it.

A criterion is `score(weight, statistics)`: a tensor of the weight's shape and of dtype float32,
float16 or bfloat16. Its ABSOLUTE value ranks: the smallest go first. The sign is ignored, so that
magnitude needs no copy of the weight.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from jdna_cli import registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """What a criterion may know besides the weight itself."""

    name: str


class Criterion(Protocol):
    """The face of a criterion's module."""

    def score(self, weight: Tensor, statistics: Statistics) -> Tensor:
        """Importance of each weight, by absolute value; higher is kept."""


def names() -> tuple[str, ...]:
    """Names of all criteria."""
    return registry.members(sys.modules[__name__])


def load(name: str) -> Criterion:
    """The criterion called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    registry.check("criterion", name, names())
    return cast(Criterion, registry.load(sys.modules[__name__], name))
