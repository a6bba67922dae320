"""The critical sparsity of runs that scatter: the posterior of a curve that crosses the tolerance.

A run of relative score r at sparsity s is r = m (1 - f(s)) + noise, where f is the drop and m the
dense model's mean. f is a curve that crosses the tolerance at the critical sparsity c, and may rise
from there or before as a power of s, as a step, or as both; it may first dip or rise a little and
stay, and rise once more above c. The noise is normal, grows with the drop, and on top of it each
level misses the curve by something that all its seeds share. Nothing is assumed to be smooth.

Every parameter is uniform on [0, 1] before it is put in its place, c itself uniform on 0 … 1.1 (so
that it may lie above all that can be measured). m is integrated out. The posterior is sampled by
sequential Monte Carlo with an adaptive temperature (Del Moral, Doucet and Jasra 2006), moved by
differential evolution (ter Braak 2006). Seeded: the same runs give the same figures.

`benchmarks/advice.py` measures how often its interval covers a known crossing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jdna_cli.reports.statistics import SEED, Floats, percentiles

DIMENSIONS = 13
FIRST, PARTICLES = 8192, 1000  # drawn from the prior, and kept
WITHIN, AT_LAST = 10, 20  # moves at each temperature
REACH = 1.1  # the highest critical sparsity thought of
LEAST = 1e-9


@dataclass(frozen=True)
class Observed:
    """Scores of runs, the higher the better: dense ones, and those at each sparsity."""

    dense: tuple[float, ...]
    levels: Mapping[float, tuple[float, ...]]

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.dense) + sum(map(len, self.levels.values()))


@dataclass(frozen=True)
class Posterior:
    """Samples of the critical sparsity, and of what else a curve is."""

    cube: Floats = field(repr=False)  # (samples, DIMENSIONS)
    tolerance: float

    @property
    def samples(self) -> Floats:
        """The critical sparsity, (samples,)."""
        return np.asarray(REACH * self.cube[:, 0])

    @property
    def noise(self) -> float:
        """Standard deviation of a dense run's score, as a share of it."""
        return float(_noise(self.cube, np.zeros((1, 1))).mean())

    def drops(self, sparsities: Sequence[float]) -> tuple[Floats, Floats, Floats]:
        """Mean drop at sparsities, and the ends of its 95 % interval."""
        curves = _curve(self.cube, np.asarray(sparsities, float), self.tolerance)
        low, high = np.quantile(curves, [0.025, 0.975], axis=0)
        return np.median(curves, axis=0), low, high

    def interval(
        self, step: Callable[[Floats], Floats] | None = None
    ) -> tuple[float, float, float]:
        """Median, low and high end (95 %) of the critical sparsity.

        Args:
            step: from samples to what can be chosen, as the sparsest pattern below; none by
                default.
        """
        samples = self.samples if step is None else step(self.samples)
        return float(np.median(samples)), *percentiles(samples)


def posterior(observed: Observed, tolerance: float) -> Posterior:
    """What the runs say of where the drop passes `tolerance`.

    Args:
        observed: at least one dense run.
        tolerance: drop that still counts as none, 0 < tolerance < 1.
    """
    known = _Summary(observed)
    tolerance = max(tolerance, LEAST)
    generator = np.random.default_rng(SEED)
    cube = generator.random((FIRST, DIMENSIONS))
    fit, heat = known.fit(cube, tolerance), 0.0
    while heat < 1:
        hotter = _next_heat(fit, heat)
        weights = np.exp((hotter - heat) * (fit - fit.max()))
        chosen = _resampled(weights, generator)
        cube, fit, heat = cube[chosen], fit[chosen], hotter
        for _ in range(WITHIN if heat < 1 else AT_LAST):
            cube, fit = _moved(cube, fit, heat, known, tolerance, generator)
    return Posterior(cube, tolerance)


class _Summary:
    """Scores as a share of the dense mean: means, counts, and squares around them, by sparsity."""

    def __init__(self, observed: Observed) -> None:
        mean = sum(observed.dense) / len(observed.dense)
        groups = [np.asarray(v) / mean for v in (observed.dense, *observed.levels.values())]
        self.x = np.array([0.0, *observed.levels])
        self.n = np.array([len(group) for group in groups])
        self.mean = np.array([group.mean() for group in groups])
        self.squares = np.array([((group - group.mean()) ** 2).sum() for group in groups])

    def fit(self, cube: Floats, tolerance: float) -> Floats:
        """Log-likelihood of each curve, (samples,), but for a constant."""
        drop = _curve(cube, self.x, tolerance)
        noise = _noise(cube, drop)
        missed = 0.3 * cube[:, 12:13] ** 2 * drop
        weight = 1 / (noise**2 / self.n + missed**2)
        left = 1 - drop
        a = (weight * left**2).sum(axis=1)
        b = (weight * left * self.mean).sum(axis=1)
        rest = np.maximum((weight * self.mean**2).sum(axis=1) - b**2 / a, 0.0)
        within = ((self.n - 1) * np.log(noise) + self.squares / (2 * noise**2)).sum(axis=1)
        fits: Floats = 0.5 * np.log(weight).sum(axis=1) - 0.5 * np.log(a) - 0.5 * rest - within
        return fits


