"""`jdna eval`: what a model answers on a task, and how well."""

from __future__ import annotations

import typer

from jdna_cli.cli.asked import given, was_said
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common, measuring
from jdna_cli.errors import RequestError
from jdna_cli.specs import EvalSpec, HarnessSpec

_FIELDS = EvalSpec.model_fields


def evaluate(
    context: typer.Context,
    model: common.Model,
    task: common.TaskOrNone = None,
    split: measuring.Split = None,
    harness: measuring.Harness = None,
    limit: measuring.Limit = None,
    options: measuring.Options = None,
    shots: measuring.Shots = _FIELDS["shots"].default,
    book: measuring.Book = None,
    context_words: measuring.ContextWords = None,
    pairs: measuring.Pairs = None,
    chat: measuring.Chat = False,
    seed: measuring.DrawSeed = None,
    stride: measuring.Stride = None,
    label_order: measuring.LabelOrder = None,
    max_length: measuring.MaxLengthOrSame = None,
    mixed_precision: measuring.MixedPrecisionOrSame = None,
    dtype: measuring.Dtype = "float32",
    device_map: measuring.DeviceMap = None,
    time: measuring.Time = False,
    kernels: measuring.Kernels = "dense",
    batch_size: measuring.EvalBatchSizeOrAuto = _FIELDS["batch_size"].default,
    dry_run: common.MemoryOnly = False,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Measure a model on one split of a task, and keep its answer to each example.

    A fine-tuned model is measured by its head. A model that writes is prompted: it answers in its
    own words, or chooses the option of the highest likelihood.
    """
    from jdna_cli.cli import run_output
    from jdna_cli.runs import evaluate as tasks
    from jdna_cli.runs import harness as library

    if (task is None) == (harness is None):
        raise RequestError("give either --task TASK or --harness NAMES")
    if harness is not None and dry_run:
        raise RequestError("--dry-run: the harness does not say what it takes")
    if harness is not None:
        _refuse_settings_of_tasks(context)
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        if dry_run:
            run_output.show_memory(tasks.memory(workspace, given(context, EvalSpec)), as_json)
            return
        if harness is None:
            done = tasks.evaluate(workspace, given(context, EvalSpec))
        else:
            names = tuple(name.strip() for name in harness.split(",") if name.strip())
            values = given(context, HarnessSpec) | {"harness": names}
            if not was_said(context, "batch_size"):
                del values["batch_size"]  # the default is that of own tasks
            done = library.harness(workspace, values)
        run_output.show(done, as_json)


def _refuse_settings_of_tasks(context: typer.Context) -> None:
    """Refuse what was said of a task, where the harness has its own."""
    for name in EvalSpec.model_fields:
        if name not in HarnessSpec.model_fields and was_said(context, name):
            raise RequestError(f"--{name.replace('_', '-')}: the harness has no such setting")
