"""Statistics of reports. Seeded: the same data give the same figures.

Each says what it assumes. Imports of SciPy are inside: a plain table needs little of it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SEED = 20231003
RESAMPLES = 9_999  # of permutation tests; all permutations where there are fewer
BOOTSTRAPS = 2_000

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean with its 95 % interval; None where one value tells nothing of the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int
    deviation: float | None = None  # standard deviation (n - 1)


# Student's t at 97.5 %, of 1, 2, … degrees of freedom: importing SciPy takes longer than a table.
_T_95 = (
    12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934,
    2.5705818356363146, 2.4469118511449786, 2.364624251592784, 2.306004135204166,
    2.262157162798205, 2.228138851986274, 2.200985160091639, 2.1788128296672284,
)  # fmt: skip


@functools.cache
def t_quantile(degrees: int, level: float = 0.95) -> float:
    """Quantile of Student's t for a two-sided interval."""
    if level == 0.95 and degrees <= len(_T_95):
        return _T_95[degrees - 1]
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + level / 2))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's t interval; assumes independent values, about normally distributed."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, None, None, n)
    deviation = math.sqrt(math.fsum([(x - mean) ** 2 for x in values]) / (n - 1))
    half = t_quantile(n - 1, level) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, deviation)


def paired(
    first: Floats, second: Floats, what: Callable[[Floats, Floats], Floats], level: float = 0.95
) -> Interval:
    """A function of two models' means over the same examples, by the paired bootstrap.

    Args:
        first: one number per example, (n,).
        second: the other model's, for the same examples in the same order.
        what: of means (k,) and (k,) gives k numbers, as their difference; NaN: tells of nothing.
        level: of the interval (percentiles); the ends are None where all examples are alike.

    Assumes that examples are independent draws; says nothing of other seeds. Source: Efron and
    Tibshirani 1993, chapter 13.
    """
    own = float(what(first.mean(keepdims=True), second.mean(keepdims=True))[0])
    means = _resampled(np.stack([first, second], axis=1))
    if means is None:
        return Interval(own, None, None, len(first))
    drawn = what(means[:, 0], means[:, 1])
    return Interval(own, *percentiles(drawn[~np.isnan(drawn)], level), len(first))


def mean_of_examples(values: Floats, level: float = 0.95) -> Interval:
    """Mean over examples, (n,), with its bootstrap interval (percentiles)."""
    means = _resampled(values[:, None])
    own = float(values.mean())
    if means is None:
        return Interval(own, None, None, len(values))
    return Interval(own, *percentiles(means[:, 0], level), len(values))


