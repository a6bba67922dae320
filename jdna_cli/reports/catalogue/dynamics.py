"""`dynamics`: what fine-tuning does to the small and to the large weights, over its steps.

Distances are root mean squares in units of a tensor's own pre-trained root mean square, means over
tensors. The rows (csv, json) hold every tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from jdna_cli import amounts
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "How weights move in training"
EMPTY = "no fine-tuning recorded its dynamics yet: `jdna finetune … --dynamics` does"
_MEASURES = {
    "moved_small": "small: distance",
    "moved_large": "large: distance",
    "regrown": "regrown",
    "flips": "sign flips",
    "overlap": "overlap",
}

_ROWS = """
SELECT dynamics.run, run.model, run.task, run.regime, run.criterion, run.pattern, run.sparsity,
  run.quantization, run.teacher, run.seed, dynamics.tensor, dynamics.step, dynamics.moved_small,
  dynamics.moved_large, dynamics.regrown, dynamics.regrown_size, dynamics.flips, dynamics.overlap
FROM dynamics JOIN run ON run.id = dynamics.run
WHERE run.status = 'finished'"""


def rows(source: Source) -> list[Row]:
    """One row for each run, tensor and recorded step."""
    return source.records(_ROWS, "ORDER BY dynamics.run, dynamics.step, dynamics.tensor")


def _by_run(rows: Sequence[Row]) -> dict[int, dict[int, list[Row]]]:
    """Rows of all tensors by run and step."""
    by_run: dict[int, dict[int, list[Row]]] = {}
    for row in rows:
        by_run.setdefault(row["run"], {}).setdefault(row["step"], []).append(row)
    return by_run


def _mean(rows: list[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return fmean(known) if known else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def sections(rows: Sequence[Row]) -> list[Section]:
    """Where each run ended."""
    table = []
    for number, steps in _by_run(rows).items():
        last = max(steps)
        own = steps[last]
        table.append(
            [
                f"run {number}",
                f"{own[0]['_name']} · {own[0]['task']}",
                _what(own[0]),
                str(last),
                *(_percent(_mean(own, name)) for name in _MEASURES),
            ]
        )
    if not table:
        return []
    columns = ("run", "model · task", "regime", "steps", *_MEASURES.values())
    notes = (
        "In %, means over tensors at the last step. Small: the weights that pruning chose, or "
        "where nothing was pruned the smaller half; distance: root mean square of the change, in "
        "units of the tensor's pre-trained root mean square; overlap: share of the small weights "
        "that are among as many smallest ones at the end.",
    )
    return [Section("Dynamics of fine-tuning", columns, table, notes)]


def _what(row: Row) -> str:
    amount = ""
    if row["pattern"]:
        amount = f" {amounts.weights(row['pattern'], row['sparsity'])}"
    if row["quantization"]:
        amount += f" {row['quantization']}"
    return f"{row['regime']}{amount} · seed {row['seed']}"


def figure(rows: Sequence[Row]) -> Figure:
    """Every measure over the steps, a panel per run (the latest nine)."""
    found = []
    for number, steps in list(_by_run(rows).items())[-9:]:
        lines = []
        for name, label in _MEASURES.items():
            known: list[tuple[int, float]] = [
                (step, mean)
                for step, own in sorted(steps.items())
                if (mean := _mean(own, name)) is not None
            ]
            if known:
                x, y = zip(*known, strict=True)
                spread: tuple[Any, ...] = (None,) * len(x)
                heights = tuple(100 * value for value in y)
                lines.append(Line(label, tuple(map(float, x)), heights, spread))
        first = next(iter(steps.values()))[0]
        title = f"run {number} · {first['task']} · {_what(first)}"
        found.append(Panel(title, "optimiser steps", tuple(lines)))
    return Figure(tuple(found), "% (see the table's note)", None, "means over tensors", "Dynamics")
