"""`sizes`: small networks against large ones (E15): score by weights that are left.

A dense small model and a pruned large one stand side by side where they have as many prunable
weights that are not zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from jdna_cli.reports import cells, labels
from jdna_cli.reports.curves import seeds_note
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "Small models and large ones"
EMPTY = "no task was measured with two models, each dense and pruned, yet"

# How many prunable weights a model has: told by the runs that pruned it.
_SIZES = """
SELECT model, MAX(total) FROM (
  SELECT run.model AS model, SUM(layer.total) AS total
  FROM layer JOIN run ON run.id = layer.run WHERE run.status = 'finished'
  GROUP BY layer.run, run.model
) AS sums GROUP BY model
"""


def rows(source: Source) -> list[Row]:
    """Cells of tasks that two models or more were measured on, with the weights that are left."""
    sizes = {model: int(total) for model, total in source.query(_SIZES, ()).rows}
    found = [
        {**row, "prunable_weights": sizes[row["model"]],
         "weights_left": round(sizes[row["model"]] * (1 - (row["sparsity"] or 0.0)))}
        for row in labels.labelled(source) if sizes.get(row["model"])
    ]  # fmt: skip
    models: dict[str, set[str]] = {}
    for row in found:
        models.setdefault(row["_family"], set()).add(row["model"])
    return [row for row in found if len(models[row["_family"]]) > 1]


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["split"]), []).append(row)
    return groups


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per task, from the most weights left to the fewest."""
    sections = []
    for (label, _), own in _groups(rows).items():
        ordered = sorted(own, key=lambda row: (-row["weights_left"], row["model"]))
        table = [
            [
                row["_name"],
                "dense" if cells.plain(row) else f"{cells.level(row)[1]} · {cells.way(row)}",
                f"{row['weights_left']:,}",
                cells.score(row["metric"], row["score"]),
                str(row["n"]),
            ]
            for row in ordered
        ]
        columns = ("model", "what", "weights left", own[0]["metric"], "seeds")
        note = "Weights left: prunable weights that are not zero. Scores as they are, in %."
        sections.append(Section(f"Sizes · {label}", columns, table, (note,)))
    return sections


def figure(rows: Sequence[Row]) -> Figure:
    """Score against weights left, a line per model."""
    panels = []
    for (label, _), own in _groups(rows).items():
        lines: dict[str, list[Row]] = {}
        for row in own:
            way = "" if cells.plain(row) else f" · {cells.way(row)}"
            lines.setdefault(f"{row['_name']}{way}", []).append(row)
        drawn = []
        for name, there in lines.items():
            points = sorted(there, key=lambda row: row["weights_left"])
            x = tuple(float(row["weights_left"]) for row in points)
            y = tuple(100 * row["score"] for row in points)
            drawn.append(Line(name, x, y, (None,) * len(x)))
        panels.append(Panel(label, "prunable weights left", tuple(drawn), logarithmic=True))
    return Figure(tuple(panels), "score (%)", None, seeds_note(rows), "Sizes")
