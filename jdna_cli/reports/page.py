"""One page that needs no network: the verdict, tables, interactive figures, and how each was made.

Figures are Plotly's; the text is a Jinja template. Works from 320 pixels up, in light and dark, on
paper, by keyboard, and for screen readers: every figure's values stand in the table above it.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jdna_cli
from jdna_cli import reports
from jdna_cli.errors import JdnaError
from jdna_cli.reports import verdicts
from jdna_cli.reports.figures import Figure, Panel
from jdna_cli.reports.plots import COLOURS
from jdna_cli.reports.source import Row, Source
from jdna_cli.reports.tables import Section, told_once

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

    comparisons = verdicts.judge(source)
    rest = [one for one in reports.names() if one not in (*_ORDER, *_APART)]
    wanted = ["verdict", *_ORDER, *rest] if name in ("drop", "verdict") else [name]
    chapters = [found for one in wanted if (found := _chapter(one, source)) is not None]
    text = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _TEMPLATE
    )
    rendered = text.render(
        title="jdna report",
        answer=verdicts.sentence(comparisons),
        missing=sorted({told for one in comparisons for told in one.missing}),
        filters=source.filters.given,
        chapters=chapters,
        runs=_runs(source, path.absolute().parent),
        most=MOST_RUNS,
        script=_script() if any(chapter["figures"] for chapter in chapters) else "",
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
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _chapter(name: str, source: Source) -> dict[str, Any] | None:
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
        "sections": [_table(one, name) for one in told_once(sections)],
        "figures": _plots(name, report.figure(rows)),
    }


def _table(section: Section, name: str) -> dict[str, Any]:
    # The verdict's first table is called by the answer, which stands at the top of the page.
    title = "Comparisons" if name == "verdict" and len(section.rows[0]) == 9 else section.title
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


def _plots(name: str, figure: Figure) -> list[dict[str, str]]:
    """Each panel as what Plotly's script takes."""
    return [
        {
            "id": f"{name}-{i}",
            "title": panel.title,
            "note": figure.note,
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
        "command": command(row["kind"], spec),
        "link": link,
        "versions": told + (f", commit {row['git_commit'][:10]}" if row["git_commit"] else ""),
        "device": row["device"] or "",
        "when": str(row["finished_at"])[:16],
    }


def command(kind: str, spec: dict[str, Any]) -> str:
    """The command line of a request, with what is not left at nothing."""
    import shlex

    words = ["jdna", kind, str(spec.get("model", spec.get("first", "")))]
    words += [str(spec["other"])] if spec.get("other") else []
    for name, value in spec.items():
        if name in ("kind", "model", "other") or value in (None, False, "", [], ()):
            continue
        flag = f"--{name.replace('_', '-')}"
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        words += [w for v in values for w in ([flag] if v is True else [flag, str(v)])]
    return shlex.join(words)


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
:root { --back: #fff; --text: #1b1b1b; --dim: #595959; --rule: #d5d5d5; --soft: #f5f5f5;
  --link: #0b5394; --heat: 176, 58, 46; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --text: #e8e8e8; --dim: #a8a8a8;
  --rule: #3a3d42; --soft: #1e2125; --link: #8ab8ff; --heat: 214, 92, 76; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 76rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link);
  outline-offset: 2px; }
h1 { font-size: 1.3rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem; border-top: 1px solid var(--rule);
  padding-top: 1.2rem; }
.answer { font-size: 1.3rem; line-height: 1.4; margin: .6rem 0 1rem; max-width: 60rem; }
.dim, .note { color: var(--dim); font-size: .9rem; }
.note { margin: .3rem 0; max-width: 60rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; }
.scroll { overflow-x: auto; margin: .8rem 0 .4rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
tbody th { font-weight: 500; }
td.command { white-space: normal; text-align: left; font-family: ui-monospace, monospace;
  font-size: .8rem; min-width: 22rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 42rem));
  gap: 1rem; }
figure { margin: 0; background: var(--soft); border-radius: .4rem; padding: .6rem; min-width: 0; }
figcaption { font-size: .9rem; font-weight: 600; }
.plot { height: 24rem; width: 100%; overflow: hidden; }
.skip { position: absolute; left: -100rem; } .skip:focus { left: 1rem; }
@media print { nav, .skip { display: none; } body { max-width: none; font-size: 11px; }
  figure, table { break-inside: avoid; } .scroll, .plot { overflow: visible; }
  .figures { grid-template-columns: 1fr; } th, td { white-space: normal; padding: .2rem .3rem; }
  table { font-size: 9px; } details { display: none; } }
