"""`advise`: how much of a model may be pruned for a task: `--task T --tolerance 1%`.

For each model and way of pruning: the critical sparsity, the largest at which the drop is not above
the tolerance. Of runs that were trained, by several seeds, it is the median of its posterior under
a curve that rises (`reports/critical_sparsity.py`), with the 95 % interval over seeds; for at most
12 ways at a time. Of evaluations, and of one seed, drops are made monotone (isotonic regression),
and the interval is from the level that held to the one that did not, by a bootstrap over the
examples, where their answers were saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdna_cli.amounts import percent
from jdna_cli.reports import cells, chance, labels, predictions, ways
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section
from jdna_cli.reports.ways import WAY, Known, Way
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

HEADING = "How much may be pruned"
EMPTY = "no advice yet: `jdna advise MODEL --task T` finds how much may go"


def rows(source: Source) -> list[Row]:
    """One row per model, task and way of pruning, those that may lose most first."""
    found = ways.grouped(labels.labelled(source))
    answers = predictions.of(source)
    few = sum(way.scatters for way in found) <= ways.MOST
    rows = [
        row_of(own, ways.known(own, answers, source.tolerance, interval=few or not own.scatters),
               answers,
               source.tolerance)
        for own in found
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["task"], row["model"], -row["critical_sparsity"]))


def row_of(way: Way, known: Known, answers: predictions.Answers, tolerance: float) -> Row:
    """What is known of one way, as a row of the report."""
    levels = way.levels
    first, patterned = levels[0], cells.kind_of(levels[0]) == "N:M"
    xs = [row["sparsity"] for row in levels]
    row = {name: first[name] for name in ("model", "task", "label", "split", "metric", *WAY[3:])}
    row |= {
        "way": cells.way(first, ("bits", "pattern")), "kind": cells.kind_of(first),
        "tolerance": tolerance, "critical_sparsity": known.critical,
        "ci_low": known.low, "ci_high": known.high, "interval_over": known.over.kind,
        "resampled": known.over.words, "dense_score": way.dense["score"], "levels": len(levels),
        "highest_level": xs[-1], "n": min(row["n"] for row in levels),
        "runs": sum(row["n"] for row in levels),
        "seeds": max(row["n"] for row in (way.dense, *levels)),
        "at_chance": chance.at_chance(way.dense, answers),
        "unlearnt": [one._asdict() for one in known.unlearnt],
        "falls": [list(pair) for pair in known.falls],
    }  # fmt: skip
    row["pattern"] = _pattern(levels, row["critical_sparsity"]) if patterned else None
    found = row["critical_sparsity"]
    row["between"] = (
        max((x for x in xs if x <= found), default=0.0),
        min((x for x in xs if x > found), default=None),
    )
    row["next"] = _next(levels, row)
    row["_levels"], row["_name"], row["_known"] = levels, first["_name"], known
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
        return (
            f"--sparsity {(below + above) / 2:.2f}, between {percent(below)} and {percent(above)}"
        )
    if levels[0]["data_fraction"] is None and row["kind"] == "unstructured":
        return "more examples" if row["interval_over"] else "saved answers"
    if row["seeds"] < 3:
        near = min(levels, key=lambda one: abs(one["sparsity"] - found))
        return f"{3 - row['seeds']} more seeds, at {cells.level(near)[1]} first"
    if found >= row["highest_level"] - 1e-9:
        return f"more than {cells.level(levels[-1])[1]}: the largest measured is still well"
    return "jdna advise, which chooses them"


def sentence(row: Row) -> str:
    """The answer of a row in plain words."""
    if row["at_chance"]:
        return (
            f"{row['_name']} on {row['label']}: no advice, for even the dense model "
            "is at chance level."
        )
    head = f"{row['_name']} on {row['label']} ({row['way']})"
    if row["ci_low"] is None:
        one = row["seeds"] < 2
        sure = (
            "one seed and no saved answers, so how sure that is, is not known"
            if one
            else f"how sure that is, is worked out for {ways.MOST} ways at a time: name a "
            "--task, a --model, or a --criterion"
        )
    else:
        sure = f"95 % interval {_ends(row)} over {row['resampled']}"
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
        bounds = (
            f" (between {percent(row['between'][0])} and {percent(row['between'][1])} as measured)"
        )
    return f"{head}: {found:.0%} of the prunable weights may go{bounds} before {limit} ({sure})."


def _ends(row: Row) -> str:
    """The interval in words; above all that was measured nothing is known."""
    high = row["ci_high"]
    if row["kind"] == "N:M":
        names = {one["sparsity"]: one["pattern"] for one in row["_levels"]} | {0.0: "dense"}
        ends = dict.fromkeys(names[min(names, key=lambda x: abs(x - end))]
                             for end in (row["ci_low"], high))  # fmt: skip
        return " to ".join(ends)
    top = max(row["highest_level"], row["critical_sparsity"])
    if row["kind"] == "unstructured" and high > top + 0.01:
        return f"from {row['ci_low']:.0%} to more than {top:.0%}, the largest measured,"
    return f"{row['ci_low']:.0%} to {high:.0%}"


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
                f"{row['levels']} / {row['runs']}",
                row["next"],
            ]
            for row in own
        ]
        columns = ("model", "task", "way", "critical sparsity", "95 % interval", "levels / runs",
                   "next, to be surer")  # fmt: skip
        title = f"How much may be pruned · {task} · tolerance {own[0]['tolerance']:.1%}"
        best: dict[str, Row] = {}
        for row in own:
            best.setdefault(row["model"], row)
        notes = (
            *(sentence(row) for row in best.values()),
            *(note for row in own for note in warnings(row)),
            *_methods(own),
        )
        sections.append(Section(title, columns, table, notes))
    return sections


def warnings(row: Row) -> list[str]:
    """What was seen that an average would hide."""
    told = []
    head = f"{row['way']}: " if row["_levels"] else ""
    for one in row["unlearnt"]:
        where = f"at {percent(one['sparsity'])}" if one["sparsity"] else "dense"
        seed = f" (seed {one['seed']})" if one["seed"] is not None else ""
        told.append(
            f"{head}run {one['run']}, {where}{seed}, did not learn the task, while others of "
            "that sparsity or more did: it is left out."
        )
    for low, high in row["falls"]:
        told.append(
            f"{head}the drop is smaller at {percent(high)} than at {percent(low)}, by more than "
            "the seeds scatter: it does not rise evenly."
        )
    return told


def _methods(rows: list[Row]) -> list[str]:
    """How the figures of a table came about."""
    told = "Critical sparsity: the largest at which the drop is not above the tolerance"
    trained = any(row["_known"].posterior for row in rows)
    plain = any(not row["_known"].posterior for row in rows)
    notes = []
    if trained:
        notes.append(
            f"{told}; over seeds: median and 95 % interval of the posterior under a curve that "
            "crosses the tolerance there (docs/correctness.md)."
        )
    if plain:
        notes.append(
            f"{told}; drops are made monotone (isotonic regression), linear between the levels "
            "measured."
        )
    return notes


def figure(rows: Sequence[Row]) -> Figure:
    """Drop over sparsity with the tolerance as a dotted line, a panel per model and task."""
    places: dict[tuple[str, str], list[Line]] = {}
    for row in rows:
        lines = places.setdefault((row["_name"], row["label"]), [])
        name = f"{row['way']} · {row['kind']}: {row['critical_sparsity']:.0%}"
        lines += _with_curve(name, row) if row["_known"].posterior else [_joined(name, row)]
    panels = [
        Panel(f"{name} · {label}", "sparsity (%)", tuple(lines))
        for (name, label), lines in places.items()
    ]
    reference = 100 * rows[0]["tolerance"] if rows else None
    note = "dotted: the tolerance; named: the critical sparsity of each way"
    return Figure(tuple(panels), "drop (% of dense)", reference, note, "How much may be pruned")


def _joined(name: str, row: Row) -> Line:
    """Mean drops with their intervals, joined."""
    own = row["_levels"]
    return Line(
        name,
        (0.0, *(100 * r["sparsity"] for r in own)),
        (0.0, *(100 * r["mean_relative_drop"] for r in own)),
        (None, *(cells.half(r) for r in own)),
    )


def _with_curve(name: str, row: Row) -> list[Line]:
    """Every run as a point, and the curve that the posterior lays through them."""
    own, found = row["_levels"], row["_known"].posterior
    points = [(r["sparsity"], one) for r in own for one in r["_seeds"] if one.relative is not None]
    x = tuple(100 * sparsity for sparsity, _ in points)
    y = tuple(100 * (1 - one.relative) for _, one in points)
    grid = np.linspace(0, own[-1]["sparsity"], 41)
    curve, low, high = (tuple(map(float, 100 * v)) for v in found.drops(grid))
    across = tuple(map(float, 100 * grid))
    return [
        Line(name, x, y, (None,) * len(x), joined=False),
        Line("its curve (posterior)", across, curve, (None,) * len(curve), marked=False,
             band=tuple(zip(low, high, strict=True))),
    ]  # fmt: skip
