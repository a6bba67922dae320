"""Tables for a terminal, a paper, a notebook, a spreadsheet. Names in them are data, not code."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
}


@dataclass(frozen=True)
class Section:
    """One table: a title, columns, rows of text, and notes below. The first column is a name."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def render(columns: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    """One bare table in the given form: table, markdown, latex, or csv."""
    return sections_as_text([Section("", tuple(columns), [list(row) for row in rows])], form)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a bare table to standard output."""
    print(render(columns, rows, "table"), end="")


def sections_as_text(sections: Sequence[Section], form: str) -> str:
    """Tables one below the other."""
    write = {"table": _terminal, "markdown": _markdown, "latex": _latex, "csv": _csv}[form]
    return "\n".join(write(section) for section in sections)


def _terminal(section: Section) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for i, column in enumerate(section.columns):
        numeric = i > 0 and all(_numeric(row[i]) for row in section.rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in section.rows:
        # Text is never read as markup, and control characters never reach the terminal.
        table.add_row(*(Text(_printable(cell)) for cell in row))
    buffer = io.StringIO()
    terminal = sys.stdout.isatty()
    # Without a terminal a table is as wide as it needs to be: nobody reads wrapped logs.
    wide = max(200, 2 + sum(_width(section, i) + 3 for i in range(len(section.columns))))
    console = Console(file=buffer, force_terminal=False, width=None if terminal else wide)
    if section.title:
        console.print(Text(section.title, style="bold"))
    console.print(table)
    for note in section.notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _width(section: Section, i: int) -> int:
    return max([len(section.columns[i]), *(len(row[i]) for row in section.rows)])


def _numeric(cell: str) -> bool:
    return not cell or cell[0] in "0123456789+-−."


def _printable(cell: str) -> str:
    return "".join(c if c.isprintable() else "·" for c in cell)


def _markdown(section: Section) -> str:
    def text(cell: str) -> str:
        return _printable(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(text, cells))} |"

    lines = [f"**{text(section.title)}**", ""] if section.title else []
    lines += [line(section.columns), "|" + "---|" * len(section.columns)]
    lines += [line(row) for row in section.rows]
    lines += ["", *(f"{text(note)}  " for note in section.notes)] if section.notes else []
    return "\n".join(lines) + "\n"


def _latex(section: Section) -> str:
    def text(cell: str) -> str:
        return "".join(_LATEX.get(c, c) for c in _printable(cell))

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(text, cells)) + r" \\"

    columns = "l" + "r" * (len(section.columns) - 1)
    lines = [r"\begin{table}", r"\centering"]
    if section.title:
        lines.append(rf"\caption{{{text(' '.join([section.title, *section.notes]))}}}")
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(section.columns), r"\midrule"]
    lines += [line(row) for row in section.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _csv(section: Section) -> str:
    return records_as_csv(section.columns, section.rows)


def records_as_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values; text that a spreadsheet would run is quoted away."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell for cell in row
        )
    return buffer.getvalue()


def _runs(cell: str) -> bool:
    if cell[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
