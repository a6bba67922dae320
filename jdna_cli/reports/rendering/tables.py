"""Tables for a terminal, a paper, a notebook, a spreadsheet. Names in them are data, not code."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jdna_cli.console import cell_count, room, words

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
    """As wide as the terminal: texts are folded, else columns go to a second table below."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = room() or 10**6
    lines = []
    for title in words(_printable(section.title), width, "  "):
        lines.append(_bold(title, coloured))
    for own in _blocks(section, _told(section), width):
        lines += ["", *_block(section, own, coloured=coloured)]
    lines += [""] if section.notes else []
    for note in section.notes:
        lines += words(note, min(width, 100)) if width < 10**6 else [note]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _told(section: Section) -> list[int]:
    """The columns that say something."""
    count = len(section.columns)
    if not section.rows:
        return list(range(count))
    return [i for i in range(count) if i == 0 or any(set(row[i]) - {"·"} for row in section.rows)]


_NARROW = 16  # a name is folded, or shortened, no further than to this
_Widths = dict[int, int]  # of each column of a table


def _blocks(section: Section, told: list[int], width: int) -> list[_Widths]:
    """Which columns stand in which of the tables, and how wide."""
    whole = _fitted(section, told, width)
    if _total(whole) <= width:
        return [whole]
    fixed = [i for i in told if i < (section.fixed or 1)]
    blocks, current = [], list(fixed)
    for i in told[len(fixed) :]:
        if current != fixed and _total(_fitted(section, [*current, i], width)) > width:
            blocks.append(current)
            fixed = current = [0]
        current = [*current, i]
    return [_fitted(section, block, width) for block in [*blocks, current]]


def _total(widths: _Widths) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _fitted(section: Section, chosen: Sequence[int], width: int) -> _Widths:
    """Widths of columns: texts are folded between words, then names shortened, until they fit."""
    cells_ = {i: [_printable(row[i]) for row in section.rows] for i in chosen}
    own = {i: max(map(cell_count, [section.columns[i], *cells_[i]])) for i in chosen}
    least = {}
    for i in chosen:
        head = max(map(cell_count, section.columns[i].split()), default=0)
        if _is_numeric(section, i):
            least[i] = max([head, *map(cell_count, cells_[i])])
        else:
            longest = [cell_count(word) for cell in cells_[i] for word in cell.split()]
            prose = _NARROW if own[i] > 2 * _NARROW else 0
            least[i] = max([head, prose, *longest])
            if i == 0 and own[i] <= _NARROW:
                least[i] = own[i]
    short = {i: min(least[i], _NARROW) for i in chosen if not _is_numeric(section, i)}
    # What a row is called comes last: it is what others are asked by.
    for bound in (least, {i: n for i, n in short.items() if i}, short):
        while _total(own) > width:
            wide = [i for i in bound if own[i] > bound[i]]
            if not wide:
                break
            own[max(wide, key=lambda i: own[i] - bound[i])] -= 1
    return own


def _is_numeric(section: Section, i: int) -> bool:
    return i > 0 and all(_numeric(row[i]) for row in section.rows)


def _block(section: Section, own: _Widths, *, coloured: bool) -> list[str]:
    numeric = {i: _is_numeric(section, i) for i in own}
    head = {i: section.columns[i] for i in own}
    lines = _row(head, own, numeric, {}, coloured=False)
    lines.append(_GAP.join("─" * width for width in own.values()))
    for number, row in enumerate(section.rows):
        if not any(row[i] for i in own if i > 0) and any(row[1:]):
            continue  # all that it says stands in another table
        heat = section.heat[number] if section.heat else ()
        start = section.fixed or len(section.columns)
        shades = {i: heat[i - start] for i in own if i >= start and heat}
        cells_ = {i: _printable(row[i]) for i in own}
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
            blank = " " * (widths[i] - cell_count(text))
            padded = blank + text if numeric[i] else text + blank
            shade = shades.get(i)
            if coloured and shade is not None and text:
                padded = _shaded(padded, shade)
            parts.append(padded)
        lines.append(_GAP.join(parts))
    return lines


def _fold(text: str, width: int) -> list[str]:
    if cell_count(text) <= width:
        return [text]
    short = " ".join(_shortened(word, width) for word in text.split())
    return words(short, width)


def _shortened(word: str, width: int) -> str:
    """A name that is too long, without its middle."""
    if cell_count(word) <= width or width < 5:
        return word
    end = (width - 1) // 2
    return f"{word[: width - 1 - end]}…{word[-end:]}"


def _shaded(text: str, heat: float) -> str:
    # Half of the shades are for the first fifth, where decisions are made.
    place = (heat / 0.2) * 0.5 if heat < 0.2 else 0.5 + (heat - 0.2) / 0.8 * 0.5
    back, front = _SHADES[min(len(_SHADES) - 1, int(place * len(_SHADES)))]
    return f"\x1b[48;5;{back}m\x1b[38;5;{front}m{text}\x1b[0m"


def _bold(text: str, coloured: bool) -> str:
    return f"\x1b[1m{_printable(text)}\x1b[0m" if coloured else _printable(text)


def _numeric(cell: str) -> bool:
    return not cell or cell.lstrip("(")[:1] in tuple("0123456789+-−.×")


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
        # A sentence; what explains the figures stands below them.
        lines.append(rf"\caption{{{text(section.title.replace(' · ', ', '))}.}}")
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(section.columns), r"\midrule"]
    lines += [line(row) for row in section.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if section.notes:
        notes = text(
            " ".join(note if note.endswith((".", "!")) else f"{note}." for note in section.notes)
        )
        lines += [r"\par\smallskip", rf"\parbox{{0.95\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


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
