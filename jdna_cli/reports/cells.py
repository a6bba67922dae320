"""Cells of experiments: every finished measurement beside its dense run, over seeds.

The same as the views `performance` and `performance_drop` (a test compares them), with intervals,
for a selection of runs, and faster: 100,000 runs in about a second.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jdna_cli import amounts
from jdna_cli.reports import predictions, statistics
from jdna_cli.reports.query import Row, Source, short
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

# What is asked of which model, and under which conditions.
CONDITION_COLUMNS = ("model", "task", "metric", "split", "data_fraction", "options", "shots",
                     "book", "context_words", "pairs", "mixture", "sample", "adapter",
                     "recipe")  # fmt: skip
# What was taken from it, and how.
PRUNING_COLUMNS = ("regime", "criterion", "pattern", "scope", "prunable", "sparsity", "bits",
                   "quantization", "calibration", "schedule", "teacher", "allocation")  # fmt: skip
COLUMNS = (
    "model", "task", "metric", "split", "difficulty", "score", "dense_score", "mean_relative",
    "mean_relative_drop", "sd_relative_drop", "ci_low", "ci_high", "interval_over", "examples",
    "share_lost", "n", "chance",
    *PRUNING_COLUMNS[:7], "bits_per_weight", *PRUNING_COLUMNS[7:], *CONDITION_COLUMNS[4:],
)  # fmt: skip

# A cell's columns come as one JSON array, which is the same text for the same cell: reading 100,000
# runs is making objects of their words, most of the time. What are no integers comes beside it.
_BESIDE = ("data_fraction", "sparsity")
_IN_ARRAY = tuple(name for name in (*CONDITION_COLUMNS, *PRUNING_COLUMNS) if name not in _BESIDE)
_MEASURED = """
SELECT run.id, run.kind, metric.value, run.bits_per_weight, run.human, run.chance,
  CAST({}({}) AS TEXT), run.data_fraction, run.sparsity, run.pruning_seed, run.seed