def _noise(cube: Floats, drop: Floats) -> Floats:
    """Standard deviation of a run at each drop, (samples, levels)."""
    quiet = 0.0008 * 60 ** cube[:, 11:12]
    noise: Floats = quiet * (1 + 12 * cube[:, 10:11] ** 2 * np.maximum(drop, 0.0))
    return noise


def _curve(cube: Floats, x: Floats, tolerance: float) -> Floats:
    """Drops at sparsities x (levels,) of each curve of the cube, (samples, levels)."""

    def parameter(i: int) -> Floats:
        return cube[:, i : i + 1]

    c = REACH * parameter(0)
    # A dip or a small rise at the beginning that stays; mostly none.
    sign = 2 * parameter(1) - 1
    height = sign**5 * np.where(sign > 0, 0.9, 1.0) * tolerance
    length = 0.02 * 20 ** parameter(2)
    left = tolerance - height * (1 - np.exp(-c / length))
    early = height * (1 - np.exp(-x / length))
    # A step up to `top`, and a power of s; both are worth `left` at c.
    top = left * np.exp(0.05 + parameter(4) * np.log(np.maximum(1 / left, 2)))
    width = 0.0003 * 700 ** parameter(5)
    step = top * _logistic((x - c) / width - np.log(top / left - 1))
    end = left * np.exp(0.05 + parameter(6) * np.log(3 / left))
    power = 0.4 * 25 ** parameter(7)
    reached = np.minimum((left / end) ** (1 / power), 0.999)
    begins = (c - reached * REACH) / (1 - reached)
    rise = end * np.maximum((x - begins) / np.maximum(REACH - begins, LEAST), 0) ** power
    mixed = np.clip(1.4 * parameter(3) - 0.2, 0, 1)
    # What comes only above c.
    again = c + np.maximum(REACH - c, 0.001) * parameter(8)
    late = parameter(9) ** 3 * np.maximum(x - again, 0) / np.maximum(REACH - again, 0.05)
    drop = early + mixed * rise + (1 - mixed) * step + late
    return np.asarray(np.minimum(np.where(x == 0, 0.0, drop), 1.0))


def _logistic(t: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -300, 300))))


def _next_heat(fit: Floats, heat: float) -> float:
    """The largest step towards 1 at which half as many samples as are kept still count."""

    def counting(to: float) -> float:
        weights = np.exp((to - heat) * (fit - fit.max()))
        return float(weights.sum() ** 2 / (weights**2).sum())

    if counting(1.0) >= PARTICLES / 2:
        return 1.0
    low, high = heat, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if counting(middle) >= PARTICLES / 2 else (low, middle)
    return max(low, heat + 1e-6)


def _resampled(weights: Floats, generator: np.random.Generator) -> np.ndarray:
    """Systematic resampling: PARTICLES places, each as often as its weight says."""
    places = (generator.random() + np.arange(PARTICLES)) / PARTICLES
    found = np.searchsorted(np.cumsum(weights / weights.sum()), places)
    return np.minimum(found, len(weights) - 1)


def _moved(
    cube: Floats, fit: Floats, heat: float, known: _Summary, tolerance: float,
    generator: np.random.Generator,
) -> tuple[Floats, Floats]:  # fmt: skip
    """One Metropolis step of each sample, along the difference of two others."""
    count = len(cube)
    one, other = generator.integers(0, count, (2, count))
    moving = generator.random(cube.shape) < generator.choice([0.15, 0.3], count)[:, None]
    moved = np.maximum(moving.sum(axis=1, keepdims=True), 1)
    length = generator.choice([0.3, 0.8, 1.0], count)[:, None] * 2.38 / np.sqrt(2 * moved)
    way = length * (cube[one] - cube[other]) + 1e-3 * generator.standard_normal(cube.shape)
    proposed = np.abs(cube + moving * way)  # reflected at both ends of the cube
    proposed = 1 - np.abs(1 - proposed)
    inside = (proposed >= 0).all(axis=1)
    proposed = np.maximum(proposed, 0.0)
    new = np.where(inside, known.fit(proposed, tolerance), -np.inf)
    taken = np.log(generator.random(count)) < heat * (new - fit)
    return np.where(taken[:, None], proposed, cube), np.where(taken, new, fit)
