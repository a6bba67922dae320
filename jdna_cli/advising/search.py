"""The search for the critical sparsity: cells of a sweep, chosen one after the other.

Where models are trained: probabilistic bisection (Horstein 1963; Waeber, Frazier and Henderson
2013). The next run is where the critical sparsity is as likely above as below, by the posterior of
all that is recorded; several at a time share its quantiles. Where nothing is trained, a score is
what it is: the bracket is halved, and then the curve is measured at the ends of the interval that
the examples leave.

All runs are ordinary ones. What is known is read from the database after each, by the code of
`jdna report advise`: earlier runs count, and a search that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jdna_cli.advising import choice
from jdna_cli.advising.question import STEP, Level, Question
from jdna_cli.errors import JdnaError
from jdna_cli.reports import cells as measured
from jdna_cli.reports import chance, predictions, ways
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.ways import Known, Way
from jdna_cli.runs import prune
from jdna_cli.runs.model_lookup import locate
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.specs import PruneSpec
from jdna_cli.sweeps import cells, planning
from jdna_cli.sweeps.cells import Cell
from jdna_cli.sweeps.queue import State

NARROW = "the interval is narrower than asked"
BUDGET = "the budget is spent"
CHANCE = "the dense model is at chance level"
NOTHING = "no other run would tell more"
GAP = 0.02  # width of a bracket, where nothing scatters, that is not halved any more


@dataclass
class Search(State):
    """The queue of a search: a cell is asked for, and it says which.

    Attributes:
        asked: the question.
        workspace: where all is recorded.
        source: opens what reports read.
        side: how many points are worked at side by side.
        known: what is known by now; None until a pruned run is there.
        way: its cells.
        dense: the dense cell.
        stopped_because: set when nothing more is begun.
    """

    asked: Question = field(kw_only=True)
    workspace: OpenWorkspace = field(kw_only=True)
    source: Callable[[], Source] = field(kw_only=True)
    side: int = field(default=1, kw_only=True)
    known: Known | None = field(default=None, init=False)
    way: Way | None = field(default=None, init=False)
    dense: Row | None = field(default=None, init=False)
    stopped_because: str | None = field(default=None, init=False)
    _points: dict[str, tuple[Level | None, int]] = field(default_factory=dict, init=False)
    _new: set[str] = field(default_factory=set, init=False)
    _fresh: bool = field(default=True, init=False)  # runs have ended since the last look
    _began: float = field(default_factory=time.monotonic, init=False)
    _way: dict[str, Any] = field(default_factory=dict, init=False)

    def begin_search(self) -> None:
        """Ask for the dense runs; what the database has is found at once.

        Raises:
            RequestError: the request is wrong, or the model cannot be pruned as asked.
        """
        self._way = self._columns()
        for seed in self.asked.seeds:
            self._ask(None, seed)
        self._propose()

    @property
    def most(self) -> int:
        """Points side by side."""
        return self.side

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return super().over and self.stopped_because is not None

    def next(self) -> Cell | None:
        """A cell that waits, else one of the point that tells most."""
        cell = super().next()
        if cell is None and self.stopped_because is None:
            self._propose()
            cell = super().next()
        return cell

    def done(self, key: str, run: int, folder: Any) -> None:
        """A cell has its run."""
        super().done(key, run, folder)
        self._fresh = self._fresh or key in self._points

    @property
    def levels(self) -> list[Row]:
        """The pruned cells, sparsities rising."""
        return [] if self.way is None else self.way.levels

    def point(self, cell: Cell) -> tuple[Level | None, int] | None:
        """Level and seed of a cell that measures; None of one that only prunes."""
        return self._points.get(cell.key)

    @property
    def begun(self) -> int:
        """Trainings or evaluations that were begun by this search."""
        return len(self._new)

    # ------------------------------------------------------------------------------- what is known

    def look(self) -> None:
        """Read what the database says by now."""
        if not self._fresh:
            return
        self._fresh = False
        recipe = self._recipe()
        if recipe is None:
            return
        source = self.source()
        rows = [row for row in measured.labelled(source) if row["recipe"] == recipe]
        answers = predictions.of(source)
        self.dense = next((row for row in rows if measured.plain(row)), None)
        self.way = next((w for w in ways.grouped(rows) if self._is_mine(w.levels[0])), None)
        if self.way is not None:
            self.known = ways.known(self.way, answers, self.asked.tolerance)
        if self.dense is not None and chance.at_chance(self.dense, answers):
            self._stop(CHANCE)

    def _recipe(self) -> str | None:
        """Of the dense runs: equal for all that is compared with them."""
        dense = [self.runs[k] for k, (level, _) in self._points.items()
                 if level is None and k in self.runs]  # fmt: skip
        return self.ledger.get(dense[0]).recipe if dense else None

    def _columns(self) -> dict[str, Any]:
        """What the columns of the pruned runs will say of how they were pruned."""
        fixed = self.asked.template.fixed
        own = {k: v for k, v in fixed.items() if k in PruneSpec.model_fields}
        spec = prune.spec_of(PruneSpec, {**own, **self.asked.levels[0].values})
        prune.resolve(self.workspace, spec.model_dump()).prepare()  # refused now, or never
        told = prune.columns(spec, locate(self.workspace, spec.model))
        names = ["criterion", "scope", "allocation", "prunable", "calibration"]
        if fixed.get("schedule", "one-shot") == "one-shot":
            names.append("schedule")
        return {n: told.get(n) for n in names} | {"regime": fixed.get("regime") or "sparse"}

    def _is_mine(self, row: Row) -> bool:
        fixed = self.asked.template.fixed
        return (
            all(row[name] == value for name, value in self._way.items())
            and (measured.kind_of(row) == "N:M") == self.asked.patterned
            and (row["teacher"] is not None) == ("teacher" in fixed)
        )

    # --------------------------------------------------------------------------- what is run next

    def _ask(self, level: Level | None, seed: int) -> None:
        """Put the cells of a level and a seed in the queue; the last one measures."""
        found = cells.of(self.asked.at(level, seed))
        plan = planning.make(self.workspace, found, self.keep, 1)
        for cell in found:
            if cell.kind != "prune" and cell.key not in self._points:
                # A teacher comes with its pupil, and is the dense run of its seed.
                taken = cells.taken(cell.values) or (cell.kind == "eval" and bool(cell.needs))
                self._points[cell.key] = (level if taken else None, seed)
                if cell.key not in plan.runs:
                    self._new.add(cell.key)
        self.add(found, plan.runs)
        self._fresh = True

    def _stop(self, why: str) -> None:
        self.stopped_because = self.stopped_because or why

    def _propose(self) -> None:
        """Ask for the point that tells most; or say why none is."""
        while self.stopped_because is None:
            open_ = [p for k, p in self._points.items() if k not in self.runs | self.failed]
            if any(level is None for level, _ in open_) or len(open_) >= self.side:
                return
            self._require_dense()
            self.look()
            if self.stopped_because or self._is_narrow():
                self._stop(NARROW)
                return
            if self._is_spent():
                self._stop(BUDGET)
                return
            pending = [level for level, _ in open_ if level is not None]
            chosen = self._by_posterior(pending) if self.asked.trains else self._by_halving()
            if chosen is None or (not self.asked.trains and pending):
                if not pending:
                    self._stop(NOTHING)
                return
            self._ask(*chosen)
            if self.waiting:
                return

    def _require_dense(self) -> None:
        keys = [key for key, (level, _) in self._points.items() if level is None]
        broken = [self.failed[key] for key in keys if key in self.failed]
        if len(broken) == len(keys):
            raise JdnaError(f"the dense run failed: {broken[0]}")

    def _is_spent(self) -> bool:
        budget = self.asked.budget
        if budget.seconds is not None:
            return time.monotonic() - self._began >= budget.seconds
        return budget.runs is not None and self.begun >= budget.runs

    def _is_narrow(self) -> bool:
        """Whether the interval is as narrow as asked, and the answer was itself measured."""
        if self.known is None:
            return False
        if not self.asked.trains:
            below, above = self.bracket()
            return above - below <= self._gap() and self.known.width <= self.asked.precision
        low, middle, high = np.quantile(self._choosable(), [0.025, 0.5, 0.975])
        if self.asked.patterned:
            return bool(low == high) and self._unmeasured(float(middle)) is None
        return bool(high - low <= self.asked.precision)

    def _unmeasured(self, sparsity: float) -> Level | None:
        """The pattern of a sparsity, where it was not measured itself."""
        there = [0.0, *(row["sparsity"] for row in self.levels)]
        if any(abs(sparsity - x) < STEP / 10 for x in there):
            return None
        return next(x for x in self.asked.levels if abs(x.sparsity - sparsity) < STEP / 10)

    def _choosable(self) -> Any:
        """Samples of the critical sparsity, as what can be chosen."""
        assert self.known is not None
        assert self.known.samples is not None
        top = self.asked.levels[-1].sparsity
        samples = np.minimum(self.known.samples, top)
        if not self.asked.patterned:
            return samples
        steps = np.array([0.0, *(level.sparsity for level in self.asked.levels)])
        return steps[(steps[None] <= samples[:, None] + 1e-12).sum(axis=1) - 1]

    def _left(self, level: Level) -> list[int]:
        """Seeds that a level has not been run with."""
        used = {seed for one, seed in self._points.values() if one == level}
        for row in self.levels:
            if abs(row["sparsity"] - level.sparsity) < STEP / 10:
                used |= {one.seed for one in row["_seeds"]}
        return [seed for seed in self.asked.seeds if seed not in used]

    def _by_posterior(self, pending: list[Level]) -> tuple[Level, int] | None:
        free = [level for level in self.asked.levels if self._left(level)]
        samples = None if self.known is None else self.known.samples
        level = choice.by_posterior(samples, free, pending, self.side)
        if level is None and self.asked.patterned and self.known is not None:
            level = self._unmeasured(float(np.median(self._choosable())))
        return (level, self._left(level)[0]) if level in free and level else None

    # ------------------------------------------------------------------ where nothing is scattered

    def _gap(self) -> float:
        """How near the two ends of a bracket may come."""
        if not self.asked.patterned:
            return GAP
        below, above = self.bracket()
        between = [x for x in self.asked.levels if below < x.sparsity < above]
        return np.inf if not between else 0.0

    def bracket(self) -> tuple[float, float]:
        """The largest sparsity before the first that is too much, and that one."""
        above = self.asked.levels[-1].sparsity + STEP
        below = 0.0
        for row in self.levels:
            if row["mean_relative_drop"] > self.asked.tolerance:
                return below, row["sparsity"]
            below = row["sparsity"]
        return below, above

    def _by_halving(self) -> tuple[Level, int] | None:
        """The middle of the bracket; then the ends of what the examples leave open."""
        free = [level for level in self.asked.levels if self._left(level)]
        middle = choice.by_halving(self.bracket(), self._gap(), free)
        if middle is not None:
            return middle, self.asked.seeds[0]
        if self.known is None or self.known.low is None or self.asked.patterned:
            return None
        there = np.array([0.0, *(row["sparsity"] for row in self.levels)])
        for end in (self.known.low, self.known.high):
            if end is not None and np.abs(there - end).min() > self.asked.precision / 2:
                return min(free, key=lambda one: abs(one.sparsity - end)), self.asked.seeds[0]
        return None
