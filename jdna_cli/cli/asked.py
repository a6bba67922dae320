"""What a command was asked, by the fields of its spec."""

from __future__ import annotations

from typing import Any

import typer

from jdna_cli.errors import RequestError
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


def was_set(context: typer.Context, name: str) -> bool:
    """Whether an option was given, or the project file names it."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def fraction(flag: str, text: str) -> float:
    """A share of a score as people write it.

    Raises:
        RequestError: it is no fraction.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise RequestError(f"{flag}: {text!r} is no share of the score: give 1% or 0.01")
    return value
