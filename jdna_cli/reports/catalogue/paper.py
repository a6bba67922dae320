"""`paper`: your runs beside the published curves: `jdna report paper cross-task`.

The curves were read off the figures of arXiv 2310.02277 (reports/published/README.md); points that
are hidden there stay empty.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from jdna_cli import registry
from jdna_cli.errors import RequestError
from jdna_cli.reports import cells, labels
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "Beside the published curves"
EMPTY = "no published figure has that panel"

_TASKS = {"SST-2": "sst2", "CoLA": "cola", "QQP": "qqp", "STS-B": "stsb", "QNLI": "qnli",
          "RTE": "rte", "MNLI": "mnli", "WinoGrande": "winogrande", "CSQA": "commonsense_qa",
          "MAWPS": "mawps", "SVAMP": "svamp"}  # fmt: skip
_REGIMES = {"sparse transfer": "sparse", "sparse to dense transfer": "sparse-to-dense",
            "dense transfer with freezing": "dense-frozen"}  # fmt: skip


def _adequacy(row: Row, panel: str, series: str) -> bool:
    share = float(series.partition("%")[0]) / 100
    return (row["task"], row["regime"], row["data_fraction"]) == (_TASKS[panel], "sparse", share)


def _across(row: Row, panel: str, series: str) -> bool:
    return (row["task"], row["regime"]) == (_TASKS[series.partition(" (")[0]], "sparse")


def _languages(row: Row, panel: str, series: str) -> bool:
    from jdna_cli.tasks.built_in import all_tasks

    task = all_tasks().get(row["task"])
    if task is None or not row["pairs"]:
        return False
    group = task.majority if series.startswith("majority") else task.minority
    tuned = row["shots"] is None
    return set(row["pairs"].split(",")) <= set(group) and tuned == panel.endswith("few-shot")


def _book(row: Row, panel: str, series: str) -> bool:
    return (row["criterion"], row["book"]) == (panel, series.partition(" ")[0])


def _regimes(row: Row, panel: str, series: str) -> bool:
    task, _, share = panel.removesuffix("% data)").partition(" (")
    wanted = (_TASKS[task], float(share) / 100, _REGIMES[series])
    return (row["task"], row["data_fraction"], row["regime"]) == wanted


# Which of the user's cells belong to a published curve.
MATCHES: dict[str, Callable[[Row, str, str], bool]] = {
    "cross-task": _across,
    "data-adequacy": _adequacy,
    "multilingual": _languages,
    "open-closed-book": _book,
    "transfer-regimes": _regimes,
}


def published(figure: str) -> list[Row]:
    """The points of a published figure; `value` in % of dense transfer, None where hidden."""
    file = resources.files("jdna_cli.reports") / "published" / "figures.csv"
    with file.open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["figure"] == figure]
    curves: list[Row] = []
    for row in rows:
        value = float(row["value"]) if row["value"] else None
        if value is not None and figure == "open-closed-book":
            value = 100 * (1 + value)  # the figure shows the fraction lost
        curves.append({**row, "value": value})
    return curves


def rows(source: Source) -> list[Row]:
    """The published points, each beside the user's cells of the same curve and level."""
    if not source.figure:
        raise RequestError(f"paper: name a published figure: {', '.join(MATCHES)}")
    name = registry.check("figure", source.figure, MATCHES)
    own = [row for row in labels.labelled(source) if row["mean_relative"] is not None]
    magnitude = [r for r in own if r["criterion"] == "magnitude" or name == "open-closed-book"]
    levels: dict[tuple[str, str], list[Row]] = {}
    for row in magnitude:
        levels.setdefault(_level(row), []).append(row)
    rows: list[Row] = []
    for point in published(name):
        here: list[Row | None] = [
            row
            for row in levels.get((point["pattern"], point["level"]), [])
            if MATCHES[name](row, point["panel"], point["series"])
        ]
        rows += [_beside(point, row) for row in here or [None]]
    return rows


