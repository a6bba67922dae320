"""`jdna sweep`: a whole experiment, shown while it runs, and its report."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from jdna_cli.cli import completing, sweep_models, sweep_output
from jdna_cli.cli.engines import Engine
from jdna_cli.cli.opening import open_workspace, url_of
from jdna_cli.cli.options import common, engines
from jdna_cli.cli.sweep_progress import SweepProgress
from jdna_cli.errors import RequestError

Keep = Literal["none", "last", "all"]


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
    engine: engines.Engine = "local",
    workers: engines.Workers = None,
    per_device: engines.PerDevice = 1,
    address: engines.Address = None,
    memory: engines.Memory = None,
    minutes: engines.Minutes = 240,
    gpus: engines.Gpus = 0,
    slurm_cluster: engines.SlurmCluster = None,
    retries: engines.Retries = 1,
    keep: Annotated[
        Keep,
        typer.Option(
            help="Models that stay: none, those that no other cell takes, or all. Metrics, masks "
            "and predictions always do."
        ),
    ] = "none",
    plot: common.Plot = None,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    as_json: common.Json = False,
) -> None:
    """Run a whole experiment: every cell that the database has not, then its report.

    It may be stopped or killed at any time: the same command goes on where it was.
    """
    if list_all:
        sweep_output.show_list(as_json)
        return
    if experiment is None:
        raise RequestError("name an experiment, or a file: `jdna sweep --list` shows what there is")
    from jdna_cli.sweeps.experiment import find, on_model

    asked = find(experiment)
    if model is not None:
        asked = on_model(asked, model)
    with open_workspace(home, db, data_dir, allow_pickle=allow_pickle) as workspace:
        asked = sweep_models.with_own_models(asked, workspace.ledger.home)
        asked = sweep_models.with_precision(asked, engine)
        from jdna_cli.sweeps import cells, planning, queue
        from jdna_cli.sweeps.backends import local
        from jdna_cli.sweeps.run_cell import SweepSettings

        divided = local.shares(workers, per_device)
        plan = planning.make(workspace, cells.of(asked), keep, len(divided))
        where = SweepSettings(
            str(home), db, str(data_dir) if data_dir else None, allow_pickle, experiment
        )
        if as_commands:
            sweep_output.print_commands(plan, where)
            return
        if dry_run:
            examples = planning.examples_measured(workspace, plan.cells)
            sweep_output.show_plan(experiment, asked.title, plan, examples, as_json)
            return
        planning.require_room(plan, home)
        state = queue.State.begin(plan.cells, plan.runs, workspace.ledger, keep, retries)
        began = time.monotonic()
        if state.waiting:
            with SweepProgress(asked.title, plan) as progress:
                by = Engine(
                    engine, divided, per_device, address, memory, minutes, gpus, slurm_cluster
                )
                by.run(state, where, progress, workspace.ledger)
        seconds = time.monotonic() - began
        result = sweep_output.Result(experiment, asked, plan, state, seconds)
        sweep_output.finish(result, url_of(home, db), home, plot, as_json)
