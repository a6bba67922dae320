"""`advise`: how much of a model may be pruned for a task: `--task T --tolerance 1%`.

For each model and way of pruning: the critical sparsity, the largest at which the drop is not above
the tolerance. Drops are made monotone over the levels (isotonic regression). Its 95 % interval is a
bootstrap over seeds, and over the examples of each where their answers were saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdna_cli.reports import cells, chance, predictions, resampling, statistics
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section
from jdna_cli.reports.statistics import Floats
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

HEADING = "How much may be pruned"
EMPTY = (
    "no advice yet: `jdna finetune MODEL --task T`, then the same with --sparsity 0.3, 0.5 and 0.7"
)
_WAY = ("model", "label", "split", "recipe", "regime", "criterion", "scope", "allocation",
        "prunable", "calibration", "schedule", "teacher")  # fmt: skip


def rows(source: Source) -> list[Row]:
    """One row per model, task and way of pruning, those that may lose most first."""
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in cells.labelled(source):
        pruned = not cells.plain(row) and row["pattern"] and not row["quantization"]
        if pruned and row["mean_relative_drop"] is not None:
            key = (*(row[name] for name in _WAY), cells.kind_of(row))
            places.setdefault(key, []).append(row)
    answers = predictions.of(source)
    found = [_advice(own, answers, source.tolerance) for own in places.values()]
    return sorted(found, key=lambda row: (row["task"], row["model"], -row["critical_sparsity"]))


def _advice(rows: list[Row], answers: predictions.Answers, tolerance: float) -> Row:
    levels = sorted(rows, key=cells.level)
    first, patterned = rows[0], cells.kind_of(rows[0]) == "N:M"
    xs = [row["sparsity"] for row in levels]
    drops = np.array([[row["mean_relative_drop"] for row in levels]])
    weights = [float(row["n"]) for row in levels]

    def critical_of(means: Floats) -> Floats:
        critical_sparsity = statistics.critical(xs, means, tolerance, weights)
        if not patterned:
            return critical_sparsity
        # Between two patterns there is none: the largest measured one that is not above it.
        steps = np.array([0.0, *xs])
        return np.asarray(
            steps[(steps[None] <= critical_sparsity[:, None] + 1e-12).sum(axis=1) - 1]
        )

    drawn, over = resampling.drops(levels, answers)
    every = critical_of(drops if drawn is None else np.concatenate([drops, drawn]))
    low, high = (None, None) if drawn is None else statistics.percentiles(every[1:])
    row = {name: first[name] for name in ("model", "task", "label", "split", "metric", *_WAY[3:])}
    row |= {
        "way": cells.way(first, ("bits", "pattern")), "kind": cells.kind_of(first),
        "tolerance": tolerance, "critical_sparsity": float(every[0]),
        "ci_low": low, "ci_high": high, "interval_over": over.kind, "resampled": over.words,
        "dense_score": first["dense_score"], "levels": len(levels), "highest_level": xs[-1],
        "n": min(row["n"] for row in levels), "at_chance": chance.at_chance(first, answers),
    }  # fmt: skip
    row["pattern"] = _pattern(levels, row["critical_sparsity"]) if patterned else None
    found = row["critical_sparsity"]
    row["between"] = (
        max((x for x in xs if x <= found), default=0.0),
        min((x for x in xs if x > found), default=None),
    )
    row["next"] = _next(levels, row)
    row["_levels"], row["_name"] = levels, first["_name"]
    return row


def _pattern(levels: list[Row], found: float) -> str | None:
    return next((r["pattern"] for r in levels if abs(r["sparsity"] - found) < 1e-9), None)


def _next(levels: list[Row], row: Row) -> str:
    """Which runs would narrow it most."""
    found = row["critical_sparsity"]
    if row["at_chance"]:
        return "a dense model that has learnt the task: this one is at chance level"
    below, above = row["between"]
    if above is not None and row["kind"] == "unstructured" and above - below > 0.15:
        return f"--sparsity {(below + above) / 2:.2f}, between {below:.0%} and {above:.0%}"
    if row["n"] < 3:
        near = min(levels, key=lambda one: abs(one["sparsity"] - found))
        return f"{3 - row['n']} more seeds, at {cells.level(near)[1]} first"
    if found >= row["highest_level"] - 1e-9:
        return f"more than {cells.level(levels[-1])[1]}: the largest measured is still well"
    if above is not None and row["kind"] == "unstructured" and above - below > 0.06:
        return f"--sparsity {(below + above) / 2:.2f}, between {below:.0%} and {above:.0%}"
    return "more seeds"


def _sentence(row: Row) -> str:
    if row["at_chance"]:
        return (
            f"{row['_name']} on {row['label']}: no advice, for even the dense model "
            "is at chance level."
        )
    head = f"{row['_name']} on {row['label']} ({row['way']})"
    if row["ci_low"] is None:
        sure = "one seed and no saved answers, so how sure that is, is not known"
    else:
        sure = f"95 % interval {row['ci_low']:.0%} to {row['ci_high']:.0%} over {row['resampled']}"
    limit = _limit(row)
    found, least = row["critical_sparsity"], cells.level(row["_levels"][0])[1]
    if row["kind"] == "N:M":
        if row["pattern"] is None:
            return f"{head}: at every pattern measured, from {least} on, {limit} ({sure})."
        return (
            f"{head}: {row['pattern']} ({found:.0%} zeros) is the sparsest pattern measured before "
            f"{limit} ({sure})."
        )
    if found >= row["highest_level"] - 1e-9:
        bounds = ", the largest that was measured,"
    else:
        bounds = f" (between {row['between'][0]:.0%} and {row['between'][1]:.0%} as measured)"
    return f"{head}: {found:.0%} of the prunable weights may go{bounds} before {limit} ({sure})."


def _limit(row: Row) -> str:
    """What happens where more is taken: the metric passes what the tolerance leaves of it."""
    metric, dense = row["metric"], row["dense_score"]
    if metric in LOWER_IS_BETTER:
        return f"{metric} rises above {dense / (1 - row['tolerance']):.2f} (dense: {dense:.2f})"
    return (
        f"{metric} drops by more than {row['tolerance']:.1%} of its dense "
        f"{cells.score(metric, dense)}"
    )


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per task; below it the best way of each model, as a sentence."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    sections = []
    for task, own in tasks.items():
        table = [
            [
                row["_name"],
                row["label"],
                f"{row['way']} · {row['kind']}",
                f"{row['critical_sparsity']:.1%}"
                + (f" ({row['pattern']})" if row["pattern"] else ""),
                "" if row["ci_low"] is None else f"{row['ci_low']:.1%} to {row['ci_high']:.1%}",
                f"{row['levels']} / {row['n']}",
                row["next"],
            ]
            for row in own
        ]
        columns = ("model", "task", "way", "critical sparsity", "95 % interval", "levels / seeds",
                   "next, to be surer")  # fmt: skip
        title = f"How much may be pruned · {task} · tolerance {own[0]['tolerance']:.1%}"
        best: dict[str, Row] = {}
        for row in own:
            best.setdefault(row["model"], row)
        notes = (
            *(_sentence(row) for row in best.values()),
            "Critical sparsity: the largest at which the drop is not above the tolerance; drops "
            "are made monotone (isotonic regression), linear between the levels measured.",
        )
        sections.append(Section(title, columns, table, notes))
    return sections


def figure(rows: Sequence[Row]) -> Figure:
    """Drop over sparsity with the tolerance as a dotted line, a panel per model and task."""
    places: dict[tuple[str, str], list[Line]] = {}
    for row in rows:
        own = row["_levels"]
        halves = [cells.half(r) for r in own]
        line = Line(
            f"{row['way']} · {row['kind']}: {row['critical_sparsity']:.0%}",
            (0.0, *(100 * r["sparsity"] for r in own)),
            (0.0, *(100 * r["mean_relative_drop"] for r in own)),
            (None, *halves),
        )
        places.setdefault((row["_name"], row["label"]), []).append(line)
    panels = [
        Panel(f"{name} · {label}", "sparsity (%)", tuple(lines))
        for (name, label), lines in places.items()
    ]
    reference = 100 * rows[0]["tolerance"] if rows else None
    note = "dotted: the tolerance; named: the critical sparsity of each way"
    return Figure(tuple(panels), "drop (% of dense)", reference, note, "How much may be pruned")
