"""`scan`: what each kind of matrix of each block is worth to a task, pruned alone (`jdna scan`).

Rise of the loss without training; rows are blocks, columns kinds of matrices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jdna_cli.amounts import percent
from jdna_cli.reports import scans
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure
from jdna_cli.reports.rendering.tables import Section
from jdna_cli.results import Sensitivity

HEADING = "Where a model is sensitive"
EMPTY = "nothing was scanned yet: `jdna scan MODEL --task T` prunes each matrix alone"

_UNITS = """
SELECT run.id AS run_id, run.model, run.task, run.metric, run.criterion, run.scope, run.sample,
  sensitivity.block, sensitivity.matrix, sensitivity.sparsity, sensitivity.tensors,
  sensitivity.weights, sensitivity.loss, sensitivity.score, dense.value AS dense_loss
FROM run JOIN sensitivity ON sensitivity.run = run.id
  JOIN metric AS dense ON dense.run = run.id AND dense.name = 'loss' AND dense.step IS NULL
WHERE run.status = 'finished'"""


def rows(source: Source) -> list[Row]:
    """One row per unit and sparsity of every scan."""
    rows = source.records(_UNITS, "ORDER BY run.id, sensitivity.block, sensitivity.matrix")
    for row in rows:
        if isinstance(row["tensors"], str):
            row["tensors"] = json.loads(row["tensors"])
        row["rise"] = row["loss"] - row["dense_loss"]
    return rows


def _scans(rows: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(row)
    return found


def _units(rows: Sequence[Row]) -> list[Sensitivity]:
    return [
        Sensitivity(row["block"], row["matrix"], row["sparsity"], tuple(row["tensors"]),
                    row["weights"], row["loss"], row["score"])
        for row in rows
    ]  # fmt: skip


def _name(row: Row) -> str:
    drawn = f" ({row['sample']} drawn)" if row["sample"] else ""
    return f"run {row['run_id']} · {row['_name']} on {row['task']}{drawn} · {row['criterion']}"


def sections(rows: Sequence[Row]) -> list[Section]:
    """A table per scan and sparsity."""
    return [
        section
        for own in _scans(rows).values()
        for section in scans.grid(_units(own), own[0]["dense_loss"], _name(own[0]))
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """A heat map per scan and sparsity."""
    panels = [
        scans.heat(units, own[0]["dense_loss"], sparsity, f"{_name(own[0])} · {percent(sparsity)}")
        for own in _scans(rows).values()
        for units in [_units(own)]
        for sparsity in scans.sparsities(units)
    ]
    note = "each matrix pruned alone, without training: how far the loss rises"
    return Figure(tuple(panels), "rise of the loss", None, note, "Where a model is sensitive")
