"""Is the hypothesis borne out? Tests on cells: across tasks by difficulty, within one by condition.

Across tasks the statistic is Spearman's correlation of difficulty and mean drop, averaged over the
sparsities that all tasks share, with the p-value of permuting the tasks. Within a task the levels
of a condition (shares of the data, options, …) are ordered: Page's test where each seed has all
levels, else Jonckheere and Terpstra's. p-values are two-sided, and adjusted by Holm's method for
the number of comparisons in a report.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jdna_cli.difficulty import CONDITIONS
from jdna_cli.reports import cells, difficulty_trends, predictions, resampling, statistics
from jdna_cli.reports.difficulty_trends import Line, Threshold, Trends
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.statistics import Trend
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

ALPHA = 0.05
AT_CHANCE = 0.1  # of the way from chance to a perfect score, where no answers were saved
BORNE, AGAINST, OPEN = "borne out", "contradicted", "undecided"
_GROUP = ("model", "regime", "criterion", "scope", "prunable", "calibration", "schedule", "teacher")


@dataclass(frozen=True)
class Test:
    """The trend at one sparsity, or over all that the lines share (`level` is None)."""

    level: float | None
    lines: int
    trend: Trend
    against: int  # pairs of lines of which the harder one dropped less
    pairs: int
    adjusted: float = 1.0


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

    @property
    def decision(self) -> str:
        """What it says about the hypothesis, at 5 %."""
        if self.overall is None or self.overall.adjusted > ALPHA:
            return OPEN
        return BORNE if self.overall.trend.rising < self.overall.trend.falling else AGAINST


def judge(source: Source) -> list[Comparison]:
    """All comparisons that the selected runs allow, adjusted for their number."""
    if "verdicts" not in source.remembered:
        source.remembered["verdicts"] = _judge(source)
    judgements: list[Comparison] = source.remembered["verdicts"]
    return judgements


def _judge(source: Source) -> list[Comparison]:
    rows, answers = cells.labelled(source), predictions.of(source)
    found = [_across(own, source.tolerance, answers) for own in _by(rows, _across_key).values()]
    for column in CONDITIONS:
        if len({row[column] for row in rows if row[column] is not None}) < 2:
            continue
        labelled = [row for row in cells.labelled(source, (column,)) if row[column] is not None]
        for own in _by(labelled, _within_key).values():
            found.append(_within(own, column, source.tolerance, answers))
    kept = [one for one in found if one is not None]
    tested = [one for one in kept if one.overall is not None]
    values = [one.overall.trend.two_sided for one in tested if one.overall]
    adjusted = dict(zip(map(id, tested), statistics.holm(values), strict=True))
    return [
        replace(one, overall=replace(one.overall, adjusted=adjusted[id(one)]))
        if one.overall
        else one
        for one in kept
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
    return Line(label, order, drops, means, resampled)


@functools.cache
def _chance_of(task: str) -> float | None:
    """Of a built-in task, for runs that were recorded before it was."""
    from jdna_cli.tasks.built_in import all_tasks

    found = all_tasks().get(task)
    return found.chance if found else None


def chance(row: Row) -> float | None:
    """What guessing scores on a cell's task."""
    known = row["chance"]
    return float(known) if known is not None else _chance_of(row["task"])


def at_chance(row: Row, answers: predictions.Answers) -> bool:
    """Whether even the dense model does not do better than guessing.

    It does where the 95 % interval of its score over the examples (means over seeds) lies above
    chance. Where their answers were not saved: where it came a tenth of the way to a perfect score.
    """
    guess = chance(row)
    if guess is None or row["dense_score"] is None or row["metric"] in LOWER_IS_BETTER:
        return False
    found = [
        answers.of(one.dense_run, row["split"], row["metric"])
        for one in row["_seeds"]
        if one.dense_run is not None
    ]
    known = [one for one in found if one is not None]
    if not known or any(one.keys() != known[0].keys() for one in known):
        return bool(row["dense_score"] - guess <= AT_CHANCE * (1 - guess))
    means = np.array([[one[name] for name in known[0]] for one in known]).mean(axis=0)
    over = statistics.mean_of_examples(means)
    return (over.mean if over.low is None else over.low) <= guess


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
    guessing = [there for there in best.values() if at_chance(there[0], answers)]
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
        if at_chance(places[value][0], answers)
    ]
    used = [value for value in ordered if not at_chance(places[value][0], answers)]
    lines = [
        _line(condition.label(value), condition.hardness(value), places[value], answers)
        for value in used
    ]
    first = rows[0]
    title = f"{first['_name']} · {first['label']} · {cells.way(first, ('bits',))}"
    return _compare(
        f"{title} · by {condition.title}",
        column,
        rows,
        lines,
        missing,
        tolerance,
        difficulty_trends.condition_tests,
    )


