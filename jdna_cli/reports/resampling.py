"""Drops of one way of pruning on resampled seeds, and on resampled examples of each (bootstrap).

Source: Efron and Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdna_cli.reports import cells, predictions, statistics
from jdna_cli.reports.predictions import Answers
from jdna_cli.reports.query import Row
from jdna_cli.reports.statistics import Floats

TIMES = 400
TOGETHER = 2_000  # times that several lines are resampled, for a test
CHUNK = 50  # resamples at once


class Over(NamedTuple):
    """What was resampled: seeds, examples, or both; and in words, with their numbers."""

    kind: str | None
    words: str


def drops(levels: Sequence[Row], answers: Answers) -> tuple[Floats | None, Over]:
    """Drops at each level on resampled seeds and examples, and what was resampled.

    Args:
        levels: cells of one way of pruning, sparsities rising.
        answers: of their runs.

    Returns:
        (TIMES, levels); None where one seed's answers were not saved.
    """
    seeds = [
        {(one.seed, one.pruning_seed): one for one in row["_seeds"] if one.relative is not None}
        for row in levels
    ]
    shared = sorted(set.intersection(*(set(s) for s in seeds)), key=str)
    if not shared:
        return None, Over(None, "")
    generator = np.random.default_rng(statistics.SEED)
    saved = [_answers(levels, seeds, seed, answers) for seed in shared]
    chosen = generator.integers(0, len(shared), (TIMES, len(shared)))
    told = [f"{len(shared)} seeds"] if len(shared) > 1 else []
    if any(one is None for one in saved):
        if len(shared) < 2:
            return None, Over(None, "")
        table = np.array([[1 - (s[seed].relative or 0.0) for s in seeds] for seed in shared])
        return np.asarray(table[chosen].mean(axis=1)), Over("seeds", told[0])
    means = np.zeros((TIMES, len(levels)))
    for k in range(len(shared)):
        # Each time a seed is drawn, its examples are drawn anew.
        for i, own in enumerate(saved):
            times = np.flatnonzero(chosen[:, k] == i)
            if own is not None and len(times):
                means[times] += _drops(own, levels[0]["metric"], len(times), generator)
    kind = "both" if told else "examples"
    told.append(f"{len(saved[0]) if saved[0] is not None else 0} examples")
    return means / len(shared), Over(kind, " and ".join(told))


def together(lines: Sequence[Sequence[Row]], answers: Answers) -> tuple[Floats, int] | None:
    """Drops of several lines on the same resampled examples, and how many examples they share.

    Args:
        lines: of each, cells of one measurement at the same sparsities, rising.
        answers: of their runs.

    Returns:
        (TOGETHER, lines, levels); None where a line has several seeds, or saved no answers.
    """
    tables = []
    for levels in lines:
        if any(len(row["_seeds"]) != 1 for row in levels):
            return None
        runs = [levels[0]["_seeds"][0].dense_run, *(row["_seeds"][0].run for row in levels)]
        metric, split = levels[0]["metric"], levels[0]["split"]
        tables += [answers.of(run, split, metric) if run else None for run in runs]
    known = [table for table in tables if table is not None]
    names = [n for n in known[0] if all(n in table for table in known)] if known else []
    if len(known) < len(tables) or len(names) < 2:
        return None
    scores = np.array([[table[name] for table in known] for name in names])
    means = _means(scores, TOGETHER, np.random.default_rng(statistics.SEED))
    drops = _drops_of_means(means.reshape(TOGETHER, len(lines), -1), lines[0][0]["metric"])
    return drops, len(names)


def _drops_of_means(means: Floats, metric: str) -> Floats:
    """Drops (…, levels) from means (…, 1 + levels), the dense run's first."""
    return 1 - np.nan_to_num(predictions.relative(means[..., :1], means[..., 1:], metric), nan=1.0)


def _answers(
    levels: Sequence[Row],
    seeds: list[dict[Any, cells.Measured]],
    seed: Any,
    answers: Answers,
) -> Floats | None:
    """Scores by example (examples, 1 + levels), the dense run's first; None where not saved."""
    metric, split = levels[0]["metric"], levels[0]["split"]
    runs = [seeds[0][seed].dense_run, *(s[seed].run for s in seeds)]
    found = [answers.of(run, split, metric) if run else None for run in runs]
    there = [one for one in found if one is not None]
    if len(there) < len(found):
        return None
    names = [name for name in there[0] if all(name in one for one in there)]
    return np.array([[one[name] for one in there] for name in names]) if names else None


def _drops(answers: Floats, metric: str, times: int, generator: np.random.Generator) -> Floats:
    """Drops at each level on examples drawn with replacement, (times, levels)."""
    return _drops_of_means(_means(answers, times, generator), metric)


def _means(answers: Floats, times: int, generator: np.random.Generator) -> Floats:
    """Means over examples drawn with replacement, (times, columns), of (examples, columns)."""
    count = len(answers)
    means = np.empty((times, answers.shape[1]))
    for start in range(0, times, CHUNK):
        size = min(CHUNK, times - start)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=size)
        means[start : start + size] = drawn @ answers / count
    return means
