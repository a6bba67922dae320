"""jdna: how much of a pre-trained transformer can be pruned before a task breaks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdna_cli.workspace import RunResult, Table, Workspace

__version__ = "0.1.0"
__all__ = ["RunResult", "Table", "Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    # The shell starts without what only a notebook asks for.
    if name in ("RunResult", "Table", "Workspace"):
        return getattr(importlib.import_module("jdna_cli.workspace"), name)
    raise AttributeError(f"module 'jdna_cli' has no attribute {name!r}")
