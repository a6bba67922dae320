"""`jdna sweep`: a whole experiment, shown while it runs, and its report."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jdna_cli import registry
from jdna_cli.cli import completing
from jdna_cli.cli import options as o
from jdna_cli.cli.sweep_progress import SweepProgress, duration
from jdna_cli.console import say, tell
from jdna_cli.errors import RequestError

if TYPE_CHECKING:
    from jdna_cli.sweeps.planning import Plan
    from jdna_cli.sweeps.queue import State


class Engine(StrEnum):
    """What runs the cells."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


class Keep(StrEnum):
    """Which models stay."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


def sweep(
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Name of an experiment (`jdna sweep --list`), or a TOML file that describes one.",
            show_default=False,
            autocompletion=completing.experiments,
        ),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Experiments that come with jdna, and their cells.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Run it on this model in place of the experiment's own.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and stop.")
    ] = False,
    as_commands: Annotated[
        bool,
        typer.Option(
            "--commands", help="Print the waiting cells as command lines, for another scheduler."
        ),
    ] = False,
    engine: Annotated[Engine, typer.Option(help="What runs the cells.")] = Engine.LOCAL,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; by default one per GPU, else up to 4.", min=1),
    ] = None,
    per_device: Annotated[
        int, typer.Option(help="Workers that share a GPU, for small cells.", min=1)
    ] = 1,
    address: Annotated[
        str | None, typer.Option(help="Ray: the cluster to join; by default one is started here.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GB", help="Ray, Slurm: memory that a cell needs.")
    ] = None,
    minutes: Annotated[int, typer.Option(help="Slurm: time that a cell may take.", min=1)] = 240,
    gpus: Annotated[int, typer.Option(help="Slurm: GPUs that a cell needs.", min=0)] = 0,
    slurm_cluster: Annotated[
        str | None,
        typer.Option(help="Slurm: `local` runs the jobs as processes here, to try it out."),
    ] = None,
    retries: Annotated[
        int, typer.Option(help="How often a failed cell is tried again.", min=0)
    ] = 1,
    keep: Annotated[
        Keep,
        typer.Option(
            help="Models that stay: none, those that no other cell takes, or all. Metrics, masks "
            "and predictions always do."
        ),
    ] = Keep.NONE,
    plot: o.Plot = None,
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    allow_pickle: o.AllowPickle = False,
    as_json: o.Json = False,
) -> None:
    """Run a whole experiment: every cell that the database has not, then its report.

    It may be stopped or killed at any time: the same command goes on where it was.
    """
    from jdna_cli.cli.commands import open_workspace
    from jdna_cli.sweeps import cells, planning
    from jdna_cli.sweeps import experiment as experiments

    if list_all:
        _list(as_json)
        return
    if experiment is None:
        raise RequestError("name an experiment, or a file: `jdna sweep --list` shows what there is")
    asked = experiments.find(experiment)
    if model is not None:
        asked = asked.model_copy(update={"fixed": {**asked.fixed, "model": model}})
        asked.axes.pop("model", None)
    with open_workspace(home, db, data_dir, allow_pickle=allow_pickle) as workspace:
        asked = _with_own_models(asked, workspace.ledger.home)
        asked = _with_precision(asked, engine)
        from jdna_cli.sweeps import queue, run_cell
        from jdna_cli.sweeps.backends import local

        divided = local.shares(workers, per_device)
        plan = planning.make(workspace, cells.of(asked), keep.value, len(divided))
        where = run_cell.SweepSettings(
            str(home), db, str(data_dir) if data_dir else None, allow_pickle, experiment
        )
        if as_commands:
            _print_commands(plan, where)
            return
        if dry_run:
            _show_plan(experiment, asked.title, plan, as_json)
            return
        planning.require_room(plan, home)
        state = queue.State.begin(plan.cells, plan.runs, keep.value, retries)
        began = time.monotonic()
        if state.waiting:
            with SweepProgress(asked.title, plan) as board:
                if engine is Engine.LOCAL:
                    local.run(state, where, board, divided, plan.forced)
                else:
                    from jdna_cli.sweeps.backends import remote

                    if engine is Engine.RAY:
                        from jdna_cli.sweeps.backends.on_ray import OnRay

                        submitter: remote.Submitter = OnRay(address, per_device, memory)
                    else:
                        from jdna_cli.sweeps.backends.on_slurm import OnSlurm

                        submitter = OnSlurm(home / ".slurm", slurm_cluster, minutes, memory, gpus)
                    # What schedulers print is no result of ours.
                    with contextlib.redirect_stdout(sys.stderr):
                        remote.run(state, where, board, submitter, workspace.ledger)
        _finish(experiment, asked.report, plan, state, time.monotonic() - began, _url(home, db),
                home, plot, as_json)  # fmt: skip


def _url(home: Path, db: str | None) -> str:
    """The database of these options."""
    from jdna_cli.cli.inspection import url_of

    return url_of(home, db)


def _with_own_models(asked: Any, home: Path) -> Any:
    """An experiment with the folders of those models that come with jdna."""
    from jdna_cli.cli.demonstration import MODEL, model_folder

    def found(name: Any) -> Any:
        if name == MODEL:
            return str(model_folder(home))
        if str(name).startswith("tiny-") and not Path(str(name)).is_dir():
            folder = home / "models" / str(name)
            if not folder.is_dir():
                from jdna_cli.models import tiny_models

                registry.check("tiny model", str(name), tiny_models.NAMES)
                tiny_models.make(str(name), folder)
            return str(folder)
        return name

    changed: dict[str, Any] = {}
    if "model" in asked.fixed:
        changed["fixed"] = {**asked.fixed, "model": found(asked.fixed["model"])}
    if "model" in asked.axes:
        changed["axes"] = {**asked.axes, "model": [found(name) for name in asked.axes["model"]]}
    return asked.model_copy(update=changed)


def _with_precision(asked: Any, engine: Engine) -> Any:
    """An experiment with its precision by name, and a line where it will be slow."""
    from jdna_cli.compute import precision
    from jdna_cli.sweeps import experiment as experiments

    if experiments.says_auto(asked):
        chosen = precision.automatic()
        if engine is not Engine.LOCAL:
            say(f"mixed_precision auto: {chosen}, as on this machine; name one in the "
                "experiment's file if the machines of its cells differ")  # fmt: skip
        return experiments.with_precision(asked, chosen)
    if engine is Engine.LOCAL:
        named = asked.fixed.get("mixed_precision", "no"), asked.fixed.get("dtype", "float32")
        if slow := precision.warning(*named):
            say(slow)
    return asked


def _list(as_json: bool) -> None:
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
    tables.plain(columns, [[str(row[k]) for k in columns] for row in found])


def _models(asked: Any) -> str:
    own = asked.axes.get("model", [asked.fixed.get("model", "")])
    return str(own[0]) if len(own) == 1 else f"{len(own)} models"


def _print_commands(plan: Plan, where: Any) -> None:
    from jdna_cli.sweeps import run_cell

    later = 0
    for cell in plan.waiting:
        line = run_cell.command(cell, where, plan.runs)
        later += line is None
        if line is not None:
            print(line)
    if later:
        print(f"# {later} cells take runs of these: ask again when they are done")


def _show_plan(name: str, title: str, plan: Plan, as_json: bool) -> None:
    from jdna_cli.sweeps import planning

    told = planning.as_json(plan)
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
        if plan.unmeasured:
            tell(f"size not known, not here yet: {', '.join(plan.unmeasured)}")


def _finish(
    name: str, report: str, plan: Plan, state: State, seconds: float, url: str,
    home: Path, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """The report, and a table of what failed; exit code 1 where something did."""
    from jdna_cli.cli import reporting

    failures = [
        {"cell": state.cells[key].title, "error": error} for key, error in state.failed.items()
    ]
    if as_json:
        found = {
            "experiment": name,
            "cells": len(plan.cells),
            "run": len(state.runs) - len(plan.runs),
            "recorded_before": len(plan.runs),
            "failed": failures,
            "lost_workers": state.lost,
            "seconds": seconds,
            "runs": sorted(set(state.runs.values())),
        }
        print(json.dumps(found))
    else:
        if state.runs:
            from jdna_cli.reports.query import source_of

            source = source_of(url, home)
            print(reporting.write(report, source, reporting.Targets(plot=plot)), end="")
        tell(f"{len(state.runs) - len(plan.runs)} cells run, {len(plan.runs)} from the database, "
              f"{len(failures)} failed · {duration(seconds)}")  # fmt: skip
        if failures:
            from jdna_cli.reports.rendering import tables

            print("\nfailed:")
            tables.plain(("cell", "why"), [[f["cell"], f["error"]] for f in failures])
    if failures:
        say(f"jdna: {len(failures)} cells failed; the same command tries them again")
        raise typer.Exit(1)
