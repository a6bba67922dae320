"""`jdna advise`: how far a model may be pruned for a task, found with as few runs as it takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jdna_cli.cli.asked import fraction, was_said, was_set
from jdna_cli.cli.opening import open_workspace, url_of
from jdna_cli.cli.options import common, engines, measuring, pruning, recipe
from jdna_cli.errors import RequestError
from jdna_cli.specs import EvalSpec, FinetuneSpec, PruneSpec

_TUNED, _MEASURED = FinetuneSpec.model_fields, EvalSpec.model_fields
_SEARCH = "Search"


def _search(flag: str, text: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=_SEARCH, **more)


Tolerance = Annotated[str, _search("--tolerance", "Drop that still counts as none, as 1% or 0.01.")]
Seeds = Annotated[
    int, _search("--seeds", "Seeds of the dense model, and of each sparsity at most.", min=1)
]
Budget = Annotated[
    str | None,
    _search(
        "--budget",
        "What it may cost: `12 runs`, `30m`, `2h`; by default half the runs of a grid of nine "
        "sparsities and all seeds.",
        show_default=False,
    ),
]
Precision = Annotated[
    str, _search("--precision", "Width of the 95 % interval at which the search ends.")
]
Patterns = Annotated[
    str | None,
    _search(
        "--patterns",
        "Walk these patterns in place of sparsities: 7:8,4:8,2:8, or 8 for all of 8.",
        metavar="N:M,…|M",
    ),
]
Finetune = Annotated[
    bool,
    _search(
        "--finetune/--no-finetune", "Train each model on the task, or prune and measure alone."
    ),
]


def advise(
    context: typer.Context,
    model: common.Model,
    task: common.Task,
    tolerance: Tolerance = "1%",
    seeds: Seeds = 3,
    budget: Budget = None,
    precision: Precision = "5%",
    patterns: Patterns = None,
    finetune: Finetune = True,
    criterion: pruning.Criterion = _TUNED["criterion"].default,
    scope: pruning.Scope = None,
    allocation: pruning.Allocation = None,
    include: pruning.Include = None,
    exclude: pruning.Exclude = None,
    calibration: pruning.Calibration = None,
    calibration_samples: pruning.CalibrationSamples = _TUNED["calibration_samples"].default,
    calibration_length: pruning.CalibrationLength = _TUNED["calibration_length"].default,
    sequential: pruning.Sequential = True,
    pruning_seed: pruning.PruningSeed = _TUNED["pruning_seed"].default,
    schedule: pruning.Schedule = "one-shot",
    schedule_rounds: pruning.ScheduleRounds = _TUNED["schedule_rounds"].default,
    schedule_end: pruning.ScheduleEnd = _TUNED["schedule_end"].default,
    regime: recipe.Regime = None,
    data_fraction: recipe.DataFraction = _TUNED["data_fraction"].default,
    max_train_samples: recipe.MaxTrainSamples = None,
    epochs: recipe.Epochs = _TUNED["epochs"].default,
    lr: recipe.LearningRate = _TUNED["lr"].default,
    batch_size: recipe.BatchSize = _TUNED["batch_size"].default,
    gradient_accumulation: recipe.GradientAccumulation = _TUNED["gradient_accumulation"].default,
    max_length: recipe.MaxLength = None,
    weight_decay: recipe.WeightDecay = _TUNED["weight_decay"].default,
    warmup: recipe.Warmup = _TUNED["warmup"].default,
    max_grad_norm: recipe.MaxGradNorm = None,
    mixed_precision: recipe.MixedPrecision = "no",
    checkpoint_every: recipe.CheckpointEvery = _TUNED["checkpoint_every"].default,
    teacher: recipe.Teacher = None,
    distill_weight: recipe.DistillWeight = _TUNED["distill_weight"].default,
    temperature: recipe.Temperature = _TUNED["temperature"].default,
    lora: recipe.Lora = None,
    lora_alpha: recipe.LoraAlpha = None,
    lora_targets: recipe.LoraTargets = None,
    options: measuring.Options = None,
    book: measuring.Book = None,
    context_words: measuring.ContextWords = None,
    pairs: measuring.Pairs = None,
    split: measuring.Split = None,
    limit: measuring.Limit = None,
    shots: measuring.Shots = _MEASURED["shots"].default,
    chat: measuring.Chat = False,
    stride: measuring.Stride = None,
    dtype: measuring.Dtype = "float32",
    device_map: measuring.DeviceMap = None,
    eval_batch_size: measuring.EvalBatchSizeOrAuto = "auto",
    engine: engines.Engine = "local",
    workers: engines.Workers = None,
    per_device: engines.PerDevice = 1,
    address: engines.Address = None,
    memory: engines.Memory = None,
    minutes: engines.Minutes = 240,
    gpus: engines.Gpus = 0,
    slurm_cluster: engines.SlurmCluster = None,
    retries: engines.Retries = 1,
    plot: common.Plot = None,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    as_json: common.Json = False,
) -> None:
    """Find how far a model may be pruned before a task breaks: the critical sparsity.

    Runs are ordinary ones, chosen one after the other: each where it tells most. It may be stopped
    at any time: the same command goes on where it was.
    """
    from jdna_cli.advising import advice
    from jdna_cli.advising.question import question
    from jdna_cli.cli import advice_output, sweep_models
    from jdna_cli.cli.engines import Engine
    from jdna_cli.reports.rendering import plots
    from jdna_cli.sweeps.backends import local
    from jdna_cli.sweeps.run_cell import SweepSettings

    if plot is not None:
        plots.check_path(plot)
    asked = question(
        _fixed(context, trains=finetune), trains=finetune,
        tolerance=fraction("--tolerance", tolerance), seeds=seeds,
        precision=fraction("--precision", precision), budget=budget, patterns=patterns,
    )  # fmt: skip
    with open_workspace(home, db, data_dir, allow_pickle=allow_pickle) as workspace:
        asked = asked.on(
            sweep_models.with_precision(
                sweep_models.with_own_models(asked.template, workspace.ledger.home), engine
            )
        )
        by = Engine(engine, local.shares(workers, per_device), per_device, address, memory,
                    minutes, gpus, slurm_cluster)  # fmt: skip
        where = SweepSettings(
            str(home), db, str(data_dir) if data_dir else None, allow_pickle, "advise"
        )
        url = url_of(home, db)
        search = advice.begin(workspace, asked, url, side=len(by.divided), retries=retries)
        with advice_output.Progress(search) as progress:
            found = advice.answer(
                search, lambda state: by.run(state, where, progress, workspace.ledger)
            )
        advice_output.show(found, asked, plot, as_json)


def _fixed(context: typer.Context, *, trains: bool) -> dict[str, Any]:
    """What every run of the search is asked, by the fields of its spec.

    Raises:
        RequestError: something was said that only the other kind of run has.
    """
    fields = set(_TUNED) if trains else {*_MEASURED, *PruneSpec.model_fields}
    known = {*_TUNED, *_MEASURED, *PruneSpec.model_fields}
    fixed: dict[str, Any] = {}
    for name, value in context.params.items():
        # The flag of an evaluation's own field has another name.
        field = "batch_size" if name == "eval_batch_size" and not trains else name
        if field not in known or value is None or not was_set(context, name):
            continue
        if field not in fields and not was_said(context, name):
            continue  # of the project's recipe
        if field not in fields or (name == "batch_size" and not trains):
            other = "--no-finetune" if trains else "--finetune"
            raise RequestError(f"--{name.replace('_', '-')}: goes with {other} alone")
        if name == "eval_batch_size" and trains and not str(value).isdigit():
            raise RequestError("--eval-batch-size: give a number, or use --no-finetune")
        fixed[field] = list(value) if isinstance(value, tuple) else value
    return fixed
