"""Is the hypothesis borne out? Tests on cells: across tasks by difficulty, within one by condition.

Across tasks the statistic is Spearman's correlation of difficulty and mean drop, averaged over the
sparsities that all tasks share, with the p-value of permuting the tasks. Within a task the levels
of a condition (shares of the data, options, …) are ordered: Page's test where each seed has all
levels, else Jonckheere and Terpstra's; where nothing was trained, the slope of the drop over the
levels on resampled examples, the same ones for all levels. p-values are two-sided, or of the
direction that was stated before the runs, and adjusted by Holm's method for the number of
comparisons in a report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jdna_cli.difficulty import CONDITIONS, StatedTest
from jdna_cli.reports import (
    cells,
    chance,
    difficulty_trends,
    labels,
    predictions,
    resampling,
    statistics,
    ways,
)
from jdna_cli.reports.critical_sparsity import Observed
from jdna_cli.reports.difficulty_trends import Line, Threshold, Trends
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.statistics import Trend
from jdna_cli.reports.ways import Way

ALPHA = 0.05
BORNE, AGAINST, OPEN = "borne out", "contradicted", "undecided"
MOST_TIMES = 100  # as many examples: more are not worth naming
_GROUP = (
    "model",
    "regime",
    "criterion",
    "scope",
    "allocation",
    "prunable",
    "calibration",
    "schedule",
    "teacher",
)


@dataclass(frozen=True)
class Test:
    """The trend at one sparsity, or over all that the lines share (`level` is None)."""

    level: float | None
    lines: int
    trend: Trend
    against: int  # pairs of lines of which the harder one dropped less
    pairs: int
    adjusted: float = 1.0  # p-value of the stated direction, adjusted
    adjusted_two_sided: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """Lines from easy to hard under one way of pruning, and what their drops say."""

    title: str
    axis: str  # difficulty, or the condition
    row: Row  # one of its cells, for its columns
    lines: tuple[Line, ...]
    overall: Test | None
    tests: tuple[Test, ...]
    interaction: Trend | None  # of difficulty and the slope of drop over sparsity
    thresholds: dict[str, Threshold]  # critical sparsities, with intervals
    missing: tuple[str, ...]
    names: dict[float, str]  # of levels
    tolerance: float  # drop that still counts as none, in the thresholds
    stated: StatedTest | None = None  # before the runs

    @property
    def decision(self) -> str:
        """What it says about the hypothesis, at 5 %, or as was stated.

        Where a direction was stated, a trend against it still takes a two-sided test.
        """
        if self.overall is None:
            return OPEN
        alpha = self.stated.alpha if self.stated else ALPHA
        trend = self.overall.trend
        rises = trend.rising < trend.falling
        towards = (self.stated.direction if self.stated else "either") in (
            "either", "rising" if rises else "falling",
        )  # fmt: skip
        p = self.overall.adjusted if towards else self.overall.adjusted_two_sided
        return OPEN if p > alpha else BORNE if rises else AGAINST


def judge(source: Source) -> list[Comparison]:
    """All comparisons that the selected runs allow, adjusted for their number."""
    if "verdicts" not in source.remembered:
        source.remembered["verdicts"] = _judge(source)
    judgements: list[Comparison] = source.remembered["verdicts"]
    return judgements


def _judge(source: Source) -> list[Comparison]:
    rows, answers = labels.labelled(source), predictions.of(source)
    axis = source.test.axis if source.test else None
    found = [
        _across(own, source.tolerance, answers)
        for own in _by(rows, _across_key).values()
        if axis in (None, "difficulty")
    ]
    for column in CONDITIONS:
        if (
            axis not in (None, column)
            or len({row[column] for row in rows if row[column] is not None}) < 2
        ):
            continue
        labelled = [row for row in labels.labelled(source, (column,)) if row[column] is not None]
        for own in _by(labelled, _within_key).values():
            found.append(_within(own, column, source.tolerance, answers))
    kept = [one for one in found if one is not None]
    several = sum(line.observed is not None for one in kept for line in one.lines)
    return _adjusted(
        [replace(one, thresholds=_thresholds(one, sure=several <= ways.MOST)) for one in kept],
        source.test,
    )


def _thresholds(comparison: Comparison, *, sure: bool) -> dict[str, Threshold]:
    if comparison.row["quantization"]:
        return {}
    return difficulty_trends.thresholds(comparison.lines, comparison.tolerance, sure=sure)


def _adjusted(comparisons: list[Comparison], stated: StatedTest | None) -> list[Comparison]:
    """Comparisons with p-values that allow for their number."""
    tested = [one.overall for one in comparisons if one.overall is not None]
    overall = iter(_adjusted_tests(tested, stated))
    return [
        replace(
            one,
            overall=next(overall) if one.overall else None,
            tests=tuple(_adjusted_tests(one.tests, stated)),
            stated=stated,
        )
        for one in comparisons
    ]


def _adjusted_tests(tests: Sequence[Test], stated: StatedTest | None) -> list[Test]:
    direction = stated.direction if stated else "either"
    own, both = (
        statistics.holm(values) if stated is None or stated.correction == "holm" else values
        for values in ([t.trend.p(direction) for t in tests], [t.trend.two_sided for t in tests])
    )
    return [
        replace(test, adjusted=p, adjusted_two_sided=two_sided)
        for test, p, two_sided in zip(tests, own, both, strict=True)
    ]


def _across_key(row: Row) -> tuple[Any, ...]:
    return (*(row[name] for name in _GROUP), cells.kind_of(row))


def _within_key(row: Row) -> tuple[Any, ...]:
    return (*_across_key(row), row["task"], row["split"], row["_family"])


def _by(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Pruned cells that have something to be compared with, group by group."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        if not cells.plain(row) and row["mean_relative_drop"] is not None:
            found.setdefault(key(row), []).append(row)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def _level(row: Row) -> float:
    """How much is taken, rising."""
    return cells.level(row)[0]


def _line(label: str, order: float, rows: list[Row], answers: predictions.Answers) -> Line:
    drops = {
        _level(row): {
            (one.seed, one.pruning_seed): 1 - one.relative
            for one in row["_seeds"]
            if one.relative is not None
        }
        for row in rows
    }
    means = {_level(row): row["mean_relative_drop"] for row in rows}
    alone = max(map(len, drops.values())) == 1 and not rows[0]["quantization"]
    rising = sorted(rows, key=_level)
    resampled = resampling.drops(rising, answers)[0] if alone else None
    several = rows[0]["data_fraction"] is not None and not rows[0]["quantization"]
    return Line(label, order, drops, means, resampled, _scores(rising) if several else None)


def _scores(rows: list[Row]) -> Callable[[], Observed] | None:
    """What works out the scores of a line's runs; None where there is one dense run alone."""
    dense = {one.dense_run: one for row in rows for one in row["_seeds"] if one.dense_run}
    if len(dense) < 2:
        return None
    seeds = [one._replace(run=run, score=one.dense_score) for run, one in dense.items()]
    return lambda: ways.observed(Way(rows, {**rows[0], "_seeds": seeds}))[0]


