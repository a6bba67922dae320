"""`jdna interpolate`: the straight line between two models."""

from __future__ import annotations

import typer

from jdna_cli.cli.asked import given
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common, measuring
from jdna_cli.specs import InterpolateSpec

_FIELDS = InterpolateSpec.model_fields


def interpolate(
    context: typer.Context,
    model: common.FirstModel,
    other: common.SecondModel,
    task: common.Task,
    points: measuring.Points = _FIELDS["points"].default,
    split: measuring.Split = None,
    options: measuring.Options = None,
    shots: measuring.Shots = _FIELDS["shots"].default,
    book: measuring.Book = None,
    context_words: measuring.ContextWords = None,
    pairs: measuring.Pairs = None,
    seed: measuring.DrawSeed = None,
    max_length: measuring.MaxLengthOrSame = None,
    mixed_precision: measuring.MixedPrecisionOrSame = None,
    batch_size: measuring.EvalBatchSize = _FIELDS["batch_size"].default,
    plot: common.Plot = None,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Measure models on the straight line between two fine-tuned ones, and the loss barrier."""
    from jdna_cli.cli import run_output
    from jdna_cli.reports.rendering import plots
    from jdna_cli.runs import interpolate

    if plot is not None:
        plots.check_path(plot)
    with open_workspace(home, db, data_dir, force, allow_pickle=allow_pickle) as workspace:
        done = interpolate.interpolate(workspace, given(context, InterpolateSpec))
        if plot is not None:
            barrier = done.outcome.metrics["barrier"]
            plots.line(done.outcome.points, barrier, done.run.metric or "score", plot)
        run_output.show(done, as_json, plot)