FROM run JOIN metric ON metric.run = run.id AND metric.name = run.metric AND metric.step IS NULL
WHERE run.status = 'finished' AND run.kind IN ('finetune', 'eval'){} ORDER BY run.id"""


class Measured(NamedTuple):
    """One seed of a cell."""

    run: int
    score: float
    bits_per_weight: float | None
    seed: int | None
    pruning_seed: int | None
    dense_run: int | None
    dense_score: float | None
    relative: float | None


def load(source: Source) -> list[Row]:
    """All cells of the selection: the columns of `performance_drop`, an interval, and `_seeds`."""
    if "cells" not in source.remembered:
        source.remembered["cells"] = _load(source)
    # Labels are laid on each caller's own.
    return [dict(row) for row in source.remembered["cells"]]


def _load(source: Source) -> list[Row]:
    condition, values = source.filters.where()
    columns = ", ".join(f"{'metric' if n == 'split' else 'run'}.{n}" for n in _IN_ARRAY)
    found = source.query(_MEASURED.format(source.arrays, columns, condition), values).rows
    latest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for record in found:
        key = record[6:]
        before = latest.get(key)
        # Its fine-tuning counts, else the latest evaluation.
        if before is None or record[1] == "finetune" or before[1] != "finetune":
            latest[key] = record
    cells: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for key, record in latest.items():
        cells.setdefault(key[:3], []).append(record)
    kinds: dict[str, Row] = {}
    rows = [_blank(key, kinds) for key in cells]
    bases: _Bases = {}
    for row, members in zip(rows, cells.values(), strict=True):
        if row["regime"] != "dense" or row["sparsity"] or row["teacher"] is not None:
            continue
        own = bases.setdefault((row["recipe"], row["split"]), {})
        for record in members:
            this = (row["bits"] or 0, record[0], record[2])
            if record[-1] not in own or this > own[record[-1]]:
                own[record[-1]] = this
    answers = predictions.of(source)
    for row, members in zip(rows, cells.values(), strict=True):
        _fill(row, members, bases.get((row["recipe"], row["split"]), {}), answers)
    # Dense references alone are not what filters on the pruning asked for.
    return [] if source.filters.of_pruning and all(map(plain, rows)) else rows


# By recipe and split, by seed: bits, run and score of the dense run that counts.
_Bases = dict[tuple[str, str], dict[int | None, tuple[int, int, float]]]


def _blank(key: tuple[Any, ...], kinds: dict[str, Row]) -> Row:
    """A cell of which nothing was computed yet; `kinds` has those of the same words."""
    words, data_fraction, sparsity = key
    if words not in kinds:
        told = zip(_IN_ARRAY, json.loads(words), strict=True)
        kinds[words] = {**dict.fromkeys(COLUMNS), **dict(told)}
    return {**kinds[words], "data_fraction": data_fraction, "sparsity": sparsity}


def _fill(
    row: Row,
    members: list[tuple[Any, ...]],
    bases: dict[int | None, tuple[int, int, float]],
    answers: predictions.Answers,
) -> None:
    """Put in what the runs of a cell measured."""
    lower = row["metric"] in LOWER_IS_BETTER
    seeds = []
    for record in members:
        _, base, dense = bases.get(record[10], _NONE)
        relative = _relative(record[2], dense, lower=lower)
        own = (record[0], record[2], record[3], record[10], record[9], base, dense, relative)
        seeds.append(tuple.__new__(Measured, own))  # as `Measured(*own)`, in half the time
    seeds = _distinct(seeds, row["split"], answers)
    _, scores, bits, _, _, _, dense_scores, relatives = zip(*seeds, strict=True)
    row["n"], row["score"] = len(seeds), _mean(scores)
    row["bits_per_weight"] = _mean([x for x in bits if x])
    row["dense_score"] = _mean([x for x in dense_scores if x is not None])
    human = max({record[4] for record in members} - {None}, default=None)
    row["chance"] = max({record[5] for record in members} - {None}, default=None)
    if human and human > 0 and row["dense_score"] is not None:
        row["difficulty"] = (human - row["dense_score"]) / human
    drops = [1 - (x or 0.0) for x in relatives if x is not None]
    if drops:
        told = statistics.mean_interval(drops)
        row["mean_relative_drop"], row["mean_relative"] = told.mean, 1 - told.mean
        row["sd_relative_drop"] = told.deviation
        row["interval_over"] = "seeds" if told.low is not None else None
        if len(drops) == 1 and not plain(row):
            (known,) = (one for one in seeds if one.relative is not None)
            over = _over_examples(known, row, answers)
            told, row["examples"] = over or told, over.n if over else None
            row["interval_over"] = "examples" if told.low is not None else None
        row["ci_low"], row["ci_high"] = told.low, told.high
    chance, dense = row["chance"], row["dense_score"]
    if chance is not None and dense is not None and dense > chance and not lower:
        row["share_lost"] = (dense - row["score"]) / (dense - chance)
    row["_seeds"] = seeds


_NONE = (0, None, None)


def _distinct(seeds: list[Measured], split: str, answers: predictions.Answers) -> list[Measured]:
    """Seeds that changed an answer: where nothing is drawn, all of them are one measurement."""
    if len({(one.score, one.dense_score) for one in seeds}) == len(seeds):
        return seeds
    kept: list[Measured] = []
    for one in seeds:
        alike = (k for k in kept if (k.score, k.dense_score) == (one.score, one.dense_score))
        if not any(answers.same(k.run, one.run, split) for k in alike):
            kept.append(one)
    return kept


def _over_examples(
    one: Measured, row: Row, answers: predictions.Answers
) -> statistics.Interval | None:
    """The drop of a single seed over its examples; None where their answers were not saved."""
    if one.dense_run is None:
        return None
    found = [answers.of(run, row["split"], row["metric"]) for run in (one.dense_run, one.run)]
    if found[0] is None or found[1] is None or found[0].keys() != found[1].keys():
        return None
    dense, pruned = predictions.paired(found[0], found[1])
    metric = row["metric"]
    if metric not in LOWER_IS_BETTER and dense.mean() <= 0:
        return None
    return statistics.paired(dense, pruned, lambda a, b: 1 - predictions.relative(a, b, metric))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _relative(score: float, dense: float | None, *, lower: bool) -> float | None:
    if dense is None:
        return None
    if lower:
        return dense / score if score > 0 else None
    return score / dense if dense > 0 else None


def public(row: Row) -> Row:
    """A row without what is only of use to reports themselves."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


