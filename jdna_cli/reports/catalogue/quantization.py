"""`quantization`: pruning and quantization side by side at equal size.

Size is bits of the prunable weights in their compact form, per weight: of a pruned tensor a bit
mask and the kept values, of a rounded one codes and scales. For each task, larger ones first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jdna_cli.reports import cells, curves, labels
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "With fewer bits"
EMPTY = "no pruned or rounded model with a compact form was measured yet"


def rows(source: Source) -> list[Row]:
    """All cells that have a size, smaller ones last within a task."""
    found = [row for row in labels.labelled(source) if row["bits_per_weight"] is not None]
    order = {row["label"]: i for i, row in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda row: (order[row["label"]], -row["bits_per_weight"]))


def _way(row: Row) -> str:
    """How it was made smaller, but for how much."""
    parts = [row["regime"]]
    if row["criterion"]:
        parts.append(f"{row['criterion']}{' ' + row['scope'] if row['scope'] else ''}")
    parts.append(cells.kind_of(row))
    parts += [row["schedule"]] if row["schedule"] else []
    parts += ["taught"] if row["teacher"] else []
    return " · ".join(parts)


def _amount(row: Row) -> str:
    return cells.level(row)[1]


def _by_task(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    by_task: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["model"], row["prunable"], row["label"], row["split"], row["recipe"])
        by_task.setdefault(key, []).append(row)
    return by_task


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model and task."""
    sections = []
    for (_, prunable, label, _, _), own in _by_task(rows).items():
        table = [
            [
                _way(row),
                _amount(row),
                f"{row['bits_per_weight']:.2f}",
                cells.score(row["metric"], row["score"]),
                curves.cell(row),
                str(row["n"]),
            ]
            for row in own
        ]
        chosen = "".join(f" · {words}" for words in cells.choices(prunable))
        dense = cells.score(own[0]["metric"], own[0]["dense_score"]) or "not measured"
        title = f"Compression · {own[0]['_name']}{chosen} · {label} · dense {dense}"
        columns = ("way", "amount", "bits per weight", own[0]["metric"], "drop", "seeds")
        note = (
            "Bits per prunable weight in the compact form (mask and kept values, or codes and "
            "scales), for values of the type that was stored; drop in % of the dense score."
        )
        sections.append(Section(title, columns, table, (note,)))
    return sections


def figure(rows: Sequence[Row]) -> Figure:
    """Relative performance against bits per weight, a line per way, a panel per task."""
    found = []
    for (_, _, label, _, _), own in _by_task(rows).items():
        ways: dict[str, list[Row]] = {}
        for row in own:
            if row["mean_relative"] is not None:
                ways.setdefault(_way(row), []).append(row)
        lines = [
            Line(
                way,
                tuple(row["bits_per_weight"] for row in points),
                tuple(100 * row["mean_relative"] for row in points),
                tuple(cells.half(row) for row in points),
            )
            for way, points in ways.items()
        ]
        if lines:
            title = f"{own[0]['_name']} · {label}"
            found.append(Panel(title, "bits per prunable weight", tuple(lines)))
    return Figure(
        tuple(found),
        "relative performance (% of dense)",
        100.0,
        curves.seeds_note(rows),
        "Compression at equal size",
    )
