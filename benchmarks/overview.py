"""The ratios of all kinds of machine that were measured: a table, and a chart."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import RATIOS, Ratio, table

Kinds = dict[str, list[Ratio]]  # by kind of machine
_COLOURS = ("#1f6f8b", "#e09f3e", "#7a5195", "#6a994e")


def keep(folder: Path, kind: str, page: str) -> None:
    """Write what was measured on one kind of machine, and draw all kinds anew.

    Args:
        folder: of the pages by kind; the overview is `<folder>.md`.
        kind: of this machine.
        page: all tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.md").write_text(page)
    (folder / f"{kind}.json").write_text(json.dumps([asdict(r) for r in RATIOS], indent=1) + "\n")
    kinds = {
        file.stem: [Ratio(**one) for one in json.loads(file.read_text())]
        for file in sorted(folder.glob("*.json"))
    }
    chart(kinds, folder / "ratios.svg")
    folder.with_suffix(".md").write_text(_page(kinds, folder.name))


def _page(kinds: Kinds, folder: str) -> str:
    links = ", ".join(f"[{kind}]({folder}/{kind}.md)" for kind in kinds)
    lines = [
        "# How fast, beside others and beside the limit",
        "",
        "Ratios of one run each; each page names its machine and versions, and ratios carry over "
        "better than times. Two slow cores, the same for all pages so far. "
        f"`make bench`; all tables: {links}.",
        "",
        f"![ratios]({folder}/ratios.svg)",
    ]
    for peer, title in ((True, "Times as fast as a peer"), (False, "Times what the limit takes")):
        rows = []
        for (work, beside), found in _works(kinds, peer).items():
            values = [f"{found[kind].value:.2f}" if kind in found else "" for kind in kinds]
            aim = next(iter(found.values())).aim
            told = "" if aim is None else f"{'≥' if peer else '≤'} {aim:.3g}"
            rows.append([work, beside, *values, told])
        lines += ["", table(title, ["", "beside", *kinds, "aim"], rows).rstrip()]
    return "\n".join([*lines, ""])


def _works(kinds: Kinds, peer: bool) -> dict[tuple[str, str], dict[str, Ratio]]:
    found: dict[tuple[str, str], dict[str, Ratio]] = {}
    for kind, ratios in kinds.items():
        for one in ratios:
            if one.peer == peer:
                found.setdefault((one.work, one.beside), {})[kind] = one
    return found


def chart(kinds: Kinds, file: Path) -> None:
    """Bars of all ratios on a logarithmic axis, by kind of machine, with a mark at each aim."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "jdna", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(kinds))]
    both = [_works(kinds, True), _works(kinds, False)]
    figure, axes = plt.subplots(
        2, 1, figsize=(9, 1.2 + 0.34 * sum(map(len, both))), layout="constrained",
        gridspec_kw={"height_ratios": [max(1, len(works)) for works in both]},
    )  # fmt: skip
    titles = ("times as fast as a peer (more is better)", "times what the limit takes (1: at it)")
    for axis, works, title in zip(axes, both, titles, strict=True):
        height = 0.8 / max(1, len(kinds))
        for place, found in enumerate(works.values()):
            for number, kind in enumerate(kinds):
                if kind not in found:
                    continue
                at = place + (number - (len(kinds) - 1) / 2) * height
                value = found[kind].value
                axis.barh(at, value - 1, height, left=1, color=colours[number])
                axis.annotate(
                    f"{value:.2f}" if value < 10 else f"{value:.0f}", (value, at), (3, 0),
                    textcoords="offset points", va="center", fontsize=7,
                )  # fmt: skip
            aim = next(iter(found.values())).aim
            if aim is not None:
                axis.plot([aim, aim], [place - 0.45, place + 0.45], color="black", linewidth=1.5)
        axis.set_yticks(range(len(works)), [f"{w}  ·  {b}" for w, b in works], fontsize=8)
        axis.set_xscale("log")
        axis.axvline(1, color="#888888", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=9, loc="left")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.spines[["top", "right"]].set_visible(False)
    bars = [
        plt.Rectangle((0, 0), 1, 1, color=_COLOURS[i % len(_COLOURS)]) for i in range(len(kinds))
    ]
    mark = plt.Line2D([], [], color="black", linewidth=1.5)
    figure.legend([*bars, mark], [*kinds, "aim"], loc="outside lower center", ncols=len(kinds) + 1,
                  fontsize=8, frameon=False)  # fmt: skip
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
