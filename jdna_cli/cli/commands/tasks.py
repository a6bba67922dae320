"""`jdna tasks`: list or show the tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jdna_cli.cli import completing, examples
from jdna_cli.cli.opening import url_of
from jdna_cli.cli.options import common
from jdna_cli.console import print_json, tell

if TYPE_CHECKING:
    from jdna_cli.tasks.task import Task


tasks = typer.Typer(help="List or show the tasks.", no_args_is_help=True)


def _task_as_json(task: Task) -> dict[str, Any]:
    from jdna_cli.tasks.task import GeneratedSource, HubSource

    source = task.source
    named: Any = "generated" if isinstance(source, GeneratedSource) else "files"
    found = task.model_dump(mode="json", exclude={"human", "source"}, exclude_defaults=True)
    return {
        **found,
        "metric": task.metric,
        "human": task.human.value if task.human else None,
        "human_source": task.human.source if task.human else None,
        "splits": list(task.splits),
        "evaluation_splits": list(task.evaluation_splits),
        "source": vars(source) if isinstance(source, HubSource) else named,
    }


# The latest dense model that was measured on the whole of each task as it is, and its mean score
# over seeds.
_DENSE = """
SELECT task, split, model, AVG(score) AS dense, COUNT(*) AS seeds FROM (
  SELECT performance.*, LAST_VALUE(recipe) OVER (
    PARTITION BY task, split ORDER BY run_id
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
  ) AS latest
  FROM performance
  WHERE regime = 'dense' AND sparsity = 0 AND quantization IS NULL AND teacher IS NULL
    AND sample IS NULL AND options IS NULL AND context_words IS NULL
    AND COALESCE(data_fraction, 1) = 1
) AS dense WHERE recipe = latest GROUP BY task, split, model
"""


@tasks.command("list", epilog=examples.of("tasks list"))
def list_tasks(
    data_dir: common.DataDir = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """All tasks: kind, metric, size, a person's score, the latest dense model's, and difficulty."""
    from jdna_cli.reports.query import short
    from jdna_cli.reports.rendering import tables
    from jdna_cli.store import reading
    from jdna_cli.tasks.built_in import all_tasks

    known = url_of(home, db) if db or (home / "jdna.db").is_file() else None
    measured = reading.query(known, _DENSE).records() if known else []
    dense = {(row["task"], row["split"]): row for row in measured}
    found = []
    for task in all_tasks().values():
        row = {**_task_as_json(task), "examples": _sizes(task, data_dir)}
        if own := dense.get((task.name, task.evaluation_splits[0])):
            row |= {"dense": own["dense"], "dense_model": own["model"], "difficulty": None}
            if task.human:
                row["difficulty"] = (task.human.value - own["dense"]) / task.human.value
        found.append(row)
    if as_json:
        print_json({"tasks": found})
        return
    models = sorted({short(row["dense_model"]) for row in found if "dense_model" in row})
    for row in found:
        row["_model"] = short(row["dense_model"]) if "dense_model" in row and models[1:] else ""
    columns = ("task", "metric", "train", "measured", "human", "model", "dense", "difficulty",
               "question")  # fmt: skip
    kinds = dict.fromkeys(row["kind"] for row in found)
    groups = [
        tables.Section(kind, columns, [_task_row(row) for row in found if row["kind"] == kind])
        for kind in kinds
    ]
    print(tables.sections_as_text(groups, "table"), end="")
    if models:
        which = "the latest model" if models[1:] else models[0]
        tell(f"dense: {which}; difficulty: (human − dense) / human")


def _sizes(task: Task, data_dir: Path | None) -> dict[str, int]:
    """Examples of each split: lines of the files where they are used, else as published."""
    from jdna_cli.tasks import datasets

    below = datasets.folder(task, data_dir)
    if below is None:
        return dict(task.sizes)
    splits = [split for split in task.splits if datasets.has(task, split, data_dir)]
    sizes = {}
    for split in splits:
        with datasets.path(task, split, below).open("rb") as lines:
            sizes[split] = sum(1 for line in lines if line.strip())
    return sizes


def _task_row(row: dict[str, Any]) -> list[str]:
    def percent(name: str) -> str:
        value = row.get(name)
        return "" if value is None else f"{100 * value:.1f}".replace("-", "−")

    sizes = [row["examples"].get(split) for split in ("train", row["evaluation_splits"][0])]
    counts = ["" if n is None else f"{n:,}" for n in sizes]
    names = [row["name"], row["metric"], *counts]
    scores = [percent("human"), row["_model"], percent("dense"), percent("difficulty")]
    return [*names, *scores, row["description"]]


@tasks.command("show", epilog=examples.of("tasks show"))
def show_task(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="Name of a task, or a TOML file with one.",
            autocompletion=completing.tasks,
        ),
    ],
    data_dir: common.DataDir = None,
    as_json: common.Json = False,
) -> None:
    """One task as TOML: change a copy, and give it to --task as a task of your own."""
    from jdna_cli.tasks import datasets, task_toml
    from jdna_cli.tasks.lookup import get

    task = get(name)
    below = datasets.folder(task, data_dir)
    if as_json:
        files = str(below) if below else None
        print_json({"task": {**_task_as_json(task), "files": files}})
        return
    if below:
        print(f"# read from {below}")
    print(task_toml.write(task), end="")