def _across(rows: list[Row], tolerance: float, answers: predictions.Answers) -> Comparison | None:
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        places.setdefault((row["label"], row["split"], row["recipe"]), []).append(row)
    # One line for each task: the recipe with the most cells, of equals the first.
    best: dict[tuple[str, str], list[Row]] = {}
    for (_, split, _), there in places.items():
        key = (there[0]["task"], split)
        if key not in best or len(there) > len(best[key]):
            best[key] = there
    if len({task for task, _ in best}) < 2:
        return None
    guessing = [there for there in best.values() if chance.at_chance(there[0], answers)]
    unknown = [there for there in best.values() if there[0]["difficulty"] is None]
    used = [there for there in best.values() if there not in guessing and there not in unknown]
    lines = [_line(_name(there[0], best), _difficulty(there), there, answers) for there in used]
    missing = [f"{t[0]['label']}: at chance level even when dense, left out" for t in guessing]
    missing += [f"{t[0]['label']}: no human score, so no difficulty, left out" for t in unknown]
    if len(lines) < 5:
        missing.append(f"{_tasks(len(lines))}: 5 or more are needed for p ≤ 0.05 to be possible")
    model = rows[0]["_name"]
    title = f"{model} · {cells.way(rows[0], ('bits',))} · by difficulty"
    return _compare(
        title, "difficulty", rows, lines, missing, tolerance, difficulty_trends.rank_tests
    )


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'} of known difficulty"


def _name(row: Row, places: dict[tuple[str, str], list[Row]]) -> str:
    """A task's own name; with its split where there are two."""
    splits = sum(task == row["task"] for task, _ in places)
    return str(row["task"]) if splits == 1 else f"{row['task']} ({row['split']})"


def _difficulty(rows: list[Row]) -> float:
    return math.fsum(row["difficulty"] for row in rows) / len(rows)