# ------------------------------------------------------------------------------------------- words


def plain(row: Row) -> bool:
    """Whether nothing was taken, and nobody taught: what the others are compared with."""
    return row["regime"] == "dense" and not row["pattern"] and not row["teacher"]


def levels_of(row: Row) -> str:
    """Levels of what there are: unstructured, N:M, bits; dense where nothing is taken."""
    if row["pattern"]:
        return "unstructured" if row["pattern"] == "unstructured" else "N:M"
    return "bits" if row["quantization"] else "dense"


def kind_of(row: Row) -> str:
    """What is taken, but for how much; of pruned weights, how what is left is rounded, too."""
    levels = levels_of(row)
    if levels == "bits":
        return str(row["quantization"].partition(" bits ")[2])
    return f"{levels}, {row['quantization']}" if row["quantization"] else levels


def level(row: Row) -> tuple[float, str]:
    """How much is taken, as a number that orders, and in words."""
    return _level(row["pattern"], row["quantization"], row["sparsity"])


@functools.cache
def _level(
    pattern: str | None, quantization: str | None, sparsity: float | None
) -> tuple[float, str]:
    if pattern:
        assert sparsity is not None
        return sparsity, amounts.weights(pattern, sparsity)
    if quantization:
        bits = int(quantization.partition(" ")[0])
        return -bits, f"{bits} bits"
    return 0.0, "dense"


def way(row: Row, without: Sequence[str] = ()) -> str:
    """How a model was made smaller, but for how much; `without` some columns."""
    told = {name: None if name in without else row[name] for name in PRUNING_COLUMNS}
    parts = [told["regime"]] if told["regime"] else []
    if told["criterion"]:
        scope = told["scope"]
        how = [told["criterion"], scope, told["allocation"]]
        parts.append(" ".join(word for word in how if word))
    if "pattern" not in without and kind_of(row) != "dense":
        parts.append(kind_of(row))
    parts += choices(told["prunable"])
    if told["bits"] not in (None, 32) and not row["quantization"]:
        parts.append(f"{told['bits']} bits")
    if told["calibration"]:
        parts.append(f"calibrated on {told['calibration']}")
    parts += [told["schedule"]] if told["schedule"] else []
    parts += [f"taught by {short(told['teacher'])}"] if told["teacher"] else []
    return " · ".join(parts)


def choices(prunable: str | None) -> list[str]:
    """Which tensors were pruned, and what was before, in words: without *pooler*."""
    names, _, before = (prunable or "").partition("after [")
    told = [{"+": "only ", "-": "without "}[name[0]] + name[1:] for name in names.split()]
    return [*told, f"after {before.removesuffix(']')}"] if before else told


def half(row: Row) -> float | None:
    """Half the width of the interval of the drop, in points; None where it is not known."""
    if row["ci_high"] is None:
        return None
    return float(50 * (row["ci_high"] - row["ci_low"]))


def percent(value: float | None) -> str:
    """A fraction in percent; nothing where there is none."""
    return "" if value is None else f"{100 * value:.1f}%".replace("-", "−")


def score(metric: str, value: float | None) -> str:
    """A score in percent; a perplexity as it is."""
    if value is None:
        return ""
    return f"{value:.1f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f}"
