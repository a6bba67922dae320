"""`jdna prune`: the least important weights of a model go, or all are rounded."""

from __future__ import annotations

import typer

from jdna_cli.cli.asked import given
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common, pruning
from jdna_cli.specs import PruneSpec

_FIELDS = PruneSpec.model_fields


def prune(
    context: typer.Context,
    model: common.Model,
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
    packed: pruning.Packed = False,
    resume: pruning.Resume = False,
    out: common.Out = None,
    dry_run: common.DryRun = False,
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Set the least important weights of a model to zero, or round all, before any fine-tuning."""
    from jdna_cli.cli import run_output
    from jdna_cli.runs import prune

    values = given(context, PruneSpec)
    with open_workspace(home, db, data_dir, force, resume, allow_pickle) as workspace:
        if dry_run:
            run_output.show_plan(*prune.plan(workspace, values), as_json)
        else:
            run_output.show(prune.prune(workspace, values, out), as_json)
