"""What a command was asked, by the fields of its spec."""

from __future__ import annotations

from typing import Any

import typer

from jdna_cli.specs import Spec


def given(context: typer.Context, spec: type[Spec]) -> dict[str, Any]:
    """The options that are fields of the spec and have a value; several are a tuple."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in context.params.items()
        if name in spec.model_fields and value is not None
    }


def was_said(context: typer.Context, name: str) -> bool:
    """Whether an option was given, at its default or not."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
