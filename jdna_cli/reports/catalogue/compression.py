"""`compression`: pruning and quantisation side by side at equal size.

Size is bits of the prunable weights in their compact form, per weight: of a pruned tensor a bit
mask and the kept values, of a rounded one codes and scales. For each task, larger ones first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.reports import Query, Row, plots
from jdna_cli.reports.catalogue import drop
from jdna_cli.reports.tables import Section

EMPTY = "no pruned or rounded model with a compact form was measured yet"


def rows(query: Query) -> list[Row]:
    """Rows of `performance_drop` that have a size, smaller ones last within a task."""
    found = [row for row in drop.rows(query) if row["bits_per_weight"] is not None]
    order = {row["label"]: i for i, row in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda row: (order[row["label"]], -row["bits_per_weight"]))


def _way(row: Row) -> str:
    """How it was made smaller, but for how much."""
    parts = [row["regime"]]
    if row["criterion"]:
        parts.append(f"{row['criterion']}{' ' + row['scope'] if row['scope'] else ''}")
    parts.append(drop.kind_of(row))
    parts += [row["schedule"]] if row["schedule"] else []
    parts += ["taught"] if row["teacher"] else []
    return " · ".join(parts)


def _amount(row: Row) -> str:
    if row["quantization"]:
        return str(row["quantization"].partition(" bits ")[0]) + " bits"
    return f"{row['sparsity']:.0%}" if row["pattern"] == "unstructured" else str(row["pattern"])


def _by_task(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["model"], row["prunable"], row["label"], row["split"], row["recipe"])
        found.setdefault(key, []).append(row)
    return found


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per model and task."""
    found = []
    for (model, prunable, label, _, _), own in _by_task(rows).items():
        table = [
            [
                _way(row),
                _amount(row),
                f"{row['bits_per_weight']:.2f}",
                drop.score(row["metric"], row["score"]),
                drop.cell(row),
                str(row["n"]),
            ]
            for row in own
        ]
        chosen = f" · {prunable}" if prunable else ""
        dense = drop.score(own[0]["metric"], own[0]["dense_score"]) or "not measured"
        title = f"Compression · {drop.short(model)}{chosen} · {label} · dense {dense}"
        columns = ("way", "amount", "bits per weight", own[0]["metric"], "drop", "seeds")
        note = (
            "Bits per prunable weight in the compact form (mask and kept values, or codes and "
            "scales), for values of the type that was stored; drop in % of the dense score."
        )
        found.append(Section(title, columns, table, (note,)))
    return found


def figure(rows: Sequence[Row], path: Path) -> None:
    """Relative performance against bits per weight, a line per way, a panel per task."""
    found = []
    for (model, _, label, _, _), own in _by_task(rows).items():
        ways: dict[str, list[Row]] = {}
        for row in own:
            if row["mean_relative"] is not None:
                ways.setdefault(_way(row), []).append(row)
        lines = [
            plots.Line(
                way,
                tuple(row["bits_per_weight"] for row in points),
                tuple(100 * row["mean_relative"] for row in points),
                tuple(
                    None if row["sd_relative_drop"] is None else 100 * row["sd_relative_drop"]
                    for row in points
                ),
            )
            for way, points in ways.items()
        ]
        if lines:
            title = f"{drop.short(model)} · {label}"
            found.append(plots.Panel(title, "bits per prunable weight", tuple(lines)))
    if not found:
        raise RequestError("--plot: no pruned or rounded run has a dense one beside it yet")
    plots.panels(found, "relative performance (% of dense)", 100.0, drop.seeds_note(rows), path)