def _compare(
    title: str,
    axis: str,
    rows: list[Row],
    lines: list[Line],
    missing: list[str],
    tolerance: float,
    test: Callable[[Sequence[Line], Sequence[float]], Trends | None],
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
    missing = [*missing, *difficulty_trends.gaps(lines, shared, names)]
    interaction = None
    if axis == "difficulty" and len(lines) > 2 and len(shared) > 1:
        slopes = np.array([[difficulty_trends.slope(line, shared) for line in lines]])
        interaction = statistics.rank_trends([line.order for line in lines], slopes)[1]
    adjusted = statistics.holm([one.trend.two_sided for one in tests])
    tests = [replace(one, adjusted=p) for one, p in zip(tests, adjusted, strict=True)]
    rounded = bool(rows[0]["quantization"])
    thresholds = {} if rounded else difficulty_trends.thresholds(lines, tolerance)
    return Comparison(title, axis, rows[0], tuple(lines), overall, tuple(tests), interaction,
                      thresholds, tuple(missing), names, tolerance)  # fmt: skip


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


def one_threshold(comparison: Comparison) -> str | None:
    """Whether one sparsity would serve all lines, in words; None where nothing is known."""
    found = comparison.thresholds
    if len(found) < 2:
        return None
    least, most = min(found, key=lambda n: found[n][0]), max(found, key=lambda n: found[n][0])
    told = (
        f"critical sparsities (a drop of {comparison.tolerance:.1%}) go from "
        f"{found[least][0]:.0%} ({least}) to {found[most][0]:.0%} ({most})"
    )
    highs = [high for _, _, high in found.values() if high is not None]
    lows = [low for _, low, _ in found.values() if low is not None]
    if len(highs) < len(found):
        return f"{told}; with one seed it is not known whether one threshold would serve all"
    if max(lows) > min(highs):
        return f"no one threshold serves all: {told}, and their 95 % intervals do not meet"
    return f"one threshold may serve all: {told}, but their 95 % intervals share a value"


def sentence(comparisons: Sequence[Comparison]) -> str:
    """The answer in a sentence or two."""
    if not comparisons:
        return "Nothing to judge: no two tasks, or levels of a task, were pruned alike."
    counts = {
        word: sum(one.decision == word for one in comparisons) for word in (BORNE, AGAINST, OPEN)
    }
    total = len(comparisons)
    of = f"{total} comparison{'' if total == 1 else 's'}"
    if counts[BORNE] and not counts[AGAINST]:
        head = "The hypothesis is borne out: drops grow with difficulty"
    elif counts[AGAINST] and not counts[BORNE]:
        head = "The hypothesis is contradicted: drops shrink as difficulty grows"
    elif counts[BORNE]:
        head = "The evidence is mixed"
    else:
        rising = sum(
            one.overall.trend.value > one.overall.trend.null for one in comparisons if one.overall
        )
        tested = sum(one.overall is not None for one in comparisons)
        if not tested:
            which = "the only comparison" if total == 1 else f"each of {of}"
            return f"Undecided: {which} lacks the tasks, levels or seeds that a test needs."
        which = "the only comparison" if total == 1 else f"none of {of}"
        no = "not " if total == 1 else ""
        return (
            f"Undecided: in {which} the trend of drop over difficulty is {no}clear at 5 % "
            f"(drops grow with difficulty in {rising} of the {tested} that could be tested)."
        )
    return (
        f"{head}. Of {of}: borne out in {counts[BORNE]}, contradicted in {counts[AGAINST]}, "
        f"undecided in {counts[OPEN]} (two-sided tests at 5 %, adjusted for their number)."
    )