</style>
</head>
<body>
<a class="skip" href="#content">Skip to the answer</a>
<header>
<h1>{{ title }}</h1>
<p class="dim">jdna {{ version }} · {{ made }}
{%- for name, value in filters.items() %} · {{ name }}: {{ value }}{% endfor %}</p>
</header>
<main id="content">
<p class="answer" role="status">{{ answer }}</p>
{% if missing %}<details><summary>What is missing to be sure ({{ missing | length }})</summary>
<ul>{% for one in missing %}<li>{{ one }}</li>{% endfor %}</ul></details>{% endif %}
<nav aria-label="Reports"><ul>
{% for chapter in chapters %}<li><a href="#{{ chapter.name }}">{{ chapter.name }}</a></li>
{% endfor %}<li><a href="#runs">how it was made</a></li></ul></nav>
{% for chapter in chapters %}
<section aria-labelledby="{{ chapter.name }}">
<h2 id="{{ chapter.name }}">{{ chapter.name }}</h2>
<p class="dim">{{ chapter.about }}</p>
{% for table in chapter.sections %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table><caption>{{ table.title }}</caption>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr>
</thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell.text }}</th>{% else -%}
<td{% if cell.heat %} style="background: rgba(var(--heat), {{ '%.2f' % (0.08 + 0.5 * cell.heat) }})"
{% endif %}>{{ cell.text }}</td>{% endif %}{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% for note in table.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% endfor %}
{% if chapter.figures %}<div class="figures">{% for one in chapter.figures %}
<figure><figcaption>{{ one.title }}</figcaption>
<div class="plot" id="{{ one.id }}" role="img"
 aria-label="Figure: {{ one.title }}. Its values are in the table above."></div>
<script type="application/json" data-for="{{ one.id }}">{{ one.data | safe }}</script>
<p class="note">{{ one.note }}</p></figure>
{% endfor %}</div>{% endif %}
</section>
{% endfor %}
<section aria-labelledby="runs">
<h2 id="runs">how it was made</h2>
<p class="dim">{{ runs.count }} finished runs{% if runs.count > most %}; the latest {{ most }}
are listed{% endif %}. Each line is the command that makes it again.</p>
<details><summary>Commands, versions and devices</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Runs"><table>
<thead><tr><th scope="col">run</th><th scope="col" class="text">command</th>
<th scope="col" class="text">device</th><th scope="col" class="text">versions</th>
<th scope="col">ended</th></tr></thead>
<tbody>{% for run in runs.rows %}<tr><th scope="row">
{%- if run.link %}<a href="{{ run.link }}">{{ run.id }}</a>{% else %}{{ run.id }}{% endif %}</th>
<td class="command">{{ run.command }}</td><td class="text">{{ run.device }}</td>
<td class="command">{{ run.versions }}</td><td>{{ run.when }}</td></tr>{% endfor %}</tbody>
</table></div></details>
</section>
</main>
{% if script %}
<script>{{ script | safe }}</script>
<script>
"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const style = () => {
  const read = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return { text: read("--text"), rule: read("--rule") };
};
const layout = drawn => {
  const { text, rule } = style();
  const axis = { gridcolor: rule, zeroline: false, linecolor: rule, automargin: true };
  return {
    font: { color: text, family: "system-ui, sans-serif", size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 24, t: 12, b: 48 },
    xaxis: { ...axis, ticklabeloverflow: "allow", ...drawn.x },
    yaxis: { ...axis, title: { text: drawn.y } },
    legend: { orientation: "h", y: -0.25 }, hovermode: "closest", showlegend: true,
    shapes: drawn.shapes.map(one => ({ ...one, line: { ...one.line, color: text } })),
  };
};
const lifted = trace => trace.line.color === "#000000"
  ? { ...trace, line: { ...trace.line, color: style().text } } : trace;
const all = [...document.querySelectorAll("script[data-for]")].map(
  own => [own.dataset.for, JSON.parse(own.textContent)]);
const draw = () => all.forEach(([id, drawn]) => Plotly.react(id, drawn.traces.map(lifted),
  layout(drawn), { responsive: true, displayModeBar: false }));
draw();
const sizes = new ResizeObserver(seen => seen.forEach(one => Plotly.Plots.resize(one.target)));
all.forEach(([id]) => sizes.observe(document.getElementById(id)));
dark.addEventListener("change", draw);
addEventListener("beforeprint", () => all.forEach(([id]) => Plotly.Plots.resize(id)));
</script>
{% endif %}
</body>
</html>
"""
