"""What scans have measured, as tables and heat maps: blocks by kinds of matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from jdna_cli.amounts import percent
from jdna_cli.models.blocks import OUTSIDE, order
from jdna_cli.reports.rendering.figures import Heat, Panel
from jdna_cli.reports.rendering.tables import Section


class Cell(Protocol):
    """One unit at one sparsity, from a run's outcome or from the database."""

    @property
    def block(self) -> str:
        """Name of the block."""

    @property
    def matrix(self) -> str:
        """Kind of matrix in there."""

    @property
    def sparsity(self) -> float:
        """What it was pruned to."""

    @property
    def loss(self) -> float:
        """Loss of the task then."""


def grid(found: Sequence[Cell], dense: float, head: str = "Rise of the loss") -> list[Section]:
    """One table per sparsity, a row per block, a column per kind of matrix."""
    sections = []
    for sparsity in sorted({one.sparsity for one in found}):
        blocks, kinds, values = _values(found, dense, sparsity)
        known = [x for row in values for x in row if x is not None]
        digits = 4 if max(map(abs, known), default=1.0) < 1 else 3
        table = [
            [name, *("" if x is None else _signed(x, digits) for x in row)]
            for name, row in zip(short(blocks), values, strict=True)
        ]
        worst = max(
            ((x, b, k) for b, row in zip(blocks, values, strict=True)
             for k, x in zip(kinds, row, strict=True) if x is not None),
        )  # fmt: skip
        note = (
            f"Dense loss {dense:.4f}. Each matrix was pruned alone; most is lost in "
            f"{worst[1]} {worst[2]}: {_signed(worst[0], 4)}."
        )
        title = f"{head} · each pruned to {percent(sparsity)} alone"
        sections.append(Section(title, ("block", *kinds), table, (note,), fixed=1))
    return sections


def heat(found: Sequence[Cell], dense: float, sparsity: float, title: str) -> Panel:
    """A heat map of one sparsity: rows are blocks, columns kinds of matrices."""
    blocks, kinds, values = _values(found, dense, sparsity)
    return Panel(title, "", (), heat=Heat(short(blocks), kinds, tuple(map(tuple, values))))


def short(blocks: Sequence[str]) -> tuple[str, ...]:
    """Names of blocks without the words that all of them begin with: as in layer.0."""
    apart = [name.split(".") for name in blocks if name != OUTSIDE]
    shared = 0
    while all(len(parts) > shared + 2 for parts in apart) and (
        len({parts[shared] for parts in apart}) == 1
    ):
        shared += 1
    return tuple(n if n == OUTSIDE else ".".join(n.split(".")[shared:]) for n in blocks)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    # A rounded nothing has no sign.
    return (text if text.strip("+-0.") else text[1:]).replace("-", "−")


def _values(
    found: Sequence[Cell], dense: float, sparsity: float
) -> tuple[tuple[str, ...], tuple[str, ...], list[list[float | None]]]:
    own = [one for one in found if abs(one.sparsity - sparsity) < 1e-12]
    blocks = tuple(sorted({one.block for one in own}, key=order))
    kinds = tuple(dict.fromkeys(one.matrix for one in sorted(own, key=lambda o: order(o.block))))
    known = {(one.block, one.matrix): one.loss - dense for one in own}
    return blocks, kinds, [[known.get((b, k)) for k in kinds] for b in blocks]


def sparsities(found: Iterable[Cell]) -> list[float]:
    """Those that were measured, rising."""
    return sorted({one.sparsity for one in found})
