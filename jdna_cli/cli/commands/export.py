"""`jdna export`: a model as the file of another runtime."""

from __future__ import annotations

from typing import Annotated

import typer

from jdna_cli.cli.asked import given
from jdna_cli.cli.opening import open_workspace
from jdna_cli.cli.options import common
from jdna_cli.specs import ExportFormat, ExportSpec

_FIELDS = ExportSpec.model_fields
Format = Annotated[
    ExportFormat,
    typer.Option(
        "--format", help="ONNX, run by ONNX Runtime, or OpenVINO (extras of those names)."
    ),
]
Length = Annotated[int, typer.Option(help="Tokens of the text that is timed.")]


def export(
    context: typer.Context,
    model: common.Model,
    format: Format,
    length: Length = _FIELDS["length"].default,
    out: common.Out = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    allow_pickle: common.AllowPickle = False,
    force: common.Force = False,
    as_json: common.Json = False,
) -> None:
    """Write a model for another runtime, compare its outputs with torch's, and time both.

    Encoders, decoders, and their heads: one forward pass, for any number and length of texts.
    """
    from jdna_cli.cli import run_output
    from jdna_cli.runs import export

    with open_workspace(home, db, force=force, allow_pickle=allow_pickle) as workspace:
        run_output.show(export.export(workspace, given(context, ExportSpec), out), as_json)
