"""One way of pruning a model for a task, at several sparsities: what is known of how far it may go.

Runs that were trained scatter from seed to seed: their critical sparsity has a posterior
(`critical_sparsity`). Where nothing is trained, or there is one seed, drops are made monotone, and
the interval is from the level that held to the one that did not, by a bootstrap over the examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jdna_cli.reports import cells, chance, resampling, statistics
from jdna_cli.reports.critical_sparsity import Observed, Posterior, posterior
from jdna_cli.reports.predictions import Answers
from jdna_cli.reports.query import Row
from jdna_cli.reports.resampling import Over
from jdna_cli.reports.statistics import Floats
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

WAY = ("model", "label", "split", "recipe", "regime", "criterion", "scope", "allocation",
       "prunable", "calibration", "schedule", "teacher")  # fmt: skip
MOST = 12  # ways of trained runs whose intervals are worked out at a time
FALLING = 3.0  # standard errors by which a drop must fall to say that the curve is not monotone


class Unlearnt(NamedTuple):
    """A run that did not learn, where another of the same sparsity or more did."""

    run: int
    sparsity: float
    seed: int | None


@dataclass(frozen=True)
class Known:
    """What is known of a way's critical sparsity.

    Attributes:
        critical: the largest sparsity at which the drop is not above the tolerance.
        low, high: its 95 % interval; None where nothing is known of it.
        over: what the interval is over.
        posterior: of runs that were trained; else None.
        samples: of the critical sparsity, from the posterior or the bootstrap; None where neither.
        unlearnt: runs that were left out.
        falls: pairs of sparsities at the larger of which the drop is smaller, by more than noise.
    """

    critical: float
    low: float | None
    high: float | None
    over: Over
    posterior: Posterior | None = None
    samples: Floats | None = None
    unlearnt: tuple[Unlearnt, ...] = ()
    falls: tuple[tuple[float, float], ...] = ()

    @property
    def width(self) -> float:
        """Of the interval; endless where there is none."""
        return np.inf if self.low is None or self.high is None else self.high - self.low


@dataclass(frozen=True)
class Way:
    """The cells of one way of pruning, and the dense one that they are compared with.

    Attributes:
        levels: pruned cells, sparsities rising, one kind of pattern.
        dense: with all its seeds, also those that no level has yet.
    """

    levels: list[Row]
    dense: Row

    @property
    def scatters(self) -> bool:
        """Whether its runs were trained, by several seeds: their interval is over those."""
        trained = self.levels[0]["data_fraction"] is not None
        return trained and len(self.dense["_seeds"]) > 1


def grouped(rows: Sequence[Row]) -> list[Way]:
    """The ways of pruning among some cells."""
    dense: dict[tuple[object, ...], Row] = {}
    places: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        near = (row["recipe"], row["split"])
        if cells.plain(row) and not row["quantization"]:
            if near not in dense or (row["bits"] or 0) > (dense[near]["bits"] or 0):
                dense[near] = row
        elif row["pattern"] and not row["quantization"] and row["mean_relative_drop"] is not None:
            key = (*(row[name] for name in WAY), cells.kind_of(row))
            places.setdefault(key, []).append(row)
    return [
        Way(sorted(own, key=cells.level), dense[own[0]["recipe"], own[0]["split"]])
        for own in places.values()
    ]


def known(way: Way, answers: Answers, tolerance: float, *, interval: bool = True) -> Known:
    """What the cells of one way say.

    Args:
        way: its cells.
        answers: of their runs.
        tolerance: drop that still counts as none.
        interval: whether to work out how sure it is, which takes time.
    """
    levels, steps = way.levels, _steps(way.levels)
    if interval and way.scatters:
        return _over_seeds(way, tolerance, steps)
    xs = [row["sparsity"] for row in levels]
    weights = [float(row["n"]) for row in levels]
    drops = np.array([[row["mean_relative_drop"] for row in levels]])

    def critical_of(means: Floats) -> Floats:
        found = statistics.critical(xs, means, tolerance, weights)
        return found if steps is None else steps(found)

    own = float(critical_of(drops)[0])
    if not interval:
        return Known(own, None, None, Over(None, ""))
    drawn, over = resampling.drops(levels, answers)
    if drawn is None:
        return Known(own, None, None, over)
    if steps is not None:
        samples = critical_of(drawn)
        return Known(own, *statistics.percentiles(samples), over, samples=samples)
    # Between two levels it may be anywhere.
    below, above = statistics.bracket(xs, drawn, tolerance, weights)
    places = np.random.default_rng(statistics.SEED).random(len(below))
    low, high = statistics.percentiles(below)[0], statistics.percentiles(above)[1]
    return Known(own, low, high, over, samples=below + places * (above - below))


def _steps(levels: Sequence[Row]) -> Callable[[Floats], Floats] | None:
    """Between two patterns there is none: the sparsest measured one that is not above."""
    if cells.kind_of(levels[0]) != "N:M":
        return None
    steps = np.array([0.0, *(row["sparsity"] for row in levels)])
    return lambda found: np.asarray(steps[(steps[None] <= found[:, None] + 1e-12).sum(axis=1) - 1])


def observed(way: Way) -> tuple[Observed, tuple[Unlearnt, ...]]:
    """Scores of a way's runs, the higher the better, and the runs that are left out of them."""
    levels, first = way.levels, way.dense
    guess = None if first["metric"] in LOWER_IS_BETTER else chance.chance(first)
    dense = first["_seeds"]
    learnt = [one for one in dense if _has_learnt(one.score, guess)] or dense
    left = [Unlearnt(one.run, 0.0, one.seed) for one in dense if one not in learnt]
    scores: dict[float, tuple[float, ...]] = {}
    learns_above = False
    for row in reversed(levels):
        fine = [one for one in row["_seeds"] if _has_learnt(one.score, guess)]
        learns_above = learns_above or bool(fine)
        chosen = fine if learns_above else row["_seeds"]
        left += [Unlearnt(o.run, row["sparsity"], o.seed) for o in row["_seeds"] if o not in chosen]
        if chosen:
            scores[row["sparsity"]] = tuple(_good(one.score, first["metric"]) for one in chosen)
    means = tuple(_good(one.score, first["metric"]) for one in learnt)
    return Observed(means, dict(sorted(scores.items()))), tuple(left)


