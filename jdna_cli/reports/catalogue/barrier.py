"""`barrier`: the loss along the straight line between two models, and how high it rises (E9)."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli import amounts
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section, sparkline

HEADING = "On the way from dense to pruned"
EMPTY = "no line between two models was measured yet: `jdna interpolate run:A run:B --task T` does"

_POINTS = """
SELECT run.id AS run_id, run.model, run.task, run.metric, run.parent AS first_run_id,
  run.other AS second_run_id, first.regime AS first_regime, second.regime AS second_regime,
  second.criterion, second.pattern, second.sparsity, second.seed, point.alpha, point.loss,
  point.score
FROM run JOIN point ON point.run = run.id
  LEFT JOIN run AS first ON first.id = run.parent
  LEFT JOIN run AS second ON second.id = run.other
WHERE run.status = 'finished'"""


def rows(source: Source) -> list[Row]:
    """One row per point of every line, with the height of its line's barrier."""
    rows = source.records(_POINTS, "ORDER BY run.id, point.alpha")
    for own in _lines(rows).values():
        first, last = own[0], own[-1]
        for row in own:
            chord = (1 - row["alpha"]) * first["loss"] + row["alpha"] * last["loss"]
            row["above_chord"] = row["loss"] - chord
        barrier = max(row["above_chord"] for row in own)
        for row in own:
            row["barrier"] = barrier
    return rows


def _lines(rows: Sequence[Row]) -> dict[int, list[Row]]:
    lines: dict[int, list[Row]] = {}
    for row in rows:
        lines.setdefault(row["run_id"], []).append(row)
    return lines


def _end(row: Row, which: str) -> str:
    number, regime = row[f"{which}_run_id"], row[f"{which}_regime"]
    return f"run {number}{f' ({regime})' if regime else ''}" if number else "a model of no run"


def _what(row: Row) -> str:
    if not row["pattern"]:
        return "dense"
    return f"{amounts.weights(row['pattern'], row['sparsity'])} {row['criterion'] or ''}".strip()


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model, a row per line."""
    tables: dict[str, list[list[str]]] = {}
    for number, own in _lines(rows).items():
        first, last = own[0], own[-1]
        losses = [row["loss"] for row in own]
        height = max(losses) or 1.0
        tables.setdefault(first["_name"], []).append(
            [
                f"run {number}",
                first["task"],
                f"{_end(first, 'first')} → {_end(first, 'second')}",
                _what(first),
                f"{first['loss']:.4f}",
                f"{max(losses):.4f}",
                f"{last['loss']:.4f}",
                sparkline([loss / height for loss in losses]),
                f"{first['barrier']:.4f}",
            ]
        )
    columns = ("line", "task", "from → to", "pruned", "first loss", "highest", "last loss", "loss",
               "barrier")  # fmt: skip
    note = (
        "Barrier: max over α of loss((1−α)A + αB) − ((1−α) loss(A) + α loss(B)); 0 is none. The "
        "ends are measured too."
    )
    return [
        Section(f"Loss barrier · {model}", columns, table, (note,))
        for model, table in tables.items()
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """Loss along each line, a panel per model and task."""
    places: dict[tuple[str, str], list[Line]] = {}
    for number, own in _lines(rows).items():
        name = f"run {number}: {_what(own[0])}, barrier {own[0]['barrier']:.3g}"
        x, y = tuple(row["alpha"] for row in own), tuple(row["loss"] for row in own)
        places.setdefault((own[0]["_name"], own[0]["task"]), []).append(
            Line(name, x, y, (None,) * len(x))
        )
    panels = [
        Panel(f"{model} · {task}", "α: 0 = first model, 1 = second", tuple(lines))
        for (model, task), lines in places.items()
    ]
    return Figure(tuple(panels), "loss", None, "one line per interpolation", "Loss barrier")
