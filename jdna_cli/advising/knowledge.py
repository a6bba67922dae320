"""What the database says of a question by now, by the code of `jdna report advise`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdna_cli.advising.question import STEP, Level, Question
from jdna_cli.reports import cells as measured
from jdna_cli.reports import chance, labels, predictions, ways
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.statistics import Floats
from jdna_cli.reports.ways import Known, Way
from jdna_cli.runs import prune
from jdna_cli.runs.model_lookup import locate
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.specs import PruneSpec


def columns(asked: Question, workspace: OpenWorkspace) -> dict[str, Any]:
    """What the columns of the pruned runs will say of how they were pruned.

    Raises:
        RequestError: the model cannot be pruned as asked.
    """
    fixed = asked.template.fixed
    own = {k: v for k, v in fixed.items() if k in PruneSpec.model_fields}
    # One level of each M: refused now, or never.
    for level in {(one.pattern or ":").partition(":")[2]: one for one in asked.levels}.values():
        spec = prune.spec_of(PruneSpec, {**own, **level.values})
        prune.resolve(workspace, spec.model_dump()).check()
    told = prune.columns(spec, locate(workspace, spec.model))
    names = ["criterion", "scope", "allocation", "prunable", "calibration"]
    if fixed.get("schedule", "one-shot") == "one-shot":
        names.append("schedule")
    return {n: told.get(n) for n in names} | {"regime": fixed.get("regime") or "sparse"}


@dataclass
class Knowledge:
    """What is known of one question.

    Attributes:
        asked: the question.
        source: opens what reports read.
        columns: of its pruned runs.
        known: its critical sparsity; None until a pruned run is there.
        way: its pruned cells.
        dense: the dense cell.
        at_chance: whether even that does not do better than guessing.
    """

    asked: Question
    source: Callable[[], Source]
    columns: dict[str, Any]
    known: Known | None = None
    way: Way | None = None
    dense: Row | None = None
    at_chance: bool = False

    def look(self, recipe: str) -> None:
        """Read what there is of the runs of a recipe: that of the dense ones."""
        source = self.source()
        rows = [row for row in labels.labelled(source) if row["recipe"] == recipe]
        answers = predictions.of(source)
        self.dense = next((row for row in rows if measured.plain(row)), None)
        self.way = next((w for w in ways.grouped(rows) if self._is_mine(w.levels[0])), None)
        if self.way is not None:
            self.known = ways.known(self.way, answers, self.asked.tolerance)
        self.at_chance = self.dense is not None and chance.at_chance(self.dense, answers)

    def _is_mine(self, row: Row) -> bool:
        return (
            all(row[name] == value for name, value in self.columns.items())
            and (measured.kind_of(row) == "N:M") == self.asked.patterned
            and (row["teacher"] is not None) == ("teacher" in self.asked.template.fixed)
        )

    @property
    def levels(self) -> list[Row]:
        """The pruned cells, sparsities rising."""
        return [] if self.way is None else self.way.levels

    @property
    def samples(self) -> Floats | None:
        """Of the critical sparsity; None where nothing was pruned yet."""
        return None if self.known is None else self.known.samples

    @property
    def bracket(self) -> tuple[float, float]:
        """The largest sparsity before the first that is too much, and that one."""
        below = 0.0
        for row in self.levels:
            if row["mean_relative_drop"] > self.asked.tolerance:
                return below, row["sparsity"]
            below = row["sparsity"]
        return below, self.asked.levels[-1].sparsity + STEP

    @property
    def gap(self) -> float:
        """How near the two ends of a bracket may come: two points, or neighbouring patterns."""
        if not self.asked.patterned:
            return 2 * STEP
        below, above = self.bracket
        between = [x for x in self.asked.levels if below < x.sparsity < above]
        return 0.0 if between else np.inf

    def is_narrow(self) -> bool:
        """Whether the interval is as narrow as asked; a pattern was itself measured."""
        if self.known is None:
            return False
        if not self.asked.trains:
            below, above = self.bracket
            return above - below <= self.gap and self.known.width <= self.asked.precision
        low, high = np.quantile(self._choosable(), [0.025, 0.975])
        if self.asked.patterned:
            return bool(low == high) and self.unmeasured() is None
        return bool(high - low <= self.asked.precision)

    def _choosable(self) -> Floats:
        """Samples of the critical sparsity, as what can be chosen."""
        assert self.samples is not None
        samples = np.minimum(self.samples, self.asked.levels[-1].sparsity)
        if not self.asked.patterned:
            return samples
        steps = np.array([0.0, *(level.sparsity for level in self.asked.levels)])
        return np.asarray(steps[(steps[None] <= samples[:, None] + 1e-12).sum(axis=1) - 1])

    def unmeasured(self) -> Level | None:
        """The pattern that the answer would be, where it was not measured itself."""
        if self.samples is None:
            return None
        middle = float(np.median(self._choosable()))
        there = [0.0, *(row["sparsity"] for row in self.levels)]
        if any(abs(middle - x) < STEP / 10 for x in there):
            return None
        return next(x for x in self.asked.levels if abs(x.sparsity - middle) < STEP / 10)

    def seeds_of(self, level: Level) -> set[int | None]:
        """Seeds that a level has been run with."""
        return {
            one.seed
            for row in self.levels
            if abs(row["sparsity"] - level.sparsity) < STEP / 10
            for one in row["_seeds"]
        }

    def loose_end(self) -> float | None:
        """An end of what the examples leave open, near which nothing was measured."""
        if self.known is None or self.asked.patterned:
            return None
        there = np.array([0.0, *(row["sparsity"] for row in self.levels)])
        for end in (self.known.low, self.known.high):
            if end is not None and np.abs(there - end).min() > self.asked.precision / 2:
                return end
        return None
