"""Where a tensor stands in its model, from its name: which block, and what kind of matrix."""

from __future__ import annotations

import re
from typing import NamedTuple

OUTSIDE = "outside of blocks"


class Place(NamedTuple):
    """The block that holds a tensor, and what it is in there."""

    block: str
    kind: str


def place(name: str) -> Place:
    """Block and kind: `layer.3` and `attention.query` of `layer.3.attention.query.weight`.

    Numbers after the block's own, as those of experts, are one kind: `experts.*.w1`.
    """
    bare = name.removesuffix(".weight")
    found = re.match(r"(.*?\.?\d+)\.(.+)", bare)
    if found is None:
        return Place(OUTSIDE, bare)
    return Place(found[1], re.sub(r"(?<=\.)\d+(?=\.)", "*", found[2]))


def order(block: str) -> tuple[object, ...]:
    """Blocks in the order of a model: by name, numbers as numbers; what is in no block last."""
    parts = re.split(r"(\d+)", block)
    return (block == OUTSIDE, *((int(x) if x.isdigit() else -1, x) for x in parts))
