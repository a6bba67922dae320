"""Figures as data: what `plots` draws for papers, and `page` draws for browsers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a panel: heights with half the width of their interval (None: not known)."""

    label: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    spread: tuple[float | None, ...]
    joined: bool = True  # else points alone
    marked: bool = True  # else a line alone
    band: tuple[tuple[float, float], ...] = ()  # from where to where, at each x


@dataclass(frozen=True)
class Heat:
    """Values by row and column; None: there is no such place."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Panel:
    """One panel: lines over a shared axis, whose ticks may carry names."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    logarithmic: bool = False
    heat: Heat | None = None  # in place of lines


@dataclass(frozen=True)
class Figure:
    """Small multiples on one height axis, with a dotted line at `reference`."""

    panels: tuple[Panel, ...]
    y_label: str
    reference: float | None = None
    note: str = ""
    title: str = ""
