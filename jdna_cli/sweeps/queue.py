"""Which cell is next, which has failed, whose model may go: the same for every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jdna_cli.store.ledger import Ledger
from jdna_cli.sweeps import run_cell
from jdna_cli.sweeps.cells import Cell, dependants

KEEP = ("none", "last", "all")


@dataclass
class State:
    """The cells of a sweep, and what has become of each."""

    cells: dict[str, Cell]
    runs: dict[str, int]
    ledger: Ledger
    keep: str = "none"
    retries: int = 1
    waiting: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    lost: int = 0  # workers that died

    @staticmethod
    def begin(
        cells: Iterable[Cell], runs: dict[str, int], ledger: Ledger, keep: str, retries: int
    ) -> State:
        """All cells that `runs` has not are waiting; the models that they need are held."""
        state = State({}, {}, ledger, keep, retries)
        state.add(cells, runs)
        return state

    def add(self, cells: Iterable[Cell], runs: dict[str, int]) -> None:
        """More cells, and what the database has of them."""
        for cell in cells:
            if cell.key in self.cells:
                continue
            self.cells[cell.key] = cell
            if cell.key in runs:
                self.runs[cell.key] = runs[cell.key]
            else:
                self.waiting.append(cell.key)
        self.__dict__.pop("_users", None)
        for key in self.waiting:
            for need in self.cells[key].needs:
                if need in self.runs:
                    self.ledger.hold(self.runs[need])

    @property
    def most(self) -> int:
        """How many cells can be worked at side by side, at most."""
        return len(self.waiting)

    @functools.cached_property
    def _users(self) -> dict[str, set[str]]:
        """The cells that need each cell."""
        return dependants(self.cells.values())

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not self.waiting and not self.running

    def next(self) -> Cell | None:
        """A waiting cell whose needs are met, now running; cells whose needs failed fail too."""
        for key in list(self.waiting):
            cell = self.cells[key]
            if broken := next((k for k in cell.needs if k in self.failed), None):
                self.waiting.remove(key)
                self.failed[key] = f"not run: needs {self.cells[broken].title!r}, which failed"
                continue
            if all(need in self.runs for need in cell.needs):
                self.waiting.remove(key)
                self.running.add(key)
                return cell
        return None

    def keeps(self, cell: Cell) -> bool:
        """Whether anybody wants the model of a cell when it is done."""
        return self.keep != "none" or self.is_wanted(cell)

    def is_wanted(self, cell: Cell) -> bool:
        """Whether another cell takes the model of this one."""
        return bool(self._users.get(cell.key))

    def done(self, key: str, run: int, folder: Path) -> None:
        """A cell has its run."""
        self.running.discard(key)
        self.runs[key], self.folders[key] = run, folder
        if self._users.get(key):
            self.ledger.hold(run)
        self._release(key)

    def fails(self, key: str, error: str, *, final: bool) -> bool:
        """A cell has failed; returns whether it is tried again."""
        self.running.discard(key)
        self.tries[key] = self.tries.get(key, 0) + 1
        if final or self.tries[key] > self.retries:
            self.failed[key] = error
            return False
        self.waiting.insert(0, key)
        return True

    def died(self, key: str, how: str, limit: int) -> bool:
        """The process of a cell is gone; returns whether it is tried again.

        That it died is not the cell's doing, so far as anyone knows: it may die `limit` times.
        """
        self.lost += 1
        self.running.discard(key)
        self.tries[key] = self.tries.get(key, 0) + 1
        if self.tries[key] > limit:
            self.failed[key] = how
            return False
        self.waiting.insert(0, key)
        return True

    def _release(self, key: str) -> None:
        """Take away models that no cell needs any more."""
        if self.keep == "all":
            return
        for near in (key, *self.cells[key].needs):
            folder = self.folders.get(near)
            users = self._users.get(near, set())
            if folder is None or (self.keep == "last" and not users):
                continue
            # One that failed will be tried again by the same command.
            if all(user in self.runs for user in users):
                run_cell.release(self.ledger, self.runs[near], folder)
