"""Where the next run tells most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdna_cli.advising.question import STEP, Level
from jdna_cli.reports.statistics import Floats

SURE = 0.005  # what is as improbable as this is not asked any more


def by_posterior(
    samples: Floats | None, free: Sequence[Level], pending: Sequence[Level], side: int
) -> Level | None:
    """The free level nearest to a quantile of the critical sparsity that nobody works at.

    With one point at a time that is the median: probabilistic bisection (Horstein 1963). Of
    patterns, the one that is as likely to be well as not.

    Args:
        samples: of the critical sparsity; None where nothing was pruned yet.
        free: levels that may still be run.
        pending: levels that are being run.
        side: how many points are run side by side.

    Returns:
        None where every free level is as good as decided.
    """
    if samples is None:
        samples = np.linspace(0, 1, 1001)
    at = [float((samples <= level.sparsity).mean()) for level in pending]
    places = [(i + 1) / (side + 1) for i in range(side)]

    def apart(place: float) -> float:
        return min((abs(place - x) for x in at), default=1 - abs(place - 0.5))

    place = max(places, key=apart)
    if free and free[0].pattern is not None:
        well = {level: float((samples >= level.sparsity).mean()) for level in free}
        undecided = [level for level in free if SURE < well[level] < 1 - SURE]
        return min(undecided, key=lambda x: abs(well[x] - (1 - place)), default=None)
    low, wanted, high = np.quantile(samples, [SURE, place, 1 - SURE])
    near = [level for level in free if low - STEP <= level.sparsity <= high + STEP]
    return min(near, key=lambda level: abs(level.sparsity - wanted), default=None)


def by_halving(bracket: tuple[float, float], gap: float, free: Sequence[Level]) -> Level | None:
    """The middle of a bracket that is wider than a gap; None where it is not."""
    below, above = bracket
    between = [level for level in free if below < level.sparsity < above]
    if not between or above - below <= gap:
        return None
    middle = (below + above) / 2
    return min(between, key=lambda level: abs(level.sparsity - middle))
