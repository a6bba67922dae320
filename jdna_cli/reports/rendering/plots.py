"""Figures: readable in grey, the same bytes each time from the same data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.reports.rendering.figures import Figure, Heat, Line, Panel
from jdna_cli.results import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SUFFIXES = (".png", ".svg", ".pdf")

MOST = 30  # panels of one figure
BANDS = 3  # lines whose intervals are bands, where more have bars with ends
BESIDE = 6  # a panel with more lines has their names beside it
# Okabe and Ito's colours, which the colour-blind can tell apart; markers and dashes serve in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")


def check_path(path: Path) -> Path:
    """Refuse a plot that could not be written, before anything is computed.

    Raises:
        RequestError: unknown suffix, or no such folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"--plot: {path} must end in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"--plot: there is no folder {path.absolute().parent}")
    return path


def draw(drawn: Figure, path: Path) -> None:
    """Draw panels side by side, up to three in a row.

    Raises:
        RequestError: there is nothing to draw.
    """
    found = drawn.panels
    if not found:
        raise RequestError("--plot: nothing of this report can be drawn yet")
    if len(found) > MOST:
        raise RequestError(
            f"--plot: {len(found)} panels are too many for one figure, {MOST} at most: choose "
            "with --model, --task, --regime, --criterion, or --pattern"
        )
    width = 8.0 if any(len(panel.lines) > BESIDE for panel in found) else 5.2
    tall = max(map(height, found))
    figure = blank(width * min(3, len(found)), tall * -(-len(found) // 3) + 0.4)
    axes = figure.subplots(
        -(-len(found) // 3), min(3, len(found)), squeeze=False, sharey=not found[0].heat
    ).ravel()
    for axis, panel in zip(axes, found, strict=False):
        panel_on(axis, panel, drawn.reference)
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    for axis in axes[:: min(3, len(found))]:
        if not found[0].heat:
            axis.set_ylabel(drawn.y_label)
    note = textwrap.fill(drawn.note, 72 * min(3, len(found)))
    figure.supxlabel(note, fontsize=8, color="0.35")
    _save(figure, path)


def height(panel: Panel) -> float:
    """Inches that a panel needs: for the rows of a map, or for names beside lines."""
    if panel.heat:
        return max(4.0, 1.2 + 0.16 * len(panel.heat.rows))
    return max(4.0, 1.2 + 0.16 * len(panel.lines)) if len(panel.lines) > BESIDE else 4.0


def panel_on(axis: Any, panel: Panel, reference: float | None) -> None:
    """Draw a panel on Matplotlib's axes."""
    if panel.heat is not None:
        _heat_on(axis, panel.title, panel.heat)
        return
    if reference is not None:
        axis.axhline(reference, color="0.35", linewidth=1, linestyle=(0, (1, 2)))
    bands = len(panel.lines) <= BANDS
    for i, line in enumerate(panel.lines):
        _draw(axis, line, i, bands=bands)
    axis.set_title(textwrap.fill(panel.title, 48), fontsize=10)
    axis.set_xlabel(panel.x_label)
    if panel.logarithmic:
        axis.set_xscale("log")
    if panel.ticks:
        axis.set_xticks([x for x, _ in panel.ticks], [name for _, name in panel.ticks])
    axis.grid(True, color="0.9", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    # Many names would hide the lines: they stand beside them.
    beside = (
        {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(panel.lines) > BESIDE else {}
    )
    axis.legend(fontsize=8, frameon=False, **beside)


def _heat_on(axis: Any, title: str, heat: Heat) -> None:
    """A heat map; darker is more. A few large values do not hide the others."""
    import numpy as np
    from matplotlib.colors import SymLogNorm

    values = np.array([[np.nan if x is None else x for x in row] for row in heat.values])
    top = max(float(np.nanmax(values)), 1e-12)
    small = max(float(np.nanquantile(np.abs(values), 0.25)), top / 1000)
    shown = axis.imshow(
        values, aspect="auto", cmap="cividis_r", norm=SymLogNorm(small, vmin=0.0, vmax=top)
    )
    axis.set_xticks(range(len(heat.columns)), heat.columns, rotation=30, ha="right", fontsize=7)
    axis.set_yticks(range(len(heat.rows)), heat.rows, fontsize=6 if len(heat.rows) > 16 else 8)
    axis.set_title(textwrap.fill(title, 48), fontsize=10)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    bar = axis.figure.colorbar(shown, ax=axis, shrink=0.9)
    bar.ax.tick_params(labelsize=7)


def line(points: Sequence[Point], barrier: float, metric: str, path: Path) -> None:
    """Draw loss and score along the line between two models, with the chord of the loss."""
    figure = blank(6.4, 4.0)
    axis = figure.subplots()
    x = [p.alpha for p in points]
    losses, scores = [p.loss for p in points], [p.score for p in points]
    axis.plot([0, 1], [losses[0], losses[-1]], color="0.35", linewidth=1, linestyle=":")
    (first,) = axis.plot(x, losses, color=COLOURS[0], marker=MARKERS[0], label="loss")
    axis.set_xlabel("α: 0 = first model, 1 = second model")
    axis.set_ylabel("loss")
    other = axis.twinx()
    (second,) = other.plot(x, scores, color=COLOURS[1], marker=MARKERS[1], ls="--", label=metric)
    other.set_ylabel(metric)
    axis.set_title(f"loss barrier {barrier:.4g}", fontsize=10)
    handles = [first, second]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axis.grid(True, color="0.9", linewidth=0.8)
    axis.spines["top"].set_visible(False)
    other.spines["top"].set_visible(False)
    _save(figure, path)


def _draw(axis: Any, line: Line, i: int, *, bands: bool) -> None:
    style = {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
        "markersize": 5,
    }
    if not line.joined:
        style["linestyle"] = "none"
    if not line.marked:
        style["marker"] = "none"
    heights = [float("nan") if y is None else y for y in line.y]
    axis.plot(line.x, heights, label=textwrap.fill(line.label, 44), **style)
    if line.band:
        ends = [[end[i] for end in line.band] for i in (0, 1)]
        axis.fill_between(line.x, *ends, color=style["color"], alpha=0.15, linewidth=0)
    known = [
        (x, y, s)
        for x, y, s in zip(line.x, line.y, line.spread, strict=True)
        if s is not None and y is not None
    ]
    if known:
        xs, ys, spreads = zip(*known, strict=True)
        low = [y - s for y, s in zip(ys, spreads, strict=True)]
        high = [y + s for y, s in zip(ys, spreads, strict=True)]
        if bands and line.joined and len(known) > 1:
            axis.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        else:  # a band of one point, or among many, could not be seen
            axis.errorbar(xs, ys, spreads, fmt="none", ecolor=style["color"], capsize=4)


def blank(width: float, height: float) -> Drawing:
    """An empty figure of so many inches."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "jdna", "pdf.fonttype": 42, "font.size": 9})
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained")


def _save(figure: Drawing, path: Path) -> None:
    # Without a date the same data gives the same bytes.
    nameless: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None},
        ".png": {"Software": None},
    }
    try:
        figure.savefig(path, dpi=150, metadata=nameless[path.suffix.lower()])
    except OSError as error:
        raise JdnaError(f"{path} could not be written: {error.strerror or error}") from error
