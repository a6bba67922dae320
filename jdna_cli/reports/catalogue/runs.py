"""`runs`: the selected runs themselves, one row each, in full."""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli import amounts
from jdna_cli.reports import cells
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "The recorded runs"
EMPTY = "no run is recorded yet"
SHOWN = 200  # in a table; the data forms have all

_RUNS = """
SELECT run.id, run.kind, run.status, run.model, run.task, run.metric, result.split,
  result.value AS score, run.regime, run.criterion, run.pattern, run.scope, run.allocation,
  run.sparsity,
  run.sparsity_reached, run.quantization, run.teacher, run.data_fraction, run.seed, run.parent,
  run.started_at, run.finished_at, run.device, run.remark, run.error
FROM run LEFT JOIN metric AS result
  ON result.run = run.id AND result.name = run.metric AND result.step IS NULL
WHERE 1 = 1"""


def rows(source: Source) -> list[Row]:
    """One row per run and split that it was measured on, whatever became of it."""
    return source.records(_RUNS, "ORDER BY run.id")


def sections(rows: Sequence[Row]) -> list[Section]:
    """The latest runs."""
    table = [
        [
            str(row["id"]),
            row["kind"],
            row["status"],
            row["_name"] if row["model"] else "",
            row["task"] or "",
            row["regime"] or "",
            amounts.taken(row),
            "" if row["seed"] is None or row["kind"] == "prune" else str(row["seed"]),
            "" if row["score"] is None else cells.score(row["metric"], row["score"]),
            row["error"] or row["remark"] or "",
        ]
        for row in rows[-SHOWN:]
    ]
    if not table:
        return []
    left = len(rows) - len(table)
    notes = (f"The latest {SHOWN}; {left:,} earlier ones: --format csv has all.",) if left else ()
    columns = ("run", "kind", "status", "model", "task", "regime", "pruned", "seed", "score",
               "remark")  # fmt: skip
    return [Section("Runs", columns, table, notes)]


def figure(rows: Sequence[Row]) -> Figure:
    """Scores in the order of the runs, a line per task."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        if row["score"] is not None:
            tasks.setdefault(row["task"], []).append(row)
    lines = tuple(
        Line(task, tuple(float(r["id"]) for r in own), tuple(100 * r["score"] for r in own),
             (None,) * len(own), joined=False)
        for task, own in tasks.items()
    )  # fmt: skip
    panels = (Panel("Scores", "number of the run", lines),) if lines else ()
    return Figure(panels, "score (%)", None, "one point per measured run and split", "Runs")
