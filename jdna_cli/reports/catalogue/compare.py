"""`compare`: two runs on the same examples: `--run A --run B`; paired bootstrap and McNemar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdna_cli.errors import RequestError
from jdna_cli.reports import cells, predictions, statistics
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

HEADING = "Two runs on the same examples"
EMPTY = "the two runs have no predictions on a shared split"

_RUNS = "SELECT id, kind, status, model, task, metric, artifact, spec FROM run WHERE id IN (?, ?)"


def rows(source: Source) -> list[Row]:
    """One row for each split that both were measured on."""
    if len(set(source.runs)) != 2:
        raise RequestError("compare: name the two runs, as in --run 3 --run 7")
    there = {row["id"]: row for row in source.query(_RUNS, source.runs).records()}
    for number in source.runs:
        if number not in there:
            raise RequestError(f"--run: there is no run {number}")
    first, second = (there[number] for number in source.runs)
    for one in (first, second):
        if one["kind"] not in ("finetune", "eval") or one["status"] != "finished":
            raise RequestError(
                f"--run: run {one['id']} is {one['status']} ({one['kind']}): only a finished "
                "fine-tuning or evaluation has answers"
            )
    if first["task"] != second["task"]:
        raise RequestError(
            f"run {first['id']} is on {first['task']}, run {second['id']} on {second['task']}: "
            "only answers to the same examples can be compared"
        )
    rows, answers = [], predictions.of(source)
    for split in _splits(predictions.folder(source, first["artifact"] or "")):
        both = [answers.of(r["id"], split, r["metric"]) for r in (first, second)]
        if both[0] is not None and both[1] is not None:
            rows.append(_row(first, second, split, both[0], both[1]))
    return rows


def _splits(folder: Path) -> list[str]:
    names = sorted(file.stem for file in folder.glob("predictions-*.jsonl"))
    return [name.removeprefix("predictions-") for name in names]


def _row(
    first: Row, second: Row, split: str, one: dict[str, float], other: dict[str, float]
) -> Row:
    a, b = predictions.paired(one, other)
    metric = first["metric"]
    apart = statistics.paired(
        a, b, lambda x, y: predictions.of_means(y, metric) - predictions.of_means(x, metric)
    )
    if apart.low == apart.high:  # of two runs with the same answers
        apart = apart._replace(low=None, high=None)
    scores = [float(predictions.of_means(own.mean(), metric)) for own in (a, b)]
    row: Row = {
        "first": first["id"], "second": second["id"], "task": first["task"],
        "metric": first["metric"], "split": split, "examples": len(a),
        "first_score": scores[0], "second_score": scores[1],
        "difference": apart.mean, "ci_low": apart.low, "ci_high": apart.high,
        "only_first": None, "only_second": None, "mcnemar_p": None,
        "differs_in": _differs(first["spec"], second["spec"]),
    }  # fmt: skip
    if set(np.unique(np.concatenate([a, b]))) <= {0.0, 1.0}:
        lost, won, p = statistics.mcnemar(a > 0.5, b > 0.5)
        row |= {"only_first": lost, "only_second": won, "mcnemar_p": p}
    return row


def _differs(first: Any, second: Any) -> str:
    """The fields in which two requests differ, in words."""
    one, other = (json.loads(s) if isinstance(s, str) else s for s in (first, second))
    names = [n for n in {**one, **other} if one.get(n) != other.get(n)]
    return ", ".join(f"{n} {_said(one.get(n))} → {_said(other.get(n))}" for n in names)


def _said(value: Any) -> str:
    """A setting in words; none where it is not made."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return {None: "none", True: "yes", False: "no"}.get(value, str(value))


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table, a row per split."""
    if not rows:
        return []
    table = [
        [
            row["split"],
            str(row["examples"]),
            cells.score(row["metric"], row["first_score"]),
            cells.score(row["metric"], row["second_score"]),
            _signed(row, "difference"),
            ""
            if row["ci_low"] is None
            else f"{_signed(row, 'ci_low')} to {_signed(row, 'ci_high')}",
            "" if row["only_first"] is None else f"{row['only_first']} / {row['only_second']}",
            "" if row["mcnemar_p"] is None else f"{row['mcnemar_p']:.3g}",
        ]
        for row in rows
    ]
    one = rows[0]
    title = f"run {one['first']} against run {one['second']} · {one['task']} · {one['metric']}"
    windows = one["metric"] in LOWER_IS_BETTER
    columns = ("split", "windows" if windows else "examples", "first", "second", "difference",
               "95 % interval", "only first / second right", "McNemar p")  # fmt: skip
    notes = (
        f"They differ in: {one['differs_in'] or 'nothing that was asked'}.",
        "Perplexities as they are, lower is better; interval: paired bootstrap over windows. It "
        "says how sure the difference is for these two models, not for other seeds."
        if windows
        else "Points of the metric; interval: paired bootstrap over examples; McNemar: exact, "
        "two-sided. Both say how sure the difference is for these two models, not for other seeds.",
    )
    return [Section(title, columns, table, notes)]


def _scale(row: Row) -> float:
    """Of a difference: points of a score, a perplexity as it is."""
    return 1.0 if row["metric"] in LOWER_IS_BETTER else 100.0


def _signed(row: Row, name: str) -> str:
    return f"{_scale(row) * row[name]:+.1f}".replace("-", "−")


def figure(rows: Sequence[Row]) -> Figure:
    """The difference with its interval, by split."""
    points = [row for row in rows if row["ci_low"] is not None]
    if not points:
        return Figure((), "")
    line = Line(
        "second − first",
        tuple(float(i) for i in range(len(points))),
        tuple(_scale(row) * row["difference"] for row in points),
        tuple(_scale(row) * (row["ci_high"] - row["ci_low"]) / 2 for row in points),
        joined=False,
    )
    ticks = tuple((float(i), row["split"]) for i, row in enumerate(points))
    title = f"run {rows[0]['first']} against run {rows[0]['second']}"
    panel = Panel(title, "split", (line,), ticks)
    unit = "points" if _scale(rows[0]) > 1 else rows[0]["metric"]
    return Figure((panel,), f"difference ({unit})", 0.0, "bars: 95 % paired bootstrap", title)
