"""`jdna sweep`: a whole experiment, shown while it runs, and its report."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jdna_cli.cli import completing, sweep_models, sweep_output
from jdna_cli.cli.opening import open_workspace, url_of
from jdna_cli.cli.options import common
from jdna_cli.cli.sweep_progress import SweepProgress
from jdna_cli.errors import RequestError

if TYPE_CHECKING:
    from jdna_cli.store.ledger import Ledger
    from jdna_cli.sweeps.backends.remote import Submitter
    from jdna_cli.sweeps.queue import State
    from jdna_cli.sweeps.run_cell import SweepSettings


Engine = Literal["local", "ray", "slurm"]
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
    engine: Annotated[Engine, typer.Option(help="What runs the cells.")] = "local",
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
                if engine == "local":
                    local.run(state, where, progress, divided)
                else:
                    submitter: Submitter
                    if engine == "ray":
                        submitter = _ray(address, per_device, memory)
                    else:
                        submitter = _slurm(home / ".slurm", slurm_cluster, minutes, memory, gpus)
                    _run_elsewhere(state, where, progress, submitter, workspace.ledger)
        seconds = time.monotonic() - began
        result = sweep_output.Result(experiment, asked, plan, state, seconds)
        sweep_output.finish(result, url_of(home, db), home, plot, as_json)


def _ray(address: str | None, per_device: int, memory: float | None) -> Submitter:
    from jdna_cli.sweeps.backends.on_ray import OnRay

    return OnRay(address, per_device, memory)


def _slurm(
    folder: Path, cluster: str | None, minutes: int, memory: float | None, gpus: int
) -> Submitter:
    from jdna_cli.sweeps.backends.on_slurm import OnSlurm

    return OnSlurm(folder, cluster, minutes, memory, gpus)


def _run_elsewhere(
    state: State,
    where: SweepSettings,
    progress: SweepProgress,
    submitter: Submitter,
    ledger: Ledger,
) -> None:
    from jdna_cli.sweeps.backends import remote

    # What schedulers print is no result of ours.
    with contextlib.redirect_stdout(sys.stderr):
        remote.run(state, where, progress, submitter, ledger)
