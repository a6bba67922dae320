"""What a person sees of a search for the critical sparsity: how it closes in, and the answer."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from jdna_cli import command_line
from jdna_cli.cli.live_board import LiveBoard
from jdna_cli.console import say, tell
from jdna_cli.reports import cells as measured
from jdna_cli.reports.catalogue import advise as report
from jdna_cli.tasks.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from jdna_cli.advising.advice import Advice
    from jdna_cli.advising.question import Question
    from jdna_cli.advising.search import Search
    from jdna_cli.reports.query import Row
    from jdna_cli.sweeps.cells import Cell
    from jdna_cli.sweeps.queue import State

WIDTH = 30  # of a bar


class Progress(LiveBoard):
    """Shows a search: a line per run, with the bracket as it is then."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def __enter__(self) -> Self:
        runs = sum(row["n"] for row in self._search.knowledge.levels)
        if runs:
            self._line(f"in the database: {runs} pruned runs · {_bracket(self._search)}")
        return super().__enter__()

    def ended(self, cell: Cell, worker: int, event: dict[str, Any], state: State) -> None:
        """A cell has ended; of one that measures, what is known by now."""
        self._rows.pop(worker, None)
        if event["event"] != "done":
            what = "again" if event.get("again") else "FAILED"
            self._line(f"{what} · {cell.title} · {event['error']}")
            return
        point = self._search.point(cell)
        if point is None:
            return
        level, seed = point
        parts = ["dense" if level is None else level.words]
        parts += [f"seed {seed}"] if self._search.asked.trains else []
        if event["score"]:
            name, value = event["score"]
            parts.append(f"{name} {value:.4g}")
        parts.append("from the database" if event["cached"] else f"{event['seconds']:.0f} s")
        self._search.look()
        parts += [bracket] if (bracket := _bracket(self._search)) else []
        self._line(" · ".join(parts))


def _bracket(search: Search) -> str:
    """Where the critical sparsity lies, as far as is known."""
    known = search.knowledge.known
    if known is None:
        return ""
    low, high = (known.low, known.high) if search.asked.trains else search.knowledge.bracket
    if low is None or high is None:
        return ""
    if search.asked.patterned:
        names = {level.sparsity: level.words for level in search.asked.levels} | {0.0: "dense"}
        ends = [names[min(names, key=lambda x: abs(x - end))] for end in (low, high)]
        return ends[0] if ends[0] == ends[1] else f"between {ends[0]} and {ends[1]}"
    top = search.asked.levels[-1].sparsity
    return f"between {low:.0%} and {f'{high:.0%}' if high <= top else f'more than {top:.0%}'}"


def show(found: Advice, asked: Question, plot: Path | None, as_json: bool) -> None:
    """Print the answer, and what it rests on; exit code 1 where a run has failed."""
    row = found.row
    if plot is not None and row is not None:
        from jdna_cli.reports.rendering import plots

        plots.draw(report.figure([row]), plot)
    if as_json:
        print(json.dumps(_as_json(found, asked, plot), allow_nan=False))
    else:
        for line in _lines(found, asked):
            tell(line)
        if plot is not None and row is not None:
            tell(f"plot: {plot}")
    for title, error in found.failed:
        say(f"jdna: failed: {title}: {error}")
    if found.failed:
        raise typer.Exit(1)


def _as_json(found: Advice, asked: Question, plot: Path | None) -> dict[str, Any]:
    row = found.row or {}
    return {
        "critical": found.critical,
        "pattern": row.get("pattern"),
        "tolerance": asked.tolerance,
        "runs": list(found.runs),
        "runs_begun": found.begun,
        "runs_of_a_grid": found.grid,
        "seeds": row.get("seeds"),
        "examples": found.examples,
        "interval_over": row.get("interval_over"),
        "stopped_because": found.stopped_because,
        "warnings": report.warnings(row) if row else [],
        "levels": [
            {"sparsity": one["sparsity"], "pattern": one["pattern"], "runs": one["n"],
             "score": one["score"], "relative_drop": one["mean_relative_drop"]}
            for one in row.get("_levels", ())
        ],
        "command": _command(row, asked) if row else None,
        "plot": str(plot) if plot else None,
        "failed": [{"cell": title, "error": error} for title, error in found.failed],
    }  # fmt: skip


def _lines(found: Advice, asked: Question) -> list[str]:
    """The answer in plain words, the curve, and the command that makes the model."""
    row = found.row
    if row is None:
        return [f"no answer: {found.stopped_because}"]
    lines = [report.sentence(row), *report.warnings(row)]
    lines.append(f"ended because {found.stopped_because}.")
    dense = len(found.runs) - row["runs"]
    over = f" on {found.examples:,} examples" if found.examples else ""
    lines.append(
        f"rests on {len(found.runs)} runs{over}: {dense} dense, {row['runs']} at {row['levels']} "
        f"{'patterns' if asked.patterned else 'sparsities'}; {found.begun} of them run now. "
        f"A grid would have taken {found.grid}."
    )
    lines += ["", *_curve(row), ""]
    if (command := _command(row, asked)) is not None:
        lines.append(f"make it: {command}")
    return lines


def _curve(row: Row) -> list[str]:
    """A bar per level measured, with a mark where the tolerance is."""
    drops = [one["mean_relative_drop"] for one in row["_levels"]]
    highest = max(*drops, 2 * row["tolerance"])
    mark = round(WIDTH * row["tolerance"] / highest)
    lower = row["metric"] in LOWER_IS_BETTER
    lines = [f"{'pruned':>8} {row['metric']:>10} {'drop':>7}  {'':<{mark}}┊ {row['tolerance']:.1%}"]
    for one in row["_levels"]:
        drop = one["mean_relative_drop"]
        full = max(0, round(WIDTH * drop / highest))
        bar = "".join(
            "┊" if i == mark and i >= full else "█" if i < full else " " for i in range(WIDTH + 1)
        ).rstrip()
        score = f"{one['score']:.4g}" if lower else measured.score(row["metric"], one["score"])
        times = f" × {one['n']}" if one["n"] > 1 else ""
        lines.append(
            f"{measured.level(one)[1]:>8} {score:>10} {measured.percent(drop):>7}  {bar}{times}"
        )
    return lines


def _command(row: Row, asked: Question) -> str | None:
    """What makes the model of the answer; None where nothing may go."""
    found = row["critical_sparsity"]
    if row["at_chance"] or (asked.patterned and row["pattern"] is None) or found < 0.005:
        return None
    # Rounded down: a little less is well, a little more may not be.
    level = {"pattern": row["pattern"]} if asked.patterned else {"sparsity": int(found * 100) / 100}
    fixed = dict(asked.template.fixed)
    if asked.trains:
        values = {**fixed, **level, "seed": asked.seeds[0]}
        return shlex.join(command_line.words("finetune", values))
    from jdna_cli.specs import PruneSpec

    own = {name: value for name, value in fixed.items() if name in PruneSpec.model_fields}
    return shlex.join(command_line.words("prune", {**own, **level}))
