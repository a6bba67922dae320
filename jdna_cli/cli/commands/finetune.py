"""`jdna finetune`: a model learns a task under a transfer regime."""

from __future__ import annotations

import typer

from jdna_cli.cli.asked import given
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common, measuring, pruning, recipe
from jdna_cli.compute import processes
from jdna_cli.specs import FinetuneSpec

_FIELDS = FinetuneSpec.model_fields


def finetune(
    context: typer.Context,
    model: common.Model,
    task: common.Task,
    regime: recipe.Regime = None,
    sparsity: pruning.Sparsity = None,
    pattern: pruning.Pattern = None,
    quantize: pruning.Quantize = None,
    criterion: pruning.Criterion = _FIELDS["criterion"].default,
    scope: pruning.Scope = None,
    allocation: pruning.Allocation = None,
    include: pruning.Include = None,
    exclude: pruning.Exclude = None,
    granularity: pruning.Granularity = "channel",
    group_size: pruning.GroupSize = None,
    asymmetric: pruning.Asymmetric = False,
    rounding: pruning.Rounding = "nearest",
    calibration: pruning.Calibration = None,
    calibration_samples: pruning.CalibrationSamples = _FIELDS["calibration_samples"].default,
    calibration_length: pruning.CalibrationLength = _FIELDS["calibration_length"].default,
    sequential: pruning.Sequential = True,
    pruning_seed: pruning.PruningSeed = _FIELDS["pruning_seed"].default,
    data_fraction: recipe.DataFraction = _FIELDS["data_fraction"].default,
    max_train_samples: recipe.MaxTrainSamples = None,
    epochs: recipe.Epochs = _FIELDS["epochs"].default,
    lr: recipe.LearningRate = _FIELDS["lr"].default,
    batch_size: recipe.BatchSize = _FIELDS["batch_size"].default,
    gradient_accumulation: recipe.GradientAccumulation = _FIELDS["gradient_accumulation"].default,
    max_length: recipe.MaxLength = None,
    weight_decay: recipe.WeightDecay = _FIELDS["weight_decay"].default,
    warmup: recipe.Warmup = _FIELDS["warmup"].default,
    max_grad_norm: recipe.MaxGradNorm = None,
    seed: recipe.Seed = _FIELDS["seed"].default,
    mixed_precision: recipe.MixedPrecision = "no",
    options: measuring.Options = None,
    book: measuring.Book = None,
    context_words: measuring.ContextWords = None,
    pairs: measuring.Pairs = None,
    eval_batch_size: measuring.EvalBatchSize = _FIELDS["eval_batch_size"].default,
    checkpoint_every: recipe.CheckpointEvery = _FIELDS["checkpoint_every"].default,
    schedule: pruning.Schedule = "one-shot",
    schedule_rounds: pruning.ScheduleRounds = _FIELDS["schedule_rounds"].default,
    schedule_end: pruning.ScheduleEnd = _FIELDS["schedule_end"].default,
    teacher: recipe.Teacher = None,
    distill_weight: recipe.DistillWeight = _FIELDS["distill_weight"].default,
    temperature: recipe.Temperature = _FIELDS["temperature"].default,
    dynamics: recipe.Dynamics = False,
    dynamics_every: recipe.DynamicsEvery = _FIELDS["dynamics_every"].default,
    lora: recipe.Lora = None,
    lora_alpha: recipe.LoraAlpha = None,
    lora_targets: recipe.LoraTargets = None,
    lora_keep: recipe.LoraKeep = False,
    log_with: recipe.LogWith = None,
    resume: recipe.Resume = False,
    dry_run: common.MemoryOnly = False,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Fine-tune a model on a task under a transfer regime, pruning it first where asked.

    The defaults are the paper's recipe: AdamW, learning rate 2e-5 with 6 % warm-up and linear
    decay, batches of 16, 3 epochs, no weight decay. The last epoch is what is reported.
    """
    from jdna_cli.cli import run_output
    from jdna_cli.runs import finetune

    values = given(context, FinetuneSpec)

    def run() -> None:
        with open_workspace(
            home, db, data_dir, force, resume, allow_pickle, several=True
        ) as workspace:
            if dry_run:
                run_output.show_memory(finetune.memory(workspace, values), as_json)
            else:
                run_output.show(finetune.finetune(workspace, values), as_json)

    processes.check(may_be_several=True)
    if processes.size() == 1:
        run()
        return
    from jdna_cli.compute import distributed
    from jdna_cli.pipelines.finetune import follow

    distributed.together(run, follow)
