"""How much was taken from a model, in words."""

from collections.abc import Mapping
from typing import Any


def percent(share: float) -> str:
    """A share as it was asked for: 0.5 is 50%, 0.125 is 12.5%, and never the same as 0.12."""
    return f"{100 * share:.4g}%"


def weights(pattern: str | None, sparsity: float | None) -> str:
    """How many weights were taken, by the columns of a run: 50% or 2:4; nothing where none were."""
    return percent(sparsity or 0.0) if pattern == "unstructured" else pattern or ""


def taken(run: Mapping[str, Any]) -> str:
    """All that was taken, by the columns of a run: 50%, 2:4 wanda, 60% owl, 2:4 4 bits."""
    parts = [weights(run["pattern"], run["sparsity"])]
    if run["pattern"]:
        parts += ["" if run["criterion"] == "magnitude" else run["criterion"], run["allocation"]]
    if run["quantization"]:
        parts += run["quantization"].split()[:2]
    return " ".join(part for part in parts if part)