def _level(row: Row) -> tuple[str, str]:
    if row["pattern"] == "unstructured":
        return "unstructured", f"{100 * row['sparsity']:g}"
    return "n:m", str(row["pattern"])


def _beside(point: Row, row: Row | None) -> Row:
    ours = None if row is None else 100 * row["mean_relative"]
    known = ours is not None and point["value"] is not None
    return {
        **{name: point[name] for name in ("figure", "panel", "pattern", "series", "level")},
        "published": point["value"],
        "reading": point["reading"],
        "model": row["model"] if row else None,
        "_name": row["_name"] if row else None,
        "label": row["label"] if row else None,
        "yours": ours,
        "half_interval": cells.half(row) if row else None,
        "n": row["n"] if row else None,
        "difference": ours - point["value"] if known and ours is not None else None,
    }


def _panels(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row["panel"], row["pattern"]), []).append(row)
    return panels


def _order(pattern: str, level: str) -> float:
    return float(level) if pattern == "unstructured" else -float(level.partition(":")[0])


def _curves(rows: list[Row]) -> dict[tuple[str, str | None], dict[str, Row]]:
    """Points by level: of each published series, and of each of the user's models on it."""
    curves: dict[tuple[str, str | None], dict[str, Row]] = {}
    for row in rows:
        curves.setdefault((row["series"], None), {})[row["level"]] = row
        if row["model"] is not None:
            name = f"{row['_name']} · {row['label']}"
            curves.setdefault((row["series"], name), {})[row["level"]] = row
    return curves


def sections(rows: Sequence[Row]) -> list[Section]:
    """One table per panel and pattern: the published curve, and below it the user's."""
    sections = []
    for (panel, pattern), own in _panels(rows).items():
        levels = sorted({r["level"] for r in own}, key=lambda level: _order(pattern, level))
        table = []
        for (series, model), points in _curves(own).items():
            key = "published" if model is None else "yours"
            shown = [points[x][key] if x in points else None for x in levels]
            table.append([series if model is None else f"  {model}",
                          "paper" if model is None else "yours",
                          *("" if v is None else f"{v:.1f}" for v in shown)])  # fmt: skip
        mine = sum(row["yours"] is not None for row in own)
        notes = [
            "% of dense transfer. Paper: arXiv 2310.02277, read off its figures; empty: hidden "
            "there by another curve.",
            f"{mine} points of yours." if mine else "No run of yours is on these curves yet.",
        ]
        names = [f"{x}%" if pattern == "unstructured" else x for x in levels]
        title = f"{own[0]['figure']} · {panel} · {'unstructured' if pattern != 'n:m' else 'N:M'}"
        sections.append(Section(title, ("curve", "source", *names), table, tuple(notes), 2))
    return sections


def figure(rows: Sequence[Row]) -> Figure:
    """Published and own curves, a panel per panel and pattern."""
    panels = []
    for (panel, pattern), own in _panels(rows).items():
        lines = []
        for (series, model), points in _curves(own).items():
            key = "published" if model is None else "yours"
            known = sorted(
                (p for p in points.values() if p[key] is not None),
                key=lambda p: _order(pattern, p["level"]),
            )
            if known:
                x = tuple(_order(pattern, p["level"]) for p in known)
                spread: tuple[Any, ...] = tuple(
                    p["half_interval"] if model is not None else None for p in known
                )
                name = f"{series} (paper)" if model is None else f"{series}: {model}"
                lines.append(Line(name, x, tuple(p[key] for p in known), spread))
        ticks: tuple[tuple[float, str], ...] = ()
        if pattern == "n:m":
            ticks = tuple(sorted({(_order(pattern, p["level"]), p["level"]) for p in own}))
        label = "sparsity (%)" if pattern == "unstructured" else "N:M (N of each M weights kept)"
        panels.append(Panel(f"{panel} · {pattern}", label, tuple(lines), ticks))
    note = "paper: arXiv 2310.02277, read off its figures; bands: 95 % interval over seeds"
    return Figure(tuple(panels), "% of dense transfer", 100.0, note, "Beside the paper")
