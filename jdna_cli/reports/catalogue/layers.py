"""`layers`: layer by layer, how much a pruning took, and what a scan says that it costs.

Of the runs named by `--run`, else of the latest pruned model; as CSV a file for `--allocation`.
Share of the loss: of what all layers' rises would be together, each from the latest scan of the
same model, in proportion to s³.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jdna_cli.errors import RequestError
from jdna_cli.models.blocks import order, place
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "Layer by layer"
EMPTY = "nothing was pruned yet: `jdna prune MODEL --sparsity 0.5`"

_LAYERS = """
SELECT run.id AS run_id, run.model, run.model_identity, run.criterion, run.pattern, run.scope,
  run.allocation, layer.tensor, layer.shape, layer.kept, layer.total
FROM run JOIN layer ON layer.run = run.id
WHERE run.status = 'finished' AND run.id = ?
ORDER BY layer.tensor"""

_SCAN = """
SELECT sensitivity.tensors, sensitivity.weights, sensitivity.sparsity,
  sensitivity.loss - dense.value AS rise, run.id, run.task
FROM run JOIN sensitivity ON sensitivity.run = run.id
  JOIN metric AS dense ON dense.run = run.id AND dense.name = 'loss' AND dense.step IS NULL
WHERE run.status = 'finished' AND run.model_identity = ? AND run.id = (
  SELECT MAX(id) FROM run WHERE kind = 'scan' AND status = 'finished' AND model_identity = ?)"""


def rows(source: Source) -> list[Row]:
    """One row per layer of each run asked for."""
    numbers = source.runs or _latest(source)
    found: list[Row] = []
    for number in numbers:
        own = source.query(_LAYERS, (number,)).records()
        if not own and source.runs:
            raise RequestError(f"--run: run {number} has pruned nothing, or is not there")
        found += _with_cost(source, own)
    for row in found:
        if isinstance(row["shape"], str):
            row["shape"] = json.loads(row["shape"])
        row["sparsity"] = 1 - row["kept"] / row["total"]
        row["block"], row["matrix"] = place(row["tensor"])
    return sorted(found, key=lambda r: (r["run_id"], order(r["block"]), r["tensor"]))


def _latest(source: Source) -> tuple[int, ...]:
    sql = (
        "SELECT MAX(run.id) FROM run WHERE run.status = 'finished' "
        "AND EXISTS (SELECT 1 FROM layer WHERE layer.run = run.id)"
    )
    condition, values = source.filters.where()
    ((number,),) = source.query(f"{sql}{condition}", values).rows
    return () if number is None else (number,)


def _with_cost(source: Source, rows: list[Row]) -> list[Row]:
    """Each layer's share of what the latest scan of the model says that all cost."""
    if not rows:
        return rows
    identity = rows[0]["model_identity"]
    slopes: dict[str, tuple[float, float]] = {}  # by tensor: rise / s³ and weights of its unit
    for tensors, weights, sparsity, rise, _, _ in source.query(_SCAN, (identity, identity)).rows:
        for name in json.loads(tensors) if isinstance(tensors, str) else tensors:
            slopes[name] = (max(rise, 0.0) / sparsity**3, weights)  # the largest sparsity counts
    costs = {}
    for row in rows:
        if row["tensor"] in slopes:
            steep, weights = slopes[row["tensor"]]
            share = 1 - row["kept"] / row["total"]
            costs[row["tensor"]] = steep * share**3 * row["total"] / weights
    whole = sum(costs.values())
    for row in rows:
        known = row["tensor"] in costs and whole > 0
        row["share_of_loss"] = costs[row["tensor"]] / whole if known else None
    return rows


def sections(rows: Sequence[Row]) -> list[Section]:
    """A table per run."""
    runs: dict[int, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run_id"], []).append(row)
    sections = []
    for number, own in runs.items():
        scanned = any(row["share_of_loss"] is not None for row in own)
        table = [
            [
                row["tensor"],
                " × ".join(map(str, row["shape"])),
                f"{row['kept']:,}",
                f"{row['sparsity']:.2%}",
                *([] if not scanned else [_percent(row["share_of_loss"])]),
            ]
            for row in own
        ]
        columns = ("tensor", "shape", "kept", "sparsity", *(["loss"] * scanned))
        words = [own[0]["criterion"], own[0]["scope"], own[0]["allocation"]]
        how = " ".join(word for word in words if word)
        notes = ["--format csv writes this as a file that --allocation takes."]
        if not scanned:
            notes.append("What each costs is known after `jdna scan MODEL --task T`.")
        else:
            notes.append("Loss: the layer's share of the rise that the latest scan foretells.")
        sections.append(Section(f"Layers of run {number} · {how}", columns, table, tuple(notes)))
    return sections


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def figure(rows: Sequence[Row]) -> Figure:
    """Sparsity over blocks, a line per kind of matrix, a panel per run."""
    panels = []
    for number in dict.fromkeys(row["run_id"] for row in rows):
        own = [row for row in rows if row["run_id"] == number]
        blocks = list(dict.fromkeys(row["block"] for row in own))
        lines = []
        for kind in dict.fromkeys(row["matrix"] for row in own):
            known = [(blocks.index(r["block"]), r) for r in own if r["matrix"] == kind]
            x = tuple(float(i) for i, _ in known)
            y = tuple(100 * row["sparsity"] for _, row in known)
            lines.append(Line(kind, x, y, (None,) * len(x)))
        panels.append(Panel(f"run {number}", "block", tuple(lines)))
    return Figure(tuple(panels), "sparsity (%)", None, "blocks in the order of the model",
                  "Layer by layer")  # fmt: skip
