"""Advice on simulated tasks whose critical sparsity is known: how often its interval has it.

The curves are of families that the estimator does not assume: powers, sigmoids, broken lines,
cliffs, and exponentials, a quarter of them with a dip at first. Scores scatter by Student's t of
six degrees, more where the drop is larger.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.measuring import table
from jdna_cli.advising import choice
from jdna_cli.advising.question import MOST, Level, question
from jdna_cli.reports import statistics
from jdna_cli.reports.critical_sparsity import Observed, posterior
from jdna_cli.reports.statistics import Floats

TASKS = 300
SEEDS = 3
SLACK = 0.002  # the truth is known to a thousandth
AXIS = np.linspace(0, 0.99, 991)
KINDS = ("power", "sigmoid", "broken line", "cliff", "exponential")


@dataclass(frozen=True)
class Task:
    """A curve with its crossing, and how runs scatter around it."""

    kind: str
    drop: Floats
    critical: float
    dense: float
    noise: float
    growth: float

    def run(self, sparsity: float, count: int, generator: np.random.Generator) -> Floats:
        """Scores of some seeds."""
        drop = float(np.interp(sparsity, AXIS, self.drop))
        spread = self.noise * (1 + self.growth * max(drop, 0.0))
        drawn = generator.standard_t(6, count) / np.sqrt(1.5)
        return np.asarray(self.dense * (1 - drop + spread * drawn))


def drawn(tolerance: float, generator: np.random.Generator) -> Task:
    """A task."""
    kind = KINDS[generator.integers(len(KINDS))]
    u = generator.uniform
    if kind == "power":
        begins = u(0, 0.6)
        drop = u(0.1, 0.8) * np.maximum(0, (AXIS - begins) / (1 - begins)) ** u(1, 4)
    elif kind == "sigmoid":
        middle, width = u(0.3, 0.95), u(0.03, 0.12)
        rise = 1 / (1 + np.exp(-(AXIS - middle) / width))
        drop = u(0.1, 0.6) * (rise - rise[0])
    elif kind == "broken line":
        heights = np.concatenate([[0.0], np.cumsum(generator.gamma(0.3, 1, 10))])
        drop = np.interp(AXIS, np.linspace(0, 1, 11), heights * u(0.05, 0.5) / heights[-1])
    elif kind == "cliff":
        drop = u(0, 0.01) * AXIS + u(0.05, 0.5) * (u(0.1, 0.9) < AXIS)
    else:
        drop = np.minimum(u(0.4, 6) * (np.exp(u(1, 8) * AXIS) - 1) / (np.exp(8) - 1), 0.9)
    if generator.random() < 0.25:
        drop = drop - u(0, 0.006) * np.minimum(AXIS / 0.1, 1)
    above = np.flatnonzero(drop > tolerance)
    critical = AXIS[max(above[0] - 1, 0)] if len(above) else 1.0
    noise = float(np.exp(u(np.log(0.002), np.log(0.012))))
    return Task(kind, drop, float(min(critical, MOST)), u(0.6, 0.95), noise, u(0, 8))


@dataclass(frozen=True)
class Found:
    """What a search, or a grid, said of a task."""

    kind: str
    covered: bool
    width: float
    error: float
    runs: int


def searched(seed: int, tolerance: float) -> Found:
    """`jdna advise` by its own budget and precision."""
    generator = np.random.default_rng([seed, round(1000 * tolerance)])
    task = drawn(tolerance, generator)
    asked = question({}, trains=True, tolerance=tolerance, seeds=SEEDS, precision=0.05,
                     budget=None, patterns=None)  # fmt: skip
    dense = tuple(task.run(0.0, SEEDS, generator))
    levels: dict[float, tuple[float, ...]] = {}
    runs, samples = SEEDS, None
    while True:
        if levels:
            samples = np.minimum(posterior(Observed(dense, levels), tolerance).samples, MOST)
            low, middle, high = np.quantile(samples, [0.025, 0.5, 0.975])
            assert asked.budget.runs is not None
            if high - low <= asked.precision or runs >= asked.budget.runs:
                break
        free = [x for x in asked.levels if len(levels.get(x.sparsity, ())) < SEEDS]
        chosen = choice.by_posterior(samples, free, [], 1)
        assert isinstance(chosen, Level)
        (score,) = task.run(chosen.sparsity, 1, generator)
        levels[chosen.sparsity] = (*levels.get(chosen.sparsity, ()), score)
        runs += 1
    return _found(task, low, middle, high, runs)


def on_a_grid(seed: int, tolerance: float) -> tuple[Found, Found]:
    """Nine sparsities × all seeds: the posterior, and the bootstrap over seeds."""
    generator = np.random.default_rng([seed, round(1000 * tolerance)])
    task = drawn(tolerance, generator)
    xs = [i / 10 for i in range(1, 10)]
    dense = task.run(0.0, SEEDS, generator)
    scores = np.array([task.run(x, SEEDS, generator) for x in xs])
    runs = SEEDS * (1 + len(xs))
    known = Observed(tuple(dense), {x: tuple(s) for x, s in zip(xs, scores, strict=True)})
    samples = np.minimum(posterior(known, tolerance).samples, MOST)
    own = _found(task, *np.quantile(samples, [0.025, 0.5, 0.975]), runs)
    drops = (1 - scores / dense).T
    again = drops[generator.integers(0, SEEDS, (400, SEEDS))].mean(axis=1)
    middle = float(statistics.critical(xs, drops.mean(axis=0)[None], tolerance)[0])
    low, high = statistics.percentiles(statistics.critical(xs, again, tolerance))
    top = Task(task.kind, task.drop, min(task.critical, xs[-1]), 1.0, 0.0, 0.0)
    return own, _found(top, low, middle, high, runs)


def _found(task: Task, low: float, middle: float, high: float, runs: int) -> Found:
    covered = low - SLACK <= task.critical <= high + SLACK
    return Found(task.kind, covered, high - low, abs(middle - task.critical), runs)


def report() -> str:
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with ProcessPoolExecutor() as pool:
        for tolerance in (0.01, 0.02, 0.05):
            same = [tolerance] * TASKS
            own = list(pool.map(searched, range(TASKS), same, chunksize=10))
            grids = list(pool.map(on_a_grid, range(TASKS), same, chunksize=10))
            for name, found in (
                ("`jdna advise`", own),
                ("a grid, the same posterior", [grid[0] for grid in grids]),
                ("a grid, isotonic and bootstrap", [grid[1] for grid in grids]),
            ):
                rows.append([f"{tolerance:.0%}", name, *_row(found)])
    columns = ["tolerance", "", "covers, %", "of cliffs, %", "width, points", "error, points",
               "runs, mean", "runs, most"]  # fmt: skip
    title = f"Critical sparsity of {TASKS} simulated tasks, {SEEDS} seeds, intervals of 95 %"
    return table(title, columns, rows)


def _row(found: list[Found]) -> list[str]:
    cliffs = [one.covered for one in found if one.kind == "cliff"]
    return [
        f"{100 * np.mean([one.covered for one in found]):.1f}",
        f"{100 * np.mean(cliffs):.0f}",
        f"{100 * np.median([one.width for one in found]):.1f}",
        f"{100 * np.mean([one.error for one in found]):.1f}",
        f"{np.mean([one.runs for one in found]):.1f}",
        f"{max(one.runs for one in found)}",
    ]


if __name__ == "__main__":
    sys.stdout.write(report())
