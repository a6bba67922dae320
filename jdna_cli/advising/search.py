"""The search for the critical sparsity: cells of a sweep, chosen one after the other.

Where models are trained: probabilistic bisection (Horstein 1963; Waeber, Frazier and Henderson
2013). The next run is where the critical sparsity is as likely above as below, by the posterior of
all that is recorded; several at a time share its quantiles. Where nothing is trained, a score is
what it is: the bracket is halved, and then the curve is measured at the ends of the interval that
the examples leave.

All runs are ordinary ones. What is known is read from the database after each: earlier runs count,
and a search that was stopped goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from jdna_cli.advising import choice
from jdna_cli.advising.knowledge import Knowledge
from jdna_cli.advising.question import Level, Question
from jdna_cli.errors import JdnaError
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.sweeps import cells, planning
from jdna_cli.sweeps.cells import Cell
from jdna_cli.sweeps.queue import State

NARROW = "the interval is narrower than asked"
BUDGET = "the budget is spent"
CHANCE = "the dense model is at chance level"
NOTHING = "no other run would tell more"


@dataclass
class Search(State):
    """The queue of a search: a cell is asked for, and it says which.

    Attributes:
        asked: the question.
        workspace: where all is recorded.
        knowledge: what is known by now.
        side: how many points are worked at side by side.
        stopped_because: set when nothing more is begun.
    """

    asked: Question = field(kw_only=True)
    workspace: OpenWorkspace = field(kw_only=True)
    knowledge: Knowledge = field(kw_only=True)
    side: int = field(default=1, kw_only=True)
    stopped_because: str | None = field(default=None, init=False)
    _points: dict[str, tuple[Level | None, int]] = field(default_factory=dict, init=False)
    _new: set[str] = field(default_factory=set, init=False)
    _fresh: bool = field(default=True, init=False)  # runs have ended since the last look
    _began: float = field(default_factory=time.monotonic, init=False)

    def begin_search(self) -> None:
        """Ask for the dense runs; what the database has is found at once.

        Raises:
            RequestError: the request is wrong.
        """
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

    @property
    def begun(self) -> int:
        """Trainings or evaluations that were begun by this search."""
        return len(self._new)

    def next(self) -> Cell | None:
        """A cell that waits, else one of the point that tells most."""
        cell = super().next()
        if cell is None and self.stopped_because is None:
            self._propose()
            cell = super().next()
        return cell

    def done(self, key: str, run: int, folder: Path) -> None:
        """A cell has its run."""
        super().done(key, run, folder)
        self._fresh = self._fresh or key in self._points

    def point(self, cell: Cell) -> tuple[Level | None, int] | None:
        """Level and seed of a cell that measures; None of one that only prunes."""
        return self._points.get(cell.key)

    def look(self) -> None:
        """Read what the database says by now."""
        dense = [self.runs[k] for k, (level, _) in self._points.items()
                 if level is None and k in self.runs]  # fmt: skip
        recipe = self.ledger.get(dense[0]).recipe if dense else None
        if self._fresh and recipe is not None:
            self._fresh = False
            self.knowledge.look(recipe)

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

    def _propose(self) -> None:
        """Ask for the point that tells most; or say why none is."""
        while self.stopped_because is None:
            open_ = [p for k, p in self._points.items() if k not in self.runs | self.failed]
            if any(level is None for level, _ in open_) or len(open_) >= self.side:
                return
            self._require_dense()
            self.look()
            self.stopped_because = self._enough()
            if self.stopped_because is not None:
                return
            pending = [level for level, _ in open_ if level is not None]
            if pending and not self.asked.trains:
                return  # the next half depends on it
            chosen = self._chosen(pending)
            if chosen is None:
                if not pending:
                    self.stopped_because = NOTHING
                return
            self._ask(*chosen)
            if self.waiting:
                return

    def _require_dense(self) -> None:
        keys = [key for key, (level, _) in self._points.items() if level is None]
        broken = [self.failed[key] for key in keys if key in self.failed]
        if len(broken) == len(keys):
            raise JdnaError(f"the dense run failed: {broken[0]}")

    def _enough(self) -> str | None:
        """Why nothing more is begun; None where something is."""
        if self.knowledge.at_chance:
            return CHANCE
        if self.knowledge.is_narrow():
            return NARROW
        budget = self.asked.budget
        if budget.seconds is not None:
            spent = time.monotonic() - self._began >= budget.seconds
        else:
            spent = budget.runs is not None and self.begun >= budget.runs
        return BUDGET if spent else None

    def _left(self, level: Level) -> list[int]:
        """Seeds that a level has not been run with."""
        used = {seed for one, seed in self._points.values() if one == level}
        return [s for s in self.asked.seeds if s not in used | self.knowledge.seeds_of(level)]

    def _chosen(self, pending: list[Level]) -> tuple[Level, int] | None:
        """The level that tells most, with a seed that is left."""
        known = self.knowledge
        free = [level for level in self.asked.levels if self._left(level)]
        if self.asked.trains:
            level = choice.by_posterior(known.samples, free, pending, self.side)
            if level is None and self.asked.patterned:
                level = known.unmeasured()
        else:
            level = choice.by_halving(known.bracket, known.gap, free)
            if level is None and free and (end := known.loose_end()) is not None:
                level = min(free, key=lambda one: abs(one.sparsity - end))
        return (level, self._left(level)[0]) if level in free and level else None
