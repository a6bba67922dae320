"""A sweep before it starts and after it has ended, as a person or a program reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from jdna_cli.cli import report_output
from jdna_cli.cli.sweep_progress import duration
from jdna_cli.console import say, tell

if TYPE_CHECKING:
    from jdna_cli.sweeps.experiment import Experiment
    from jdna_cli.sweeps.planning import Plan
    from jdna_cli.sweeps.queue import State


_PAPER = "Yin et al. 2024 (arXiv 2310.02277)"


def show_list(as_json: bool) -> None:
    """The experiments that come with jdna."""
    from jdna_cli.reports.rendering import tables
    from jdna_cli.sweeps import cells, experiment

    found = []
    for name in experiment.names():
        asked = experiment.find(name)
        found.append({"name": name, "title": asked.title, "source": asked.source,
                      "cells": len(cells.of(asked)), "model": _models(asked)})  # fmt: skip
    if as_json:
        print(json.dumps({"experiments": found}))
        return
    columns = ("name", "cells", "model", "source")  # a title says what a name says
    table = [[str(row[k]).replace(f"{_PAPER}, ", "paper, ") for k in columns] for row in found]
    tables.plain(columns, table)
    tell(f"paper: {_PAPER}")


def _models(asked: Any) -> str:
    own = asked.axes.get("model", [asked.fixed.get("model", "")])
    return str(own[0]) if len(own) == 1 else f"{len(own)} models"


def print_commands(plan: Plan, where: Any) -> None:
    """The waiting cells as command lines."""
    from jdna_cli.sweeps import run_cell

    later = 0
    for cell in plan.waiting:
        line = run_cell.command(cell, where, plan.runs)
        later += line is None
        if line is not None:
            print(line)
    if later:
        print(f"# {later} cells take runs of these: ask again when they are done")


def show_plan(name: str, title: str, plan: Plan, examples: dict[str, int], as_json: bool) -> None:
    """What would be run, in what time and room, and how sure a score will be."""
    from jdna_cli.sweeps import planning

    told = {**planning.as_json(plan), "examples": examples}
    if as_json:
        print(json.dumps({"experiment": name, **told}))
        return
    tell(f"{name} · {title}")
    tell(f"cells: {told['cells']} · in the database: {told['recorded']}")
    if plan.waiting:
        kinds = " · ".join(f"{count} {kind}" for kind, count in told["waiting"].items())
        tell(f"to run: {kinds}")
        known = len(plan.waiting) - plan.unknown
        if known:
            tell(f"time, one after the other: {duration(plan.seconds)} for {known} of them, "
                  "by past runs of the same model and task")  # fmt: skip
        if plan.unknown:
            tell(f"time not known: {plan.unknown} cells, nothing like them has been run here")
        tell(f"disk, at most: {plan.disk / 1e9:.2f} GB of models")
        for task, count in examples.items():
            tell(f"{task}: {count:,} examples, so that the 95 % interval of a score of one run is "
                 f"± {_half_width(count):.1f} points at most")  # fmt: skip
        if plan.unmeasured:
            tell(f"size not known, not here yet: {', '.join(plan.unmeasured)}")


def _half_width(count: int) -> float:
    """Of the normal interval of a share of a half, in points: no share has a wider one."""
    return float(98 / count**0.5)


@dataclass(frozen=True)
class Result:
    """A sweep that has ended."""

    name: str
    experiment: Experiment
    plan: Plan
    state: State
    seconds: float


def _answer(result: Result, url: str, home: Path) -> str:
    """What the test that the experiment states says of its runs."""
    from jdna_cli.cli.sweep_models import filters_of
    from jdna_cli.reports import hypothesis, verdict_words
    from jdna_cli.reports.query import source_of

    source = source_of(url, home, filters_of(result.experiment), test=result.experiment.test)
    return verdict_words.sentence(hypothesis.judge(source))


def finish(result: Result, url: str, home: Path, plot: Path | None, as_json: bool) -> None:
    """The report, and a table of what failed; exit code 1 where something did."""
    plan, state = result.plan, result.state
    failures = [
        {"cell": state.cells[key].title, "error": error} for key, error in state.failed.items()
    ]
    if as_json:
        found = {
            "experiment": result.name,
            "cells": len(plan.cells),
            "run": len(state.runs) - len(plan.runs),
            "recorded_before": len(plan.runs),
            "failed": failures,
            "lost_workers": state.lost,
            "seconds": result.seconds,
            "runs": sorted(set(state.runs.values())),
        }
        print(json.dumps(found))
    else:
        if state.runs:
            from jdna_cli.reports.query import source_of

            source = source_of(url, home)
            targets = report_output.Targets(plot=plot)
            print(report_output.write(result.experiment.report, source, targets), end="")
            if result.experiment.test is not None:
                print(f"\n{_answer(result, url, home)}")
        tell(f"{len(state.runs) - len(plan.runs)} cells run, {len(plan.runs)} from the database, "
              f"{len(failures)} failed · {duration(result.seconds)}")  # fmt: skip
        if failures:
            from jdna_cli.reports.rendering import tables

            print("\nfailed:")
            tables.plain(("cell", "why"), [[f["cell"], f["error"]] for f in failures])
    if failures:
        say(f"jdna: {len(failures)} cells failed; the same command tries them again")
        raise typer.Exit(1)