def _resampled(examples: Floats) -> Floats | None:
    """Means of resampled examples, (times, columns); None where all examples are alike.

    Examples with the same numbers are drawn together, which is the same and far faster.
    """
    kinds, counts = np.unique(examples, axis=0, return_counts=True)
    if len(kinds) < 2:
        return None
    n = len(examples)
    drawn = np.random.default_rng(SEED).multinomial(n, counts / n, size=BOOTSTRAPS)
    means: Floats = drawn @ kinds / n
    return means


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test: only first right, only second right, and the two-sided p-value.

    Under the null hypothesis an example that only one model gets right is either's with equal
    chance. Source: McNemar 1947; exact form by the binomial distribution.
    """
    from scipy.stats import binomtest

    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    if lost + won == 0:
        return lost, won, 1.0
    return lost, won, float(binomtest(lost, lost + won).pvalue)


@dataclass(frozen=True)
class Trend:
    """A statistic of order with its one-sided p-values; `least` is the smallest that n allows."""

    value: float
    rising: float
    falling: float
    least: float
    null: float = 0.0  # the statistic where there is no trend

    def p(self, direction: str) -> float:
        """The p-value of a direction: rising, falling, or either."""
        one = {"rising": self.rising, "falling": self.falling}
        return one.get(direction, self.two_sided)

    @property
    def two_sided(self) -> float:
        """The p-value of either direction."""
        return min(1.0, 2 * min(self.rising, self.falling))


@functools.lru_cache(maxsize=8)
def _permutations(n: int) -> npt.NDArray[np.intp]:
    """All orders of n things where they are few, else a seeded sample; the own order first."""
    if math.factorial(n) <= RESAMPLES + 1:
        return np.array(list(itertools.permutations(range(n))), dtype=np.intp)
    generator = np.random.default_rng(SEED)
    drawn = np.argsort(generator.random((RESAMPLES, n)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn])


def _ranks(values: Floats) -> Floats:
    """Average ranks along the last axis, centred and of unit length; constant rows are zero."""
    below = (values[..., None, :] < values[..., :, None]).sum(axis=-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(axis=-1)
    ranks = below + equal / 2
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=-1, keepdims=True))
    unit: Floats = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)
    return unit


def rank_trends(order: Sequence[float], values: Floats) -> tuple[list[Trend], Trend]:
    """Spearman's rank correlation of `order` with each row of `values`, and their mean.

    The p-values are those of permuting the order over the columns, for the mean in all rows
    together, so that rows may depend on each other (the same tasks at several sparsities). Exact
    for up to seven columns.

    Args:
        order: difficulty of each task, (tasks,).
        values: drops, (rows, tasks).

    Assumes that under the null hypothesis the tasks are exchangeable.
    """
    ranked, heights = _ranks(np.asarray(order, float)), _ranks(np.atleast_2d(values))
    found = ranked[_permutations(len(order))] @ heights.T
    mean = found.mean(axis=1)
    each = [_trend(float(column[0]), column) for column in np.ascontiguousarray(found.T)]
    return each, _trend(float(mean[0]), mean)


def _trend(own: float, found: Floats) -> Trend:
    """From the data's own statistic and that of every permutation, the own one among them."""
    slack = 1e-12
    rising = np.count_nonzero(found >= own - slack) / len(found)
    falling = np.count_nonzero(found <= own + slack) / len(found)
    least = np.count_nonzero(found >= found.max() - slack) / len(found)
    return Trend(own, rising, falling, least)


def ordered_trend(groups: Sequence[Sequence[float]]) -> Trend:
    """Jonckheere and Terpstra's test that values rise from group to group, by permutation.

    The statistic is the share of pairs of different groups in which the later one's value is
    larger, ties counting half. Assumes independent values; groups may differ in size. Source:
    Jonckheere 1954; Terpstra 1952.
    """
    values = np.concatenate([np.asarray(group, float) for group in groups])
    sizes = [len(group) for group in groups]
    label = np.repeat(np.arange(len(groups)), sizes)
    later = label[:, None] < label[None]
    total = int(later.sum())
    orders = _permutations(len(values))
    larger = (values[:, None] < values[None]) + 0.5 * (values[:, None] == values[None])
    before, after = np.nonzero(later)
    found = larger[orders[:, before], orders[:, after]].sum(axis=1) / total
    return replace(_trend(float(found[0]), found), null=0.5)


