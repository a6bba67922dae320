"""`jdna config`: what files that people write may say."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from jdna_cli.cli import examples

config = typer.Typer(help="What the files that people write may say.", no_args_is_help=True)


@config.command("schema", epilog=examples.of("config schema"))
def schema(
    kind: Annotated[
        Literal["experiment", "project", "task"],
        typer.Argument(help="Of which file: an experiment, jdna.toml, or a task."),
    ] = "experiment",
) -> None:
    """The JSON Schema of a TOML file, for editors: they complete and check it while it is typed."""
    from jdna_cli.cli import schemas

    print(json.dumps(schemas.of(kind), indent=2))
