"""An experiment on this machine: the models that come with jdna, and its precision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdna_cli import registry
from jdna_cli.console import say

if TYPE_CHECKING:
    from jdna_cli.reports.query import Filters


def with_own_models(asked: Any, home: Path) -> Any:
    """An experiment with the folders of those models that come with jdna."""
    from jdna_cli.cli.demonstration import MODEL, WRITER, first_layers, model_folder, writer_file

    def found(name: Any) -> Any:
        if name == MODEL:
            return str(model_folder(home))
        if name == WRITER:
            return str(writer_file())
        if layers := re.fullmatch(rf"{MODEL}-first-(\d+)", str(name)):
            return str(first_layers(home, int(layers[1])))
        if str(name).startswith("tiny-") and not Path(str(name)).is_dir():
            folder = home / "models" / str(name)
            if not folder.is_dir():
                from jdna_cli.models import tiny_models

                registry.check("tiny model", str(name), tiny_models.NAMES)
                tiny_models.make(str(name), folder)
            return str(folder)
        return name

    changed: dict[str, Any] = {}
    if "model" in asked.fixed:
        changed["fixed"] = {**asked.fixed, "model": found(asked.fixed["model"])}
    if "model" in asked.axes:
        changed["axes"] = {**asked.axes, "model": [found(name) for name in asked.axes["model"]]}
    return asked.model_copy(update=changed)


def filters_of(asked: Any) -> Filters:
    """Which runs an experiment is about: its models as they are recorded, tasks, and seeds."""
    from jdna_cli.cli.demonstration import WRITER, WRITER_FILE
    from jdna_cli.reports.query import Filters

    names = asked.axes.get("model", [asked.fixed.get("model")])
    models = tuple(WRITER_FILE if name == WRITER else str(name) for name in names)
    tasks = tuple(map(str, asked.axes.get("task", [asked.fixed.get("task")])))
    # Where nothing is trained, only what is drawn has a seed.
    return Filters(models, tasks, seeds=() if asked.command == "eval" else asked.seeds)


def with_precision(asked: Any, engine: str) -> Any:
    """An experiment with its precision by name, and a line where it will be slow."""
    from jdna_cli.compute import precision
    from jdna_cli.sweeps import experiment as experiments

    if experiments.says_auto(asked):
        chosen = precision.automatic()
        if engine != "local":
            say(f"mixed_precision auto: {chosen}, as on this machine; name one in the "
                "experiment's file if the machines of its cells differ")  # fmt: skip
        return experiments.with_precision(asked, chosen)
    if engine == "local":
        named = asked.fixed.get("mixed_precision", "no"), asked.fixed.get("dtype", "float32")
        if slow := precision.warning(*named):
            say(slow)
    return asked
