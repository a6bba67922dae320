"""The commands that run something: prune, finetune, eval, interpolate, demo."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdna_cli.cli import options as o
from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, PruneSpec

if TYPE_CHECKING:
    from jdna_cli.runs.recording import OpenWorkspace

_PRUNE, _FINETUNE = PruneSpec.model_fields, FinetuneSpec.model_fields
_EVAL, _LINE = EvalSpec.model_fields, InterpolateSpec.model_fields


@contextlib.contextmanager
def open_workspace(
    home: Path,
    db: str | None,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    allow_pickle: bool = False,
    several: bool = False,
) -> Iterator[OpenWorkspace]:
    """The workspace of a command's options; its ledger is closed at the end."""
    from jdna_cli.console import Terminal
    from jdna_cli.errors import RequestError
    from jdna_cli.runs.recording import OpenWorkspace
    from jdna_cli.store.ledger import Ledger

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not several:
        raise RequestError("only finetune uses several processes: start this one by itself")
    if data_dir is not None and not data_dir.is_dir():
        raise RequestError(f"--data-dir: {data_dir} is no folder")
    terminal = Terminal()
    terminal.phase("starting")
    ledger = Ledger(home, db)
    try:
        yield OpenWorkspace(ledger, data_dir, force, resume, allow_pickle, terminal)
    finally:
        terminal.phase("")
        ledger.close()


def prune(
    model: o.Model,
    sparsity: o.Sparsity = None,
    pattern: o.Pattern = None,
    quantize: o.Quantize = None,
    criterion: o.Criterion = _PRUNE["criterion"].default,
    scope: o.ScopeOption = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    granularity: o.GranularityOption = o.Granularity.CHANNEL,
    group_size: o.GroupSize = None,
    asymmetric: o.Asymmetric = False,
    rounding: o.RoundingOption = o.Rounding.NEAREST,
    calibration: o.Calibration = None,
    calibration_samples: o.CalibrationSamples = _PRUNE["calibration_samples"].default,
    calibration_length: o.CalibrationLength = _PRUNE["calibration_length"].default,
    sequential: o.Sequential = True,
    pruning_seed: o.PruningSeed = _PRUNE["pruning_seed"].default,
    packed: o.Packed = False,
    out: o.Out = None,
    dry_run: o.DryRun = False,
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    allow_pickle: o.AllowPickle = False,
    force: o.Force = False,
    as_json: o.Json = False,
) -> None:
    """Set the least important weights of a model to zero, or round all, before any fine-tuning."""
    from jdna_cli.cli import showing
    from jdna_cli.runs import prune

    values: dict[str, Any] = {
        "model": model,
        "sparsity": sparsity,
        "pattern": pattern,
        "quantize": quantize,
        "criterion": criterion,
        "scope": scope.value if scope else None,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "granularity": granularity.value,
        "group_size": group_size,
        "asymmetric": asymmetric,
        "rounding": rounding.value,
        "calibration": calibration,
        "calibration_samples": calibration_samples,
        "calibration_length": calibration_length,
        "sequential": sequential,
        "pruning_seed": pruning_seed,
        "packed": packed,
    }
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        if dry_run:
            showing.show_plan(prune.plan(workspace, values), as_json)
        else:
            showing.show(prune.prune(workspace, values, out), as_json)


