"""jdna: how much of a pre-trained transformer can be pruned before a task breaks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdna_cli.notebook import RunResult, Table
    from jdna_cli.workspace import Workspace

__version__ = "0.1.0"
__all__ = ["RunResult", "Table", "Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    # The shell starts without what only a notebook asks for.
    if name in __all__:
        room = "workspace" if name == "Workspace" else "notebook"
        return getattr(importlib.import_module(f"jdna_cli.{room}"), name)
    raise AttributeError(f"module 'jdna_cli' has no attribute {name!r}")
