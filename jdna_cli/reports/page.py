"""One page that needs no network: the verdict, tables, interactive figures, and how each was made.

Figures are Plotly's where it is installed (extra `page`), else drawn as they are for papers; the
text is a Jinja template (`page.html`). Works from 320 pixels up, in light
and dark, on paper, by keyboard, and for screen readers: every figure's values stand in the table
above it.
"""

from __future__ import annotations

import datetime as dt
import html
import importlib.util
import json
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jdna_cli
from jdna_cli import clock, command_line, reports
from jdna_cli.errors import JdnaError
from jdna_cli.reports import hypothesis, verdict_words
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Panel
from jdna_cli.reports.rendering.plots import COLOURS, picture
from jdna_cli.reports.rendering.tables import Section, told_once

# The order of the questions on a page about everything; a report that is not named here comes last.
_ORDER = ("drop", "adequacy", "options", "shots", "context", "book", "languages", "regimes",
            "barrier", "criteria", "quantisation", "architectures", "sizes", "dynamics",
            "tradeoff")  # fmt: skip
_APART = ("verdict", "advise", "compare", "paper", "runs")  # first, or asked for by name
MOST_RUNS = 500
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
_DASHES = ("solid", "dash", "dashdot", "dot")

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.regime, run.pattern, run.sparsity, run.seed,
  run.spec, run.versions, run.device, run.git_commit, run.artifact, run.finished_at
FROM run WHERE run.status = 'finished'"""


def write(path: Path, name: str, source: Source) -> None:
    """Write the page of the report `name`; that of `drop` or `verdict` has all that have data.

    Raises:
        JdnaError: the file cannot be written; what stood there is untouched.
    """
    import jinja2

    comparisons = hypothesis.judge(source)
    rest = [one for one in reports.names() if one not in (*_ORDER, *_APART)]
    script = _script()
    wanted = ["verdict", *_ORDER, *rest] if name in ("drop", "verdict") else [name]
    answer = verdict_words.sentence(comparisons)
    found = (_chapter(one, source, answer, live=bool(script)) for one in wanted)
    chapters = [one for one in found if one is not None]
    template = resources.files("jdna_cli.reports") / "page.html"
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rendered = made.from_string(template.read_text(encoding="utf-8")).render(
        title="jdna report",
        answer=answer,
        missing=sorted({told for one in comparisons for told in one.missing}),
        filters=source.filters.given,
        chapters=chapters,
        runs=_runs(source, path.absolute().parent),
        most=MOST_RUNS,
        script=script if any(chapter["figures"] for chapter in chapters) else "",
        version=jdna_cli.__version__,
        made=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    _replace(path, rendered)


def _replace(path: Path, text: str) -> None:
    try:
        handle, part = tempfile.mkstemp(dir=path.absolute().parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise JdnaError(f"{path} could not be written: {error.strerror or error}") from error


def _script() -> str:
    """What draws figures that answer to the pointer; nothing where it is not installed."""
    if importlib.util.find_spec("plotly") is None:
        return ""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _chapter(name: str, source: Source, answer: str, *, live: bool) -> dict[str, Any] | None:
    """One report's part of the page; None where it has nothing to say."""
    report = reports.load(name)
    rows = report.rows(source)
    sections = report.sections(rows) if rows else []
    if not sections:
        return None
    told = (report.__doc__ or "").split(":", 1)[1].strip().split("\n\n")[0]
    return {
        "name": name,
        "about": " ".join(told.replace("`", "").split()),
        "sections": [_table(one, answer) for one in told_once(sections)],
        "figures": _plots(name, report.figure(rows), live=live),
    }


def _table(section: Section, answer: str) -> dict[str, Any]:
    # The verdict's first table is called by the answer, which stands at the top of the page.
    title = "Comparisons" if section.title == answer else section.title
    fixed = section.fixed or len(section.columns)
    rows = []
    for number, row in enumerate(section.rows):
        heat = section.heat[number] if section.heat else ()
        rows.append([
            {"text": text, "heat": heat[i - fixed] if i >= fixed and heat else None}
            for i, text in enumerate(row)
        ])  # fmt: skip
    return {"title": title, "columns": section.columns, "rows": rows,
            "notes": section.notes}  # fmt: skip


def _plots(name: str, figure: Figure, *, live: bool) -> list[dict[str, str]]:
    """Each panel: as what Plotly's script takes where it is `live`, else as a picture."""
    if not live:
        return [
            {"title": panel.title, "note": figure.note, "picture": picture(panel, figure)}
            for panel in figure.panels
        ]
    return [
        {
            "id": f"{name}-{i}",
            "title": panel.title,
            "note": figure.note,
            "picture": "",
            "data": _safe(json.dumps(_drawn(panel, figure), allow_nan=False)),
        }
        for i, panel in enumerate(figure.panels)
    ]


def _safe(text: str) -> str:
    """JSON that may stand inside a script element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _drawn(panel: Panel, figure: Figure) -> dict[str, Any]:
    """A panel in Plotly's terms: traces, and a layout."""
    traces: list[dict[str, Any]] = []
    names = dict(panel.ticks)
    for i, line in enumerate(panel.lines):
        known = any(s is not None for s in line.spread)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if line.joined else "markers",
                "name": html.escape(line.label),
                "x": line.x,
                "y": line.y,
                "text": [names.get(x, f"{x:g}") for x in line.x],
                "line": {"color": COLOURS[i % len(COLOURS)], "dash": _DASHES[i % len(_DASHES)]},
                "marker": {"symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 8},
                "error_y": {"type": "data", "array": [s or 0 for s in line.spread],
                            "visible": known, "thickness": 1},
                "hovertemplate": "%{text}: %{y:.4g}<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    axis: dict[str, Any] = {"title": {"text": html.escape(panel.x_label)}}
    if panel.ticks:
        axis |= {"tickvals": [x for x, _ in panel.ticks],
                 "ticktext": [html.escape(text) for _, text in panel.ticks]}  # fmt: skip
    ends = [x for line in panel.lines for x in line.x]
    if panel.logarithmic:
        axis["type"] = "log"
    elif ends and max(ends) > min(ends):
        room = 0.06 * (max(ends) - min(ends))
        axis["range"] = [min(ends) - room, max(ends) + room]
    shapes = []
    if figure.reference is not None:
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": figure.reference,
                       "y1": figure.reference, "line": {"dash": "dot", "width": 1}})  # fmt: skip
    return {"traces": traces, "x": axis, "y": html.escape(figure.y_label), "shapes": shapes}


def _runs(source: Source, place: Path) -> dict[str, Any]:
    """How each run was made: what was asked, by which versions, where."""
    rows = source.records(_RUNS, "ORDER BY run.id DESC")
    shown = [_run(row, source, place) for row in rows[:MOST_RUNS]]
    return {"count": len(rows), "rows": shown}


def _run(row: Row, source: Source, place: Path) -> dict[str, Any]:
    spec, versions = (
        json.loads(value) if isinstance(value, str) else value
        for value in (row["spec"], row["versions"])
    )
    file = source.home / (row["artifact"] or "") / "spec.json"
    link = os.path.relpath(file.absolute(), place) if file.is_file() else None
    told = ", ".join(f"{name} {text}" for name, text in versions.items())
    return {
        "id": row["id"],
        "command": command_line.of_recorded(row["kind"], spec),
        "link": link,
        "versions": told + (f", commit {row['git_commit'][:10]}" if row["git_commit"] else ""),
        "device": row["device"] or "",
        "when": clock.local(row["finished_at"]),
    }
