"""Lines from easy to hard: their trends, their critical sparsities, and what they leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdna_cli.reports import statistics
from jdna_cli.reports.critical_sparsity import Observed, posterior
from jdna_cli.reports.statistics import Trend


@dataclass(frozen=True)
class Line:
    """One task, or one level of a condition: its place from easy to hard, and its drops."""

    label: str
    order: float
    drops: dict[float, dict[Any, float]]  # by sparsity, by seed
    means: dict[float, float]  # over seeds
    # Of a single seed whose answers were saved: drops on resampled examples, (times, levels).
    resampled: statistics.Floats | None = None
    # Of several seeds that were trained: gives the scores themselves.
    observed: Callable[[], Observed] | None = None

    def mean(self, level: float) -> float:
        """Mean drop at a sparsity."""
        return self.means[level]


Trends = tuple[list[Trend], Trend]


def rank_tests(lines: Sequence[Line], levels: Sequence[float]) -> Trends | None:
    """The trend at each level, and over all of them."""
    if len(lines) < 3:
        return None
    means = np.array([[line.mean(level) for line in lines] for level in levels])
    return statistics.rank_trends([line.order for line in lines], means)


def condition_tests(lines: Sequence[Line], levels: Sequence[float]) -> Trends | None:
    """The trend over a condition's levels at each sparsity, and over all of them."""
    each = [_condition_test(lines, [level]) for level in levels]
    overall = _condition_test(lines, levels)
    if overall is None or not all(each):
        return None
    return [one for one in each if one is not None], overall


def _condition_test(lines: Sequence[Line], levels: Sequence[float]) -> Trend | None:
    if len(lines) < 2:
        return None
    # Of each seed, the mean over sparsities: they are not independent of each other.
    seeds = [
        set.intersection(*(set(line.drops[level]) for level in levels)) if levels else set()
        for line in lines
    ]
    own = [
        {s: math.fsum(line.drops[x][s] for x in levels) / len(levels) for s in there}
        for line, there in zip(lines, seeds, strict=True)
    ]
    if not all(own):
        return None
    shared = sorted(set.intersection(*seeds), key=str)
    if len(shared) > 1 and len(lines) > 2 and all(len(s) == len(shared) for s in seeds):
        return statistics.page_trend(np.array([[one[s] for one in own] for s in shared]))
    if sum(map(len, own)) < 3:
        return None
    return statistics.ordered_trend([list(one.values()) for one in own])


def slope_tests(own: statistics.Floats, drawn: statistics.Floats) -> Trends:
    """The slope of drop from level to level of a condition, on resampled examples.

    Least squares over the levels' ranks; p-values by the percentile bootstrap.

    Args:
        own: drops (lines, sparsities), lines from easy to hard.
        drawn: the same on resampled examples, (times, lines, sparsities).
    """
    ranks = np.arange(len(own)) - (len(own) - 1) / 2
    weights = ranks / (ranks**2).sum()
    means, slopes = weights @ own, np.einsum("l,tls->ts", weights, drawn)
    each = [_slope_trend(float(m), s) for m, s in zip(means, slopes.T, strict=True)]
    return each, _slope_trend(float(means.mean()), slopes.mean(axis=1))


def _slope_trend(own: float, drawn: statistics.Floats) -> Trend:
    times = len(drawn) + 1
    rising, falling = (1 + int((side >= 0).sum()) for side in (-drawn, drawn))
    return Trend(own, rising / times, falling / times, 1 / times)


def examples_needed(own: statistics.Floats, drawn: statistics.Floats, count: int) -> int | None:
    """With how many examples the slope would be seen in four of five tries (two-sided, 5 %).

    Supposes that it is as large as on these `count`; None where that is nothing.
    """
    ranks = np.arange(len(own)) - (len(own) - 1) / 2
    slopes = np.einsum("l,tls->t", ranks, drawn)
    measured, spread = float((ranks @ own).sum()), float(slopes.std())
    if spread == 0 or abs(measured) < spread / 10:
        return None
    return math.ceil(count * (2.8 * spread / measured) ** 2)


def slope(line: Line, levels: Sequence[float]) -> float:
    """Of drop over sparsity, through no drop at no sparsity; least squares."""
    return math.fsum(x * line.mean(x) for x in levels) / math.fsum(x * x for x in levels)


def gaps(
    lines: Sequence[Line], levels: Sequence[float], names: dict[float, str], *, seeds: bool
) -> list[str]:
    """What else one would want to know; `seeds`: whether other ones would give other scores."""
    found = []
    alone = sum(len(line.drops[x]) < 2 for line in lines for x in levels)
    if alone and seeds:
        found.append(f"{alone} of {len(lines) * len(levels)} cells have one seed: 3 or more tell "
                     "the spread")  # fmt: skip
    drops = [line.mean(x) for line in lines for x in levels]
    if drops and max(drops) < 0.02:
        found.append(f"nothing breaks: no drop reaches 2 % up to {names[levels[-1]]}, prune more")
    order = np.array([line.order for line in lines])
    worst: tuple[float, str] = (0.05, "")
    for x in levels:
        means = np.array([line.mean(x) for line in lines])
        apart = np.where(order[:, None] < order[None], means[:, None] - means[None], -np.inf)
        i, j = divmod(int(apart.argmax()), len(lines))
        if apart[i, j] > worst[0]:
            text = (f"difficulty does not explain that {lines[i].label} drops "
                    f"{100 * apart[i, j]:.0f} points more than the harder {lines[j].label} at "
                    f"{names[x]}")  # fmt: skip
            worst = (float(apart[i, j]), text)
    return [*found, *([worst[1]] if worst[1] else [])]


Threshold = tuple[float, float | None, float | None]


def thresholds(lines: Sequence[Line], tolerance: float, *, sure: bool) -> dict[str, Threshold]:
    """Critical sparsity of each line, and its 95 % interval.

    Over seeds by the posterior (`critical_sparsity`), where it is wanted (`sure`), for it takes
    time; of a single seed by the bootstrap over its examples, if its answers were saved.
    """
    thresholds: dict[str, Threshold] = {}
    for line in lines:
        levels = tuple(sorted(line.drops))
        if sure and line.observed is not None:
            found = posterior(line.observed(), tolerance)
            thresholds[line.label] = found.interval(lambda x: np.minimum(x, 1.0))
            continue
        counts = tuple(len(line.drops[x]) for x in levels)
        means = np.array([[line.mean(x) for x in levels]])
        (value,) = statistics.critical(levels, means, tolerance, counts)
        interval: tuple[float | None, float | None] = (None, None)
        if line.resampled is not None:
            below, above = statistics.bracket(levels, line.resampled, tolerance)
            interval = statistics.percentiles(below)[0], statistics.percentiles(above)[1]
        thresholds[line.label] = (float(value), *interval)
    return thresholds