def finetune(
    model: o.Model,
    task: o.Task,
    regime: o.Regime = None,
    sparsity: o.Sparsity = None,
    pattern: o.Pattern = None,
    quantize: o.Quantize = None,
    criterion: o.Criterion = _PRUNE["criterion"].default,
    scope: o.ScopeOption = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    granularity: o.GranularityOption = o.Granularity.CHANNEL,
    group_size: o.GroupSize = None,
    asymmetric: o.Asymmetric = False,
    rounding: o.RoundingOption = o.Rounding.NEAREST,
    calibration: o.Calibration = None,
    calibration_samples: o.CalibrationSamples = _PRUNE["calibration_samples"].default,
    calibration_length: o.CalibrationLength = _PRUNE["calibration_length"].default,
    sequential: o.Sequential = True,
    pruning_seed: o.PruningSeed = _PRUNE["pruning_seed"].default,
    data_fraction: o.DataFraction = _FINETUNE["data_fraction"].default,
    max_train_samples: o.MaxTrainSamples = None,
    epochs: o.Epochs = _FINETUNE["epochs"].default,
    lr: o.LearningRate = _FINETUNE["lr"].default,
    batch_size: o.BatchSize = _FINETUNE["batch_size"].default,
    gradient_accumulation: o.GradientAccumulation = _FINETUNE["gradient_accumulation"].default,
    max_length: o.MaxLength = None,
    weight_decay: o.WeightDecay = _FINETUNE["weight_decay"].default,
    warmup: o.Warmup = _FINETUNE["warmup"].default,
    max_grad_norm: o.MaxGradNorm = None,
    seed: o.Seed = _FINETUNE["seed"].default,
    mixed_precision: o.MixedPrecision = o.Precision.NO,
    options: o.Options = None,
    book: o.BookOption = None,
    context_words: o.ContextWords = None,
    pairs: o.Pairs = None,
    eval_batch_size: o.EvalBatchSize = _FINETUNE["eval_batch_size"].default,
    checkpoint_every: o.CheckpointEvery = _FINETUNE["checkpoint_every"].default,
    schedule: o.ScheduleOption = o.Schedule.ONE_SHOT,
    schedule_rounds: o.ScheduleRounds = _FINETUNE["schedule_rounds"].default,
    schedule_end: o.ScheduleEnd = _FINETUNE["schedule_end"].default,
    teacher: o.Teacher = None,
    distill_weight: o.DistillWeight = _FINETUNE["distill_weight"].default,
    temperature: o.Temperature = _FINETUNE["temperature"].default,
    dynamics: o.Dynamics = False,
    dynamics_every: o.DynamicsEvery = _FINETUNE["dynamics_every"].default,
    resume: o.Resume = False,
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    allow_pickle: o.AllowPickle = False,
    force: o.Force = False,
    as_json: o.Json = False,
) -> None:
    """Fine-tune a model on a task under a transfer regime, pruning it first where asked.

    The defaults are the paper's recipe: AdamW, learning rate 2e-5 with 6 % warm-up and linear
    decay, batches of 16, 3 epochs, no weight decay. The last epoch is what is reported.
    """
    from jdna_cli.cli import showing
    from jdna_cli.runs import finetune

    values: dict[str, Any] = {
        "model": model,
        "task": task,
        "regime": regime,
        "sparsity": sparsity,
        "pattern": pattern,
        "quantize": quantize,
        "criterion": criterion,
        "scope": scope.value if scope else None,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "granularity": granularity.value,
        "group_size": group_size,
        "asymmetric": asymmetric,
        "rounding": rounding.value,
        "calibration": calibration,
        "calibration_samples": calibration_samples,
        "calibration_length": calibration_length,
        "sequential": sequential,
        "pruning_seed": pruning_seed,
        "data_fraction": data_fraction,
        "max_train_samples": max_train_samples,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "eval_batch_size": eval_batch_size,
        "gradient_accumulation": gradient_accumulation,
        "max_length": max_length,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "max_grad_norm": max_grad_norm,
        "seed": seed,
        "mixed_precision": mixed_precision.value,
        "checkpoint_every": checkpoint_every,
        "schedule": schedule.value,
        "schedule_rounds": schedule_rounds,
        "schedule_end": schedule_end,
        "teacher": teacher,
        "distill_weight": distill_weight,
        "temperature": temperature,
        "dynamics": dynamics,
        "dynamics_every": dynamics_every,
        **_task_conditions(options, book, context_words, pairs),
    }

    def run() -> None:
        with open_workspace(
            home, db, data_dir, force, resume, allow_pickle, several=True
        ) as workspace:
            showing.show(finetune.finetune(workspace, values), as_json)

    _together(run)


