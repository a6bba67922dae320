"""`jdna scan`: where a model is sensitive, matrix by matrix, and the allocation that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jdna_cli.amounts import percent
from jdna_cli.cli.asked import given
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common, measuring, pruning
from jdna_cli.errors import RequestError
from jdna_cli.specs import ScanSpec

_FIELDS = ScanSpec.model_fields
Sparsities = Annotated[
    str,
    typer.Option(
        metavar="S,S,…", help="Each matrix is pruned to each of these, alone, and measured."
    ),
]
Total = Annotated[
    float,
    typer.Option(help="Sparsity of all together, for which the allocation is worked out."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="File for the allocation, in place of HOME/ID/allocation.toml."),
]


def scan(
    context: typer.Context,
    model: common.Model,
    task: common.Task,
    sparsities: Sparsities = "0.7",
    total: Total = _FIELDS["total"].default,
    criterion: pruning.Criterion = _FIELDS["criterion"].default,
    scope: pruning.ScopeWithin = None,
    include: pruning.Include = None,
    exclude: pruning.Exclude = None,
    calibration: pruning.Calibration = None,
    calibration_samples: pruning.CalibrationSamples = _FIELDS["calibration_samples"].default,
    calibration_length: pruning.CalibrationLength = _FIELDS["calibration_length"].default,
    pruning_seed: pruning.PruningSeed = _FIELDS["pruning_seed"].default,
    split: measuring.Split = None,
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
    batch_size: measuring.EvalBatchSizeOrAuto = _FIELDS["batch_size"].default,
    out: Out = None,
    plot: common.Plot = None,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Prune each kind of matrix of each block alone, without training, and measure the task.

    A model that has a head is scanned after its fine-tuning (run:ID); one that writes as it is. The
    result is an allocation: what each tensor loses so that all together lose the total.
    """
    from jdna_cli.cli import run_output
    from jdna_cli.console import place, tell
    from jdna_cli.reports import scans
    from jdna_cli.reports.rendering import plots
    from jdna_cli.reports.rendering.figures import Figure
    from jdna_cli.runs import scan

    if plot is not None:
        plots.check_path(plot)
    values = given(context, ScanSpec) | {"sparsities": _numbers(sparsities)}
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        done, file = scan.scan(workspace, values, out)
        if plot is not None:
            found, dense = done.outcome.sensitivities, done.outcome.result("loss")
            panels = [
                scans.heat(found, dense, s, f"{run_output.title(done.run)} · {percent(s)}")
                for s in scans.sparsities(found)
            ]
            note = "each matrix pruned alone, without training: how far the loss rises"
            plots.draw(Figure(tuple(panels), "rise of the loss", None, note), plot)
        run_output.show(done, as_json, plot)
        if not as_json:
            tell(f"allocation: {place(file)}")
            tell(f"use it: jdna prune {model} --sparsity {total:g} --allocation {place(file)}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--sparsities: {text!r}: give them as 0.25,0.5,0.75") from None
