"""What is asked of a search for the critical sparsity, and what it may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jdna_cli.amounts import percent
from jdna_cli.errors import RequestError
from jdna_cli.specs import parse_pattern
from jdna_cli.sweeps.experiment import Experiment

FIRST_SEED = 41
GRID = 9  # sparsities of the grid that a search is measured by
STEP, MOST = 0.01, 0.95  # sparsities that are tried: every hundredth up to this
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Level:
    """One sparsity that may be tried."""

    sparsity: float
    pattern: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """As settings of a cell."""
        return {"pattern": self.pattern} if self.pattern else {"sparsity": self.sparsity}

    @property
    def words(self) -> str:
        """47% or 4:8."""
        return self.pattern or percent(self.sparsity)


@dataclass(frozen=True)
class Budget:
    """What a search may cost: so many trainings or evaluations, or seconds."""

    runs: int | None = None
    seconds: float | None = None

    @property
    def words(self) -> str:
        """As it is written."""
        return f"{self.runs} runs" if self.seconds is None else f"{self.seconds / 60:g} minutes"


@dataclass(frozen=True)
class Question:
    """One search.

    Attributes:
        template: an experiment with one model and one task and no levels; its command says whether
            models are trained.
        levels: what may be tried, rising.
        tolerance: drop that still counts as none.
        precision: width of the interval at which the search ends.
        budget: what it may cost.
    """

    template: Experiment
    levels: tuple[Level, ...]
    tolerance: float
    precision: float
    budget: Budget

    @property
    def trains(self) -> bool:
        """Whether models are fine-tuned, and scatter from seed to seed."""
        return self.template.command == "finetune"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of each level at most."""
        return self.template.seeds

    @property
    def patterned(self) -> bool:
        """Whether levels are N:M."""
        return self.levels[0].pattern is not None

    def at(self, level: Level | None, seed: int) -> Experiment:
        """The cells of one level and seed; None: the dense ones."""
        levels = () if level is None else (level.values,)
        return self.template.model_copy(
            update={"seeds": (seed,), "levels": levels, "dense": level is None or self._taught}
        )

    def on(self, template: Experiment) -> Question:
        """The same question of another template: its model found, its precision settled."""
        return replace(self, template=template)

    @property
    def _taught(self) -> bool:
        return "teacher" in self.template.fixed


def question(
    fixed: Mapping[str, Any], *, trains: bool, tolerance: float, seeds: int, precision: float,
    budget: str | None, patterns: str | None,
) -> Question:  # fmt: skip
    """A question, checked.

    Raises:
        RequestError: the tolerance, seeds, precision, budget or patterns make no sense.
    """
    if fixed.get("quantize") is not None:
        raise RequestError(
            "quantize: the search is for a sparsity, of weights that are not rounded"
        )
    if not 0 < tolerance < 1:
        raise RequestError("--tolerance: no two runs score alike: give more than 0, as 1%")
    if not 0 < precision < 1:
        raise RequestError("--precision: give the width of an interval, as 5%")
    levels = _steps() if patterns is None else _patterns(patterns)
    chosen = tuple(range(FIRST_SEED, FIRST_SEED + seeds)) if trains else (0,)
    template = Experiment(
        title="advise", command="finetune" if trains else "eval", seeds=chosen, fixed=dict(fixed)
    )
    allowed = _budget(budget, len(chosen), trains=trains)
    return Question(template, levels, tolerance, precision, allowed)


def _steps() -> tuple[Level, ...]:
    return tuple(Level(round(STEP * i, 4)) for i in range(1, round(MOST / STEP) + 1))


def _patterns(text: str) -> tuple[Level, ...]:
    """All N of an M, or those that are named."""
    if text.isascii() and text.isdigit() and 2 <= int(text) <= 256:
        named = [f"{n}:{text}" for n in range(int(text) - 1, 0, -1)]
    else:
        named = [part.strip() for part in text.split(",")]
    levels = []
    for name in named:
        try:
            n, m = parse_pattern(name)
        except ValueError as error:
            raise RequestError(f"--patterns: {name!r}: {error}; or give M alone, as 8") from None
        levels.append(Level(1 - n / m, f"{n}:{m}"))
    ordered = tuple(sorted(levels, key=lambda level: level.sparsity))
    if len({level.sparsity for level in ordered}) < len(ordered):
        raise RequestError(f"--patterns: {text}: two of them take as much as each other")
    return ordered


def _budget(text: str | None, seeds: int, *, trains: bool) -> Budget:
    """`12 runs`, `30m`; by default half the runs of a grid of nine sparsities × the seeds."""
    least = seeds + 1
    if text is None:
        return Budget(max(least, GRID * seeds // 2) if trains else 2 * GRID)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(runs?|[smhd])?\s*", text)
    if found is None or (found[2] not in _UNITS and "." in found[1]):
        raise RequestError(f"--budget: {text!r} is none: give it as `30m`, `2h`, or `12 runs`")
    if found[2] in _UNITS:
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds <= 0:
            raise RequestError("--budget: with no time at all nothing can be run")
        return Budget(None, seconds)
    if int(found[1]) < least:
        dense = f"{seeds} dense runs" if seeds > 1 else "the dense run"
        raise RequestError(
            f"--budget: {found[1]} runs are too few for {dense} and a pruned one: give "
            f"{least} at least" + (", or fewer --seeds" if seeds > 1 else "")
        )
    return Budget(int(found[1]))