def _together(run: Callable[[], None]) -> None:
    """Run, in as many processes as this was started in; the first decides and records."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        run()
        return
    from jdna_cli.compute import distributed
    from jdna_cli.pipelines import finetune

    try:
        if distributed.is_first():
            with distributed.main_process_leads():
                run()
        else:
            finetune.follow()
    finally:
        distributed.shutdown()


def _task_conditions(
    options: int | None, book: o.Book | None, context_words: int | None, pairs: str | None
) -> dict[str, Any]:
    return {
        "options": options,
        "book": book.value if book else None,
        "context_words": context_words,
        "pairs": pairs,
    }


def evaluate(
    model: o.Model,
    task: o.TaskOrNone = None,
    split: o.Split = None,
    harness: o.Harness = None,
    limit: o.Limit = None,
    options: o.Options = None,
    shots: o.Shots = _EVAL["shots"].default,
    book: o.BookOption = None,
    context_words: o.ContextWords = None,
    pairs: o.Pairs = None,
    chat: o.Chat = False,
    seed: o.DrawSeed = None,
    stride: o.Stride = None,
    label_order: o.LabelOrder = None,
    max_length: o.MaxLengthOrSame = None,
    mixed_precision: o.MixedPrecisionOrSame = None,
    dtype: o.DtypeOption = o.Dtype.FLOAT32,
    device_map: o.DeviceMapOption = None,
    time: o.Time = False,
    kernels: o.KernelsOption = o.Kernels.DENSE,
    eval_batch_size: o.EvalBatchSize = _EVAL["batch_size"].default,
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    allow_pickle: o.AllowPickle = False,
    force: o.Force = False,
    as_json: o.Json = False,
) -> None:
    """Measure a model on one split of a task, and keep its answer to each example.

    A fine-tuned model is measured by its head. A model that writes is prompted: it answers in its
    own words, or chooses the option of the highest likelihood.
    """
    from jdna_cli.cli import showing
    from jdna_cli.errors import RequestError
    from jdna_cli.runs import evaluate as measuring
    from jdna_cli.runs import harness as harnessing

    values: dict[str, Any] = {
        "model": model,
        "max_length": max_length,
        "batch_size": eval_batch_size,
        "shots": shots,
        "chat": chat,
        "seed": seed,
        "dtype": dtype.value,
        "device_map": device_map.value if device_map else None,
    }
    own: dict[str, Any] = {
        "split": split,
        "mixed_precision": mixed_precision.value if mixed_precision else None,
        "stride": stride,
        "label_order": label_order,
        "time": time or None,
        "kernels": kernels.value if kernels is not o.Kernels.DENSE else None,
        **_task_conditions(options, book, context_words, pairs),
    }
    if (task is None) == (harness is None):
        raise RequestError("give either --task TASK or --harness NAMES")
    if harness is not None:
        if given := [name for name, value in own.items() if value is not None]:
            raise RequestError(f"--{given[0].replace('_', '-')}: the harness has no such setting")
    elif limit is not None:
        raise RequestError("--limit: goes with --harness alone")
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        if harness is not None:
            names = tuple(name.strip() for name in harness.split(",") if name.strip())
            done = harnessing.harness(workspace, {**values, "harness": names, "limit": limit})
        else:
            kept = {name: value for name, value in own.items() if value is not None}
            done = measuring.evaluate(workspace, {**values, **kept, "task": task})
        showing.show(done, as_json)


def interpolate(
    a: o.Model,
    b: o.OtherModel,
    task: o.Task,
    points: o.Points = _LINE["points"].default,
    split: o.Split = None,
    options: o.Options = None,
    shots: o.Shots = _LINE["shots"].default,
    book: o.BookOption = None,
    context_words: o.ContextWords = None,
    pairs: o.Pairs = None,
    seed: o.DrawSeed = None,
    max_length: o.MaxLengthOrSame = None,
    mixed_precision: o.MixedPrecisionOrSame = None,
    eval_batch_size: o.EvalBatchSize = _LINE["batch_size"].default,
    plot: o.Plot = None,
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    allow_pickle: o.AllowPickle = False,
    force: o.Force = False,
    as_json: o.Json = False,
) -> None:
    """Measure models on the straight line between two fine-tuned ones, and the loss barrier."""
    from jdna_cli.cli import showing
    from jdna_cli.reports.rendering import plots
    from jdna_cli.runs import interpolate

    if plot is not None:
        plots.check_path(plot)
    values: dict[str, Any] = {
        "model": a,
        "other": b,
        "task": task,
        "split": split,
        "points": points,
        "max_length": max_length,
        "mixed_precision": mixed_precision.value if mixed_precision else None,
        "batch_size": eval_batch_size,
        "shots": shots,
        "seed": seed,
        **_task_conditions(options, book, context_words, pairs),
    }
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        done = interpolate.interpolate(workspace, values)
        if plot is not None:
            barrier = done.outcome.metrics["barrier"]
            plots.line(done.outcome.points, barrier, done.run.metric or "score", plot)
        showing.show(done, as_json, plot)


def demo(
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    as_json: o.Json = False,
) -> None:
    """Try it: ten small cells on an embedded model and two generated tasks, then the report."""
    from jdna_cli.cli import demonstration
    from jdna_cli.cli.inspection import url_of

    with open_workspace(home, db) as workspace:
        demonstration.run(workspace, url_of(home, db), db, as_json)
