"""One page that needs no network: the verdict, tables, figures, and how each was made.

Figures are SVG in the page itself, drawn as they are for papers; the text is a Jinja template
(`page.html`). Works from 320 pixels up, in light and dark, on paper, by keyboard, and for screen
readers: every figure's points can be reached, and its values stand in the table beside it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jdna_cli
from jdna_cli import clock, command_line, reports
from jdna_cli.errors import JdnaError
from jdna_cli.reports import cells, hypothesis, verdict_words
from jdna_cli.reports.query import Row, Source, short
from jdna_cli.reports.rendering import inline, plots
from jdna_cli.reports.rendering.figures import Figure
from jdna_cli.reports.rendering.tables import Section, told_once

# The order of the questions on a page about everything; a report that is not named here comes last.
_ORDER = ("drop", "adequacy", "options", "shots", "context", "book", "languages", "regimes",
            "barrier", "criteria", "quantization", "architectures", "sizes", "dynamics",
            "tradeoff")  # fmt: skip
_APART = ("verdict", "advise", "compare", "paper", "runs", "layers")  # first, or asked for by name
MOST_RUNS = 500
MOST = plots.MOST  # tables, and figures, of one report
TITLE = "jdna report"
DOT = " · "  # between the parts of a title

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.regime, run.pattern, run.sparsity, run.seed,
  run.spec, run.versions, run.device, run.git_commit, run.artifact, run.finished_at
FROM run WHERE run.status = 'finished'"""


def write(path: Path, name: str, source: Source, title: str = TITLE) -> None:
    """Write the page of the report `name`; that of `drop` or `verdict` has all that have data.

    Raises:
        JdnaError: the file cannot be written; what stood there is untouched.
    """
    import jinja2

    comparisons = hypothesis.judge(source)
    rest = [one for one in reports.names() if one not in (*_ORDER, *_APART)]
    wanted = ["verdict", *_ORDER, *rest] if name in ("drop", "verdict") else [name]
    answer = verdict_words.sentence(comparisons)
    found = (_chapter(one, source, answer) for one in wanted)
    chapters = [one for one in found if one is not None]
    shared = _shared(chapters)
    template = resources.files("jdna_cli.reports") / "page.html"
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rendered = made.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        answer=answer,
        missing=sorted({told for one in comparisons for told in one.missing}),
        filters=source.filters.given,
        shared=shared,
        chapters=[chapter.without(shared) for chapter in chapters],
        basis=_basis(source),
        runs=_runs(source, path.absolute().parent),
        most=MOST_RUNS,
        version=jdna_cli.__version__,
        made=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    _replace(path, rendered)


def _basis(source: Source) -> str:
    """What the answer rests on: runs, models, tasks and seeds."""
    rows = [row for row in cells.load(source) if row["metric"]]
    runs = sum(row["n"] for row in rows)
    seeds = {one.seed for row in rows for one in row["_seeds"]}
    models = sorted({short(row["model"]) for row in rows})
    tasks = sorted({row["task"] for row in rows})
    told = [f"{runs} measured run{'s' * (runs != 1)}"]
    told += [f"{len(seeds)} seeds"] if len(seeds) > 1 else ["one seed"]
    told += [f"task{'s' * (len(tasks) != 1)} {', '.join(tasks)}", f"model {', '.join(models)}"]
    return f"It rests on {'; '.join(told)}." if runs else ""


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


def _chapter(name: str, source: Source, answer: str) -> Chapter | None:
    """One report's part of the page; None where it has nothing to say."""
    report = reports.load(name)
    rows = report.rows(source)
    sections = report.sections(rows) if rows else []
    if not sections:
        return None
    told = (report.__doc__ or "").split(":", 1)[1].strip().split("\n\n")[0]
    # The verdict's first table is called by the answer, which stands at the top of the page.
    named = [replace(s, title="Comparisons") if s.title == answer else s for s in sections]
    about = " ".join(told.replace("`", "").split())
    return Chapter(name, report.HEADING, about[:1].upper() + about[1:], named, report.figure(rows))


@dataclass(frozen=True)
class Chapter:
    """One report's part of a page."""

    name: str
    heading: str
    about: str
    sections: list[Section]
    figure: Figure

    @property
    def titles(self) -> list[str]:
        """Of its tables and panels, where they say what they are about."""
        titles = [s.title for s in self.sections] + [p.title for p in self.figure.panels]
        return [title for title in titles if DOT in title]

    def without(self, shared: Sequence[str]) -> dict[str, Any]:
        """What the template takes; words that all tables share are left out."""
        panels = {panel.title: i for i, panel in enumerate(self.figure.panels)}
        sections = self.sections[:MOST]
        pairs = [
            {
                "table": _table(section, shared),
                "figure": self._figure(panels.pop(title), shared) if title in panels else None,
            }
            for section, title in zip(told_once(sections), [s.title for s in sections], strict=True)
        ]
        for section in self.sections[MOST:]:
            panels.pop(section.title, None)
        alone = [self._figure(i, shared) for i in list(panels.values())[:MOST]]
        left = max(len(self.sections) - len(pairs), len(panels) - len(alone))
        return {"name": self.name, "heading": self.heading, "about": self.about, "pairs": pairs,
                "alone": alone, "left": left}  # fmt: skip

    def _figure(self, i: int, shared: Sequence[str]) -> dict[str, str]:
        panel = self.figure.panels[i]
        drawing = inline.svg(panel, self.figure, f"{self.name}-{i}")
        return {"title": _short(panel.title, shared), "note": self.figure.note, "svg": drawing}


def _shared(chapters: Sequence[Chapter]) -> list[str]:
    """What all titles of a page say: the model, how it was pruned."""
    titles = [title.split(DOT) for chapter in chapters for title in chapter.titles]
    if not titles:
        return []
    return [part for part in titles[0] if all(part in parts for parts in titles)]


def _short(title: str, shared: Sequence[str]) -> str:
    parts = title.split(DOT)
    return DOT.join(part for part in parts if part not in shared) or title


def _table(section: Section, shared: Sequence[str]) -> dict[str, Any]:
    """A table without columns that say nothing; a number stays beside its interval."""
    fixed = section.fixed or len(section.columns)
    told = [
        i
        for i in range(len(section.columns))
        if i == 0 or not section.rows or any(set(row[i]) - {"·"} for row in section.rows)
    ]
    rows = []
    for number, row in enumerate(section.rows):
        heat = section.heat[number] if section.heat else ()
        rows.append([
            {"text": _short(row[i], shared).replace(" ± ", "\u00a0±\u00a0"),
             "heat": heat[i - fixed] if i >= fixed and heat else None}
            for i in told
        ])  # fmt: skip
    return {"title": _short(section.title, shared), "columns": [section.columns[i] for i in told],
            "rows": rows, "notes": section.notes}  # fmt: skip


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