def _has_learnt(score: float, guess: float | None) -> bool:
    return guess is None or score - guess > chance.AT_CHANCE * (1 - guess)


def _good(score: float, metric: str) -> float:
    return 1 / score if metric in LOWER_IS_BETTER else score


def _over_seeds(way: Way, tolerance: float, steps: Callable[[Floats], Floats] | None) -> Known:
    scores, left = observed(way)
    found = posterior(scores, tolerance)
    limit = 1.0 if steps is None else max(scores.levels, default=0.0)

    def chosen(samples: Floats) -> Floats:
        below = np.minimum(samples, limit)
        return below if steps is None else steps(below)

    critical, low, high = found.interval(chosen)
    seeds = {one.seed for row in (way.dense, *way.levels) for one in row["_seeds"]}
    words = f"{scores.runs} runs of {len(seeds)} seeds"
    return Known(
        critical, low, high, Over("seeds", words), found, found.samples, left,
        _falls(scores, found.noise),
    )  # fmt: skip


def _falls(scores: Observed, noise: float) -> tuple[tuple[float, float], ...]:
    """Levels next to each other at the larger of which the drop is smaller by more than noise."""
    dense = float(np.mean(scores.dense))
    means = [(s, float(np.mean(v)) / dense, len(v)) for s, v in scores.levels.items()]
    falls = []
    for (s, low, n), (t, high, m) in itertools.pairwise(means):
        if high - low > FALLING * noise * np.sqrt(1 / n + 1 / m):
            falls.append((s, t))
    return tuple(falls)
