"""The commands that look: runs, tasks, db, doctor."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jdna_cli import clock, command_line
from jdna_cli.cli import completing, examples
from jdna_cli.cli import options as o
from jdna_cli.console import place, tell
from jdna_cli.errors import JdnaError, RequestError, redact
from jdna_cli.store import schema

if TYPE_CHECKING:
    from jdna_cli.tasks.task import Task

runs = typer.Typer(help="List, show, or remove recorded runs.", no_args_is_help=True)
tasks = typer.Typer(help="List or show the tasks.", no_args_is_help=True)
db = typer.Typer(help="Where the database is, upgrade it, or ask it in SQL.", no_args_is_help=True)

Number = Annotated[
    int,
    typer.Argument(
        metavar="ID", help="Number of the run.", min=1, autocompletion=completing.numbers
    ),
]


def url_of(home: Path, url: str | None) -> str:
    """The database of these options."""
    return url or schema.default_url(home)


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False, default=str))


# ------------------------------------------------------------------------------------------- runs


@runs.command("list", epilog=examples.of("runs list"))
def list_runs(
    task: Annotated[str | None, typer.Option(help="Only runs on this task.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 50,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    as_json: o.Json = False,
) -> None:
    """The latest runs, the newest last."""
    from jdna_cli.reports.query import name_models
    from jdna_cli.reports.rendering import tables
    from jdna_cli.store import reading

    where, values = ["1 = 1"], []
    for column, value in (("task", task), ("status", status)):
        if value is not None:
            where.append(f"run.{column} = ?")
            values.append(value)
    found = reading.query(
        url_of(home, db),
        "SELECT run.id, run.kind, run.status, run.model, run.task, run.regime, run.pattern, "  # noqa: S608
        "run.sparsity, run.criterion, run.quantization, run.seed, metric.name, "
        "metric.value AS score, run.error FROM run "
        "LEFT JOIN metric ON metric.run = run.id AND metric.name = run.metric "
        f"AND metric.step IS NULL WHERE {' AND '.join(where)} ORDER BY run.id DESC LIMIT {limit}",
        values,
    ).records()[::-1]
    if as_json:
        _print_json({"runs": found})
        return
    name_models(found)
    columns = ("id", "kind", "status", "model", "task", "regime", "pruned", "seed", "score")
    tables.plain(columns, [_run_row(row) for row in found])


def _run_row(row: dict[str, Any]) -> list[str]:
    pruned = ""
    if row["quantization"]:
        pruned = " ".join(row["quantization"].split()[:2])  # as in "4 bits"
    elif row["pattern"]:
        plain = row["pattern"] == "unstructured"
        pruned = f"{100 * row['sparsity']:.4g}%" if plain else row["pattern"]
        pruned += "" if row["criterion"] == "magnitude" else f" {row['criterion']}"
    score = "" if row["score"] is None else f"{row['score']:.4f}"
    seed = "" if row["kind"] == "prune" else row["seed"]
    model = row["_name"] if row["model"] else None
    values = [row["id"], row["kind"], row["status"], model, row["task"], row["regime"]]
    return ["" if value is None else str(value) for value in (*values, pruned, seed, score)]


@runs.command("show", epilog=examples.of("runs show"))
def show_run(
    number: Number, home: o.Home = o.DEFAULT_HOME, db: o.Db = None, as_json: o.Json = False
) -> None:
    """One run: what was asked, what was measured, what went where."""
    from jdna_cli.cli import showing
    from jdna_cli.store.ledger import Ledger

    require_database(home, db)
    ledger = Ledger(home, db)
    run, outcome = ledger.get(number), ledger.outcome(number)
    folder = ledger.folder(run)
    ledger.close()
    if as_json:
        found = {
            "run": {**showing.run_as_json(run), "artifact": str(folder.resolve())},
            "spec": run.spec,
            "versions": run.versions,
            "metrics": outcome.metrics,
            "layers": showing.pruning_of(outcome)["layers"],
            "points": [vars(p) for p in outcome.points],
        }
        _print_json(found)
        return
    tell(f"run {run.id} · {showing.title(run)} · {run.status}")
    if run.error:
        tell(f"error: {run.error}")
    tell(f"again: {command_line.of_recorded(run.kind, run.spec)}")
    tell(f"fingerprint: {run.fingerprint}")
    tell(f"started {clock.local(run.started_at)} on {run.device or run.host}")
    if run.parent:
        tell(f"made from run {run.parent}")
    for name, value in outcome.metrics.items():
        tell(f"  {name:28} {showing.format_number(value)}")
    if outcome.protocol:
        tell(f"measured by: {outcome.protocol}")
    if run.examples:
        tell(f"examples: {showing.counts(run.examples)}")
    if outcome.remark:
        tell(f"remark: {outcome.remark}")
    for layer in outcome.layers:
        tell(f"  {layer.sparsity:7.2%} zeros  {layer.name} {list(layer.shape)}")
    for line in showing.pruning_lines(outcome) if outcome.layers else []:
        tell(line)
    tell(f"files: {place(folder)}")


@runs.command("rm", epilog=examples.of("runs rm"))
def remove_run(
    number: Number, home: o.Home = o.DEFAULT_HOME, db: o.Db = None, as_json: o.Json = False
) -> None:
    """Remove a run from the database, and its files."""
    from jdna_cli.store.ledger import Ledger

    require_database(home, db)
    ledger = Ledger(home, db)
    run = ledger.remove(number)
    folder, work = ledger.folder(run), ledger.work(run)
    ledger.close()
    # A folder that was named with --out is the user's.
    own = folder.parent.resolve() == home.resolve()
    for path in (folder, work) if own else (work,):
        if path.is_dir():
            shutil.rmtree(path)
    if as_json:
        _print_json({"removed": number, "files": str(folder), "files_removed": own})
    else:
        there = place(folder)
        tell(f"removed run {number}{f' and {there}' if own else f'; its files stay at {there}'}")


def require_database(home: Path, url: str | None) -> None:
    """Refuse to make an empty database only to find nothing in it."""
    if url is None and not (home / "jdna.db").is_file():
        raise RequestError(f"there is no database at {home / 'jdna.db'}: nothing has been run yet")


# ------------------------------------------------------------------------------------------ tasks


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


# The latest dense model that was measured on each task, and its mean score over seeds.
_DENSE = """
SELECT task, model, AVG(score) AS dense, COUNT(*) AS seeds FROM (
  SELECT performance.*, LAST_VALUE(recipe) OVER (
    PARTITION BY task ORDER BY run_id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
  ) AS latest
  FROM performance WHERE regime = 'dense' AND sparsity = 0
) AS dense WHERE recipe = latest GROUP BY task, model
"""


@tasks.command("list", epilog=examples.of("tasks list"))
def list_tasks(
    data_dir: o.DataDir = None,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    as_json: o.Json = False,
) -> None:
    """All tasks: kind, metric, size, a person's score, the latest dense model's, and difficulty."""
    from jdna_cli.reports.query import short
    from jdna_cli.reports.rendering import tables
    from jdna_cli.store import reading
    from jdna_cli.tasks.built_in import all_tasks

    known = url_of(home, db) if db or (home / "jdna.db").is_file() else None
    dense = {row["task"]: row for row in reading.query(known, _DENSE).records()} if known else {}
    found = []
    for task in all_tasks().values():
        row = {**_task_as_json(task), "examples": _sizes(task, data_dir)}
        if own := dense.get(task.name):
            row |= {"dense": own["dense"], "dense_model": own["model"], "difficulty": None}
            if task.human:
                row["difficulty"] = (task.human.value - own["dense"]) / task.human.value
        found.append(row)
    if as_json:
        _print_json({"tasks": found})
        return
    columns = ("task", "metric", "train", "measured", "human", "dense", "difficulty", "question")
    kinds = dict.fromkeys(row["kind"] for row in found)
    groups = [
        tables.Section(kind, columns, [_task_row(row) for row in found if row["kind"] == kind])
        for kind in kinds
    ]
    print(tables.sections_as_text(groups, "table"), end="")
    if models := sorted({short(row["dense_model"]) for row in found if "dense_model" in row}):
        tell(f"dense: {', '.join(models)}; difficulty: (human − dense) / human")


def _sizes(task: Task, data_dir: Path | None) -> dict[str, int]:
    """Examples of each split: lines of the files where they are used, else as published."""
    from jdna_cli.tasks import datasets

    below = datasets.folder(task, data_dir)
    if below is None:
        return dict(task.sizes)
    splits = [split for split in task.splits if datasets.has(task, split, data_dir)]
    found = {}
    for split in splits:
        with datasets.path(task, split, below).open("rb") as lines:
            found[split] = sum(1 for line in lines if line.strip())
    return found


def _task_row(row: dict[str, Any]) -> list[str]:
    def percent(name: str) -> str:
        value = row.get(name)
        return "" if value is None else f"{100 * value:.1f}".replace("-", "−")

    sizes = [row["examples"].get(split) for split in ("train", row["evaluation_splits"][0])]
    counts = ["" if n is None else f"{n:,}" for n in sizes]
    names = [row["name"], row["metric"], *counts]
    return [*names, percent("human"), percent("dense"), percent("difficulty"), row["description"]]


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
    data_dir: o.DataDir = None,
    as_json: o.Json = False,
) -> None:
    """One task as TOML: change a copy, and give it to --task as a task of your own."""
    from jdna_cli.tasks import datasets, task_toml
    from jdna_cli.tasks.lookup import get

    task = get(name)
    below = datasets.folder(task, data_dir)
    if as_json:
        files = str(below) if below else None
        _print_json({"task": {**_task_as_json(task), "files": files}})
        return
    if below:
        print(f"# read from {below}")
    print(task_toml.write(task), end="")


# --------------------------------------------------------------------------------------------- db


@db.command("path", epilog=examples.of("db path"))
def path_of_db(home: o.Home = o.DEFAULT_HOME, db: o.Db = None, as_json: o.Json = False) -> None:
    """Where the database is."""
    url = url_of(home, db)
    shown = redact(url) if db else str(home / "jdna.db")
    if as_json:
        _print_json({"path": shown, "url": redact(url)})
    else:
        print(shown)


@db.command("upgrade", epilog=examples.of("db upgrade"))
def upgrade_db(home: o.Home = o.DEFAULT_HOME, db: o.Db = None, as_json: o.Json = False) -> None:
    """Bring the database to the newest schema; the old one is copied beside it first."""
    from jdna_cli.store import database

    engine = database.prepare(url_of(home, db))
    schema = database.revision(engine)
    engine.dispose()
    if as_json:
        _print_json({"schema": schema})
    else:
        print(f"schema {schema}")


@db.command("query", epilog=examples.of("db query"))
def query_db(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement that reads.")],
    output: Annotated[o.Format, typer.Option("--format", help="How to write it.")] = o.Format.TABLE,
    home: o.Home = o.DEFAULT_HOME,
    db: o.Db = None,
    as_json: o.Json = False,
) -> None:
    """Ask the database in SQL. Nothing can be changed, whatever the statement says."""
    from jdna_cli.reports.rendering import tables
    from jdna_cli.store import reading

    found = reading.query(url_of(home, db), sql)
    if as_json:
        _print_json({"columns": found.columns, "rows": found.rows})
    else:
        cells = [["" if v is None else str(v) for v in row] for row in found.rows]
        if output is o.Format.JSON:
            _print_json(found.records())
        else:
            print(tables.render(found.columns, cells, output.value), end="")


# ----------------------------------------------------------------------------------------- doctor


def doctor(home: o.Home = o.DEFAULT_HOME, db: o.Db = None, as_json: o.Json = False) -> None:
    """Check this machine: libraries, devices, disk, database. Exit code 1 if something is wrong."""
    checks = [*_machine_checks(), *_home_checks(home, db)]
    if as_json:
        names = ("name", "ok", "detail")
        _print_json({"checks": [dict(zip(names, check, strict=True)) for check in checks]})
    else:
        for name, ok, detail in checks:
            tell(f"{'ok ' if ok else 'BAD'}  {name:14} {detail}", indent=" " * 20)
    if not all(ok for _, ok, _ in checks):
        raise JdnaError("something is wrong, see the lines marked BAD")


def _machine_checks() -> list[tuple[str, bool, str]]:
    import torch

    from jdna_cli import __version__
    from jdna_cli.compute import devices

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    libraries = " ".join(f"{name} {version}" for name, version in devices.versions().items())
    return [
        ("jdna", True, f"{__version__}, Python {platform.python_version()}"),
        ("libraries", True, libraries),
        ("device", True, ", ".join(names) if cuda else devices.name(torch.device("cpu"))),
        *_cpu_checks(torch.get_num_threads()),
        ("hub", True, "never asked (HF_HUB_OFFLINE)" if offline else "asked when needed"),
    ]


def _cpu_checks(count: int) -> list[tuple[str, bool, str]]:
    """Threads, and what they multiply at; a quota that gives fewer cores than threads is wrong."""
    from jdna_cli.compute import precision, threads

    cores = threads.cores()
    limit = "no quota" if cores.quota is None else f"quota {cores.quota:g}"
    what = f"{count} of {cores.visible} cores, {limit}, {threads.waiting()}"
    rates, chosen = precision.rates(count), precision.automatic()
    speeds = ", ".join(
        f"{name} {getattr(rates, name):.0f}" for name in ("float32", "bfloat16", "float16")
    )
    return [
        ("threads", count <= cores.usable, what),
        ("GFLOP/s", True, f"{speeds}; --mixed-precision auto: {chosen}"),
    ]


def _home_checks(home: Path, url: str | None) -> list[tuple[str, bool, str]]:
    from jdna_cli.store import reading

    existing = next(p for p in [home, *home.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    found = [
        ("home", writable, f"{home}, {'writable' if writable else 'not writable'}"),
        ("disk", free > 2, f"{free:.1f} GB free"),
        ("sqlite", sqlite3.sqlite_version_info >= (3, 35), sqlite3.sqlite_version),
    ]
    if url is None and not (home / "jdna.db").is_file():
        return [*found, ("database", True, "none yet, the first run makes it")]
    try:
        reading.require_schema(url_of(home, url), schema.head())
        count = reading.query(url_of(home, url), "SELECT COUNT(*) FROM run").rows[0][0]
        return [*found, ("database", True, f"schema {schema.head()}, {count} runs")]
    except JdnaError as error:
        return [*found, ("database", False, str(error))]