def page_trend(blocks: Floats) -> Trend:
    """Page's test that values rise over the columns of complete blocks (seeds × levels).

    The statistic is the mean over blocks of Spearman's correlation with the order of the columns;
    p-values by permuting within each block on its own (exact where that is possible). Assumes that
    blocks are independent and, under the null hypothesis, columns exchangeable. Source: Page 1963.
    """
    heights = _ranks(np.atleast_2d(blocks))
    count, n = heights.shape
    ranked = _ranks(np.arange(n, dtype=float))
    own = float((heights @ ranked).mean())
    orders = list(itertools.permutations(range(n))) if n <= 7 else None
    if orders is not None and len(orders) ** count <= RESAMPLES + 1:
        each = [heights[i][np.array(orders)] @ ranked for i in range(count)]
        sums = functools.reduce(lambda a, b: (a[:, None] + b[None]).ravel(), each)
        return _trend(own, sums / count)
    generator = np.random.default_rng(SEED)
    shuffled = generator.permuted(np.repeat(heights[None], RESAMPLES, axis=0), axis=2)
    return _trend(own, np.concatenate([[own], (shuffled @ ranked).mean(axis=1)]))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that the chance of one false alarm is held.

    Source: Holm 1979; no assumption on how the tests depend on each other.
    """
    adjusted, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        adjusted[i] = highest
    return adjusted


def monotone(values: Floats, weights: Sequence[float] | None = None) -> Floats:
    """Isotonic regression (least squares) of each row of `values`, (rows, levels), not below 0.

    By the max-min formula: the fit at i is the largest, over a ≤ i, of the smallest, over b ≥ i, of
    the weighted means of a … b. Source: Barlow, Bartholomew, Bremner and Brunk 1972, theorem 1.4.
    """
    fitted: Floats = np.array(values, float)
    falling = (np.diff(fitted, axis=1) < 0).any(axis=1)
    if falling.any():
        fitted[falling] = _max_min(fitted[falling], weights)
    return np.maximum(fitted, 0.0, out=fitted)


def _max_min(values: Floats, weights: Sequence[float] | None) -> Floats:
    rows, count = values.shape
    own = np.ones(count) if weights is None else np.asarray(weights, float)
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(values * own, axis=1)], axis=1)
    totals = np.concatenate([[0.0], np.cumsum(own)])
    fitted: Floats = np.full((rows, count), -np.inf)
    for a in range(count):
        means = (sums[:, a + 1 :] - sums[:, a : a + 1]) / (totals[a + 1 :] - totals[a])
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        np.maximum(fitted[:, a:], least, out=fitted[:, a:])
    return fitted


def critical(
    levels: Sequence[float],
    drops: Floats,
    tolerance: float,
    weights: Sequence[float] | None = None,
) -> Floats:
    """The largest sparsity at which the drop is not above `tolerance`, for each row of `drops`.

    Drops are made monotone, start at no drop where nothing is pruned, and are linear between the
    levels measured; above the last level nothing is said.

    Args:
        levels: sparsities, rising, above 0, (levels,).
        drops: mean drop at each, (rows, levels).
        tolerance: drop that still counts as none.
        weights: of each level (its number of runs); equal by default.

    Returns:
        (rows,)
    """
    fitted = monotone(np.atleast_2d(drops), weights)
    ys = np.concatenate([np.zeros((len(fitted), 1)), fitted], axis=1)
    xs = np.concatenate([[0.0], levels])
    # Levels that are not above the tolerance come first, because the fit does not fall.
    last = (ys <= tolerance).sum(axis=1) - 1
    following = np.minimum(last + 1, len(xs) - 1)
    low = np.take_along_axis(ys, last[:, None], 1)[:, 0]
    rise = np.take_along_axis(ys, following[:, None], 1)[:, 0] - low
    share = np.divide(tolerance - low, rise, out=np.zeros_like(low), where=rise > 0)
    critical_levels: Floats = xs[last] + (xs[following] - xs[last]) * share
    return critical_levels


def bracket(
    levels: Sequence[float],
    drops: Floats,
    tolerance: float,
    weights: Sequence[float] | None = None,
) -> tuple[Floats, Floats]:
    """The measured levels between which each row's critical sparsity lies, (rows,) and (rows,).

    Args are those of `critical`. The upper end is 1 where no level measured is above the tolerance:
    nothing is said of what lies between two levels, nor above the last.
    """
    fitted = monotone(np.atleast_2d(drops), weights)
    xs = np.array([0.0, *levels, 1.0])
    held = (fitted <= tolerance).sum(axis=1)
    return xs[held], xs[held + 1]


def percentiles(found: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values."""
    ordered, at = np.sort(found), np.array([(1 - level) / 2, (1 + level) / 2]) * (len(found) - 1)
    below = at.astype(int)
    above = np.minimum(below + 1, len(found) - 1)
    low, high = ordered[below] + (at - below) * (ordered[above] - ordered[below])
    return float(low), float(high)
