"""What "auto" stands for in a request, so that its spec says in what it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdna_cli.compute import precision
from jdna_cli.specs import ModelSource

AUTO = "auto"


def settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The request with its mixed precision by name."""
    if values.get("mixed_precision") != AUTO:
        return dict(values)
    return {**values, "mixed_precision": precision.automatic()}


def dtype_settled(values: Mapping[str, Any], source: ModelSource) -> dict[str, Any]:
    """The request with float32 as the type of the weights where the files' own is slow here.

    Else "auto" stays, as the files' own.
    """
    if values.get("dtype") != AUTO or precision.device() != "cpu":
        return dict(values)
    from jdna_cli.models import model_files

    stored = model_files.stored_dtype(source.folder)
    own = precision.dtype_on("cpu", stored, precision.rates())
    return {**values, "dtype": AUTO if own == stored else own}


def warning(spec: object) -> str | None:
    """One line where a request asks for what is slow here."""
    asked = getattr(spec, "mixed_precision", "no")
    return precision.warning(asked, getattr(spec, "dtype", "float32"))