def _within(
    rows: list[Row], column: str, tolerance: float, answers: predictions.Answers
) -> Comparison | None:
    places: dict[Any, list[Row]] = {}
    for row in rows:
        places.setdefault(row[column], []).append(row)
    if len(places) < 2:
        return None
    condition = CONDITIONS[column]
    ordered = sorted(places, key=condition.hardness)
    missing = [
        f"{condition.label(value)}: at chance level even when dense, left out"
        for value in ordered
        if chance.at_chance(places[value][0], answers)
    ]
    used = [value for value in ordered if not chance.at_chance(places[value][0], answers)]
    lines = [
        _line(condition.label(value), condition.hardness(value), places[value], answers)
        for value in used
    ]
    first = rows[0]
    title = f"{first['_name']} · {first['label']} · {cells.way(first, ('bits',))}"
    title = f"{title} · by {condition.title}"
    by_examples = _by_examples([places[value] for value in used], lines, answers)
    if by_examples is None:
        test = difficulty_trends.condition_tests
        return _compare(title, column, rows, lines, missing, tolerance, test)
    return _compare(
        title, column, rows, lines, [*missing, *by_examples.missing], tolerance,
        by_examples.test, seeds=False,
    )  # fmt: skip


class _ByExamples(NamedTuple):
    """A test of lines whose cells are one measurement each: on the examples that they share."""

    test: Callable[[Sequence[Line], Sequence[float]], Trends | None]
    missing: list[str]


def _by_examples(
    places: list[list[Row]], lines: list[Line], answers: predictions.Answers
) -> _ByExamples | None:
    """None where something was trained, so that other seeds would give other answers."""
    if len(lines) < 2 or any(row["data_fraction"] is not None for own in places for row in own):
        return None
    levels = sorted(set.intersection(*(set(line.drops) for line in lines)))
    chosen = [sorted((r for r in own if _level(r) in levels), key=_level) for own in places]
    drawn = resampling.together(chosen, answers) if levels else None
    if drawn is None or any(len(own) != len(levels) for own in chosen):
        return None
    drops, count = drawn
    own = np.array([[line.mean(level) for level in levels] for line in lines])

    def test(asked: Sequence[Line], at: Sequence[float]) -> Trends | None:
        if len(asked) < len(lines) or not set(at) <= set(levels):
            return None
        which = [levels.index(level) for level in at]
        return difficulty_trends.slope_tests(own[:, which], drops[:, :, which])

    trend, missing = difficulty_trends.slope_tests(own, drops)[1], []
    if trend.two_sided > ALPHA:
        needed = difficulty_trends.examples_needed(own, drops, count)
        missing.append(
            f"{count:,} examples show no slope that could be told from none"
            if needed is None or needed > MOST_TIMES * count
            else f"about {needed:,} examples would decide it, were the slope as large as on "
            f"these {count:,}"
        )
    return _ByExamples(test, missing)


def _compare(
    title: str,
    axis: str,
    rows: list[Row],
    lines: list[Line],
    missing: list[str],
    tolerance: float,
    test: Callable[[Sequence[Line], Sequence[float]], Trends | None],
    *,
    seeds: bool = True,
) -> Comparison:
    names = {_level(row): cells.level(row)[1] for row in rows}
    shared = [x for x in sorted(names) if lines and all(x in line.drops for line in lines)]
    found = test(lines, shared) if shared else None
    tests = []
    if found:
        tests = [_test(x, lines, one, [x]) for x, one in zip(shared, found[0], strict=True)]
    for level in (x for x in sorted(names) if x not in shared):
        there = [line for line in lines if level in line.drops]
        if alone := test(there, [level]):
            tests.append(_test(level, there, alone[1], [level]))
    overall = _test(None, lines, found[1], shared) if found else None
    if overall and 2 * overall.trend.least > ALPHA:
        least = min(1.0, 2 * overall.trend.least)
        missing = [*missing, f"with so few values no order has p below {least:.2g}"]
    if not shared and lines:
        missing = [*missing, "no sparsity was measured on all of them"]
    missing = [*missing, *difficulty_trends.gaps(lines, shared, names, seeds=seeds)]
    interaction = None
    if axis == "difficulty" and len(lines) > 2 and len(shared) > 1:
        slopes = np.array([[difficulty_trends.slope(line, shared) for line in lines]])
        interaction = statistics.rank_trends([line.order for line in lines], slopes)[1]
    return Comparison(title, axis, rows[0], tuple(lines), overall, tuple(tests), interaction,
                      {}, tuple(missing), names, tolerance)  # fmt: skip


def _test(
    level: float | None, lines: Sequence[Line], trend: Trend, levels: Sequence[float]
) -> Test:
    order = np.array([line.order for line in lines])
    harder = order[:, None] < order[None]  # the column is harder than the row
    against = 0
    for x in levels:
        means = np.array([line.mean(x) for line in lines])
        against += int((harder & (means[None] < means[:, None])).sum())
    return Test(level, len(lines), trend, against, int(harder.sum()) * len(levels))
