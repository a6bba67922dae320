"""Tables for a terminal, a paper, a notebook, a spreadsheet. Names in them are data, not code."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "α": r"$\alpha$",
    "…": r"\dots{}",
    "–": "--",
    "✓": r"$\checkmark$",
}


@dataclass(frozen=True)
class Section:
    """One table: a title, columns, rows of text, and notes below. The first column is a name."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    fixed: int | None = None  # columns before those that may go to a second table below
    heat: tuple[Sequence[float | None], ...] = ()  # 0 to 1, of each row's cells after `fixed`


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None]) -> str:
    """Heights from 0 to 1 as bars; a dot where there is none."""
    top = len(_BARS) - 1
    return "".join("·" if v is None else _BARS[min(top, max(0, round(v * top)))] for v in values)


def render(columns: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    """One bare table in the given form: table, markdown, latex, or csv."""
    return sections_as_text([Section("", tuple(columns), [list(row) for row in rows])], form)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a bare table to standard output."""
    print(render(columns, rows, "table"), end="")


def sections_as_text(sections: Sequence[Section], form: str) -> str:
    """Tables one below the other."""
    write = {"table": _terminal, "markdown": _markdown, "latex": _latex, "csv": _csv}[form]
    if form != "latex":  # a caption is its table's own
        sections = told_once(sections)
    return "\n".join(write(section) for section in sections)


def told_once(sections: Sequence[Section]) -> list[Section]:
    """A note that the next table has too stands below the last of them."""
    following = [*sections[1:], Section("", (), [])]
    return [
        replace(one, notes=tuple(note for note in one.notes if note not in after.notes))
        for one, after in zip(sections, following, strict=True)
    ]


# From no drop to a total one: light to dark, so that greys say the same. (background, text)
_SHADES = ((255, 16), (224, 16), (217, 16), (210, 16), (203, 16), (160, 231), (88, 231))
_GAP = "  "


def _terminal(section: Section) -> str:
    """As wide as the terminal: columns that do not fit go to a second table below."""
    terminal = sys.stdout.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR")
    room = shutil.get_terminal_size().columns if terminal else 10**6
    widths = [_width(section, i) for i in range(len(section.columns))]
    lines = [_bold(section.title, coloured)] if section.title else []
    for chosen in _blocks(section, widths, room):
        lines += ["", *_block(section, chosen, widths, room, coloured=coloured)]
    lines += [""] if section.notes else []
    for note in section.notes:
        lines += textwrap.wrap(note, min(room, 100)) if terminal else [note]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _blocks(section: Section, widths: list[int], room: int) -> list[list[int]]:
    """Which columns stand in which of the tables."""
    count = len(section.columns)
    fixed = section.fixed or count
    blocks, current = [], list(range(fixed))
    for i in range(fixed, count):
        if i > fixed and sum(widths[j] + len(_GAP) for j in [*current, i]) > room + len(_GAP):
            blocks.append(current)
            current = [0]
        current.append(i)
    return [*blocks, current]


def _block(
    section: Section, chosen: list[int], widths: list[int], room: int, *, coloured: bool
) -> list[str]:
    numeric = {i: i > 0 and all(_numeric(row[i]) for row in section.rows) for i in chosen}
    own = {i: widths[i] for i in chosen}
    # Where even one table is too wide, its widest text is folded.
    while sum(own.values()) + len(_GAP) * (len(own) - 1) > room:
        texts = [i for i in chosen if not numeric[i] and own[i] > 12]
        if not texts:
            break
        own[max(texts, key=lambda i: own[i])] -= 1
    head = {i: section.columns[i] for i in chosen}
    lines = _row(head, own, numeric, {}, coloured=False)
    lines.append(_GAP.join("─" * own[i] for i in chosen))
    for number, row in enumerate(section.rows):
        heat = section.heat[number] if section.heat else ()
        start = section.fixed or len(section.columns)
        shades = {i: heat[i - start] for i in chosen if i >= start and heat}
        cells_ = {i: _printable(row[i]) for i in chosen}
        lines += _row(cells_, own, numeric, shades, coloured=coloured)
    return lines


def _row(
    cells: Mapping[int, str],
    widths: Mapping[int, int],
    numeric: Mapping[int, bool],
    shades: Mapping[int, float | None],
    *,
    coloured: bool,
) -> list[str]:
    """The lines of one row: as many as its longest folded text has."""
    folded = {i: _fold(text, widths[i]) for i, text in cells.items()}
    lines = []
    for k in range(max(map(len, folded.values()))):
        parts = []
        for i, pieces in folded.items():
            text = pieces[k] if k < len(pieces) else ""
            blank = " " * (widths[i] - _cells(text))
            padded = blank + text if numeric[i] else text + blank
            shade = shades.get(i)
            if coloured and shade is not None and text:
                padded = _shaded(padded, shade)
            parts.append(padded)
        lines.append(_GAP.join(parts))
    return lines


def _fold(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) if _cells(text) > width else [text]


def _shaded(text: str, heat: float) -> str:
    # Half of the shades are for the first fifth, where decisions are made.
    place = (heat / 0.2) * 0.5 if heat < 0.2 else 0.5 + (heat - 0.2) / 0.8 * 0.5
    back, front = _SHADES[min(len(_SHADES) - 1, int(place * len(_SHADES)))]
    return f"\x1b[48;5;{back}m\x1b[38;5;{front}m{text}\x1b[0m"


def _bold(text: str, coloured: bool) -> str:
    return f"\x1b[1m{_printable(text)}\x1b[0m" if coloured else _printable(text)


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _width(section: Section, i: int) -> int:
    cells = [section.columns[i], *(_printable(row[i]) for row in section.rows)]
    return max(map(_cells, cells))


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

    # Bars of text are for terminals.
    chosen = [i for i in range(len(section.columns)) if not _is_drawn(section, i)]

    def line(cells: Sequence[str]) -> str:
        return " & ".join(text(cells[i]) for i in chosen) + r" \\"

    columns = "l" + "r" * (len(chosen) - 1)
    lines = [r"\begin{table}", r"\centering"]
    if section.title:
        lines.append(rf"\caption{{{text(' '.join([section.title, *section.notes]))}}}")
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(section.columns), r"\midrule"]
    lines += [line(row) for row in section.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _is_drawn(section: Section, i: int) -> bool:
    """Whether a column is one of sparklines."""
    cells = [row[i] for row in section.rows if row[i]]
    return bool(cells) and all(set(cell) <= {*_BARS, "·"} for cell in cells)


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
