"""A panel as SVG that stands in a page: text is text, and points can be reached by keyboard.

Colours of text and rules are the page's own, so that it is right in the light and in the dark.
"""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace
from typing import Any

from jdna_cli.reports.rendering import plots
from jdna_cli.reports.rendering.figures import Figure, Line, Panel

# Stand for the page's own colours until the drawing is done.
_TEXT, _RULE = "#010203", "#040506"
POINTS = 200  # where there are more, nobody goes through them one by one: the table has them
_WIDTH = 6.2  # inches


def svg(panel: Panel, drawn: Figure, prefix: str) -> str:
    """One panel without its title.

    Args:
        panel: what is drawn.
        drawn: the figure that it is of: its height axis and reference.
        prefix: of all names inside, which a page has once.
    """
    figure = plots.blank(_WIDTH, plots.height(panel))
    import matplotlib as mpl

    colours: Any = {"text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT,
               "ytick.color": _TEXT, "axes.edgecolor": _TEXT, "svg.fonttype": "none",
               "font.family": "sans-serif"}  # fmt: skip
    with mpl.rc_context(colours):
        axis = figure.subplots()
        plots.panel_on(axis, replace(panel, title=""), drawn.reference)
        axis.grid(True, color=_RULE, linewidth=0.6)
        axis.set_ylabel("" if panel.heat else drawn.y_label)
        if sum(len(line.x) for line in panel.lines) <= POINTS:
            for i, line in enumerate(panel.lines):
                _reachable(axis, line, i)
        file = io.StringIO()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"| height="[0-9.]+pt"', r"\1", text)
    text = text.replace(_TEXT, "currentColor").replace(_RULE, "var(--rule)")
    text = text.replace("#000000", "currentColor")
    text = re.sub(r"font: [^;\"]*?(\d[\d.]*px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    return _with_words(text, panel, prefix)


def _reachable(axis: Any, line: Line, i: int) -> None:
    """An invisible spot on each point, to which its words are given afterwards."""
    for j, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if y is not None:
            axis.plot([x], [y], "o", ms=13, alpha=0.0, gid=f"point-{i}-{j}")


def _with_words(text: str, panel: Panel, prefix: str) -> str:
    names = dict(panel.ticks)
    for i, line in enumerate(panel.lines):
        for j, (x, y, spread) in enumerate(zip(line.x, line.y, line.spread, strict=True)):
            if y is None:
                continue
            at = names.get(x, f"{x:g}")
            height = f"{y:.4g}".replace("-", "−") + (f" ± {spread:.2g}" if spread else "")
            words = html.escape(f"{line.label}, {at}: {height}")
            text = text.replace(
                f'<g id="{prefix}-point-{i}-{j}">',
                f'<g id="{prefix}-point-{i}-{j}" class="point" tabindex="0" role="img" '
                f'aria-label="{words}"><title>{words}</title>',
            )
    return text
