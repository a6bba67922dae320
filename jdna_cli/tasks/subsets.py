"""Training subsets: seeded, stratified, and nested."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

BINS = 10  # strata of a regression task


def nested_order(strata: Sequence[Hashable], seed: int) -> list[int]:
    """An order of all examples of which every prefix is a stratified sample.

    Each stratum is shuffled and spread evenly over the order, so a prefix of n examples holds each
    stratum's share to within one, and a shorter prefix is part of every longer one.
    """
    draw = random.Random(seed)
    members: dict[Hashable, list[int]] = {}
    for i, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(i)
    placed = []
    for which, stratum in enumerate(sorted(members, key=str)):
        indices = members[stratum]
        draw.shuffle(indices)
        placed += [((rank + 0.5) / len(indices), which, i) for rank, i in enumerate(indices)]
    return [i for _, _, i in sorted(placed)]


def strata(labels: Sequence[float], classes: bool) -> list[int]:
    """Stratum of each example: its class, or the tenth of the label's range of ranks."""
    if classes:
        return [int(label) for label in labels]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], i))
    strata = [0] * len(labels)
    for rank, i in enumerate(order):
        strata[i] = rank * BINS // len(labels)
    return strata


def training_subset(
    labels: Sequence[float], classes: bool, fraction: float, at_most: int | None, seed: int
) -> list[int]:
    """Indices of the training examples to use, in ascending order.

    The subset of a smaller fraction is part of that of a larger one; so with `at_most`.

    Args:
        labels: all training labels.
        classes: whether labels are classes (else numbers).
        fraction: round(fraction · n) examples are used, at least one.
        at_most: upper limit on their number, or None.
        seed: which subset.
    """
    count = max(1, round(fraction * len(labels)))
    if at_most is not None:
        count = min(count, at_most)
    if count == len(labels):
        return list(range(len(labels)))
    return sorted(nested_order(strata(labels, classes), seed)[:count])
