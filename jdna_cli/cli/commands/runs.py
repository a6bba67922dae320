"""`jdna runs`: list, show, or remove recorded runs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jdna_cli import clock, command_line
from jdna_cli.cli import completing, examples
from jdna_cli.cli.opening import require_database, url_of
from jdna_cli.cli.options import common
from jdna_cli.cli.run_output import print_json
from jdna_cli.console import place, tell

if TYPE_CHECKING:
    pass


runs = typer.Typer(help="List, show, or remove recorded runs.", no_args_is_help=True)


Number = Annotated[
    int,
    typer.Argument(
        metavar="ID", help="Number of the run.", min=1, autocompletion=completing.numbers
    ),
]


@runs.command("list", epilog=examples.of("runs list"))
def list_runs(
    task: Annotated[str | None, typer.Option(help="Only runs on this task.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 50,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
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
        print_json({"runs": found})
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
    number: Number,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """One run: what was asked, what was measured, what went where."""
    from jdna_cli.cli import run_output
    from jdna_cli.store.ledger import Ledger

    require_database(home, db)
    ledger = Ledger(home, db)
    run, outcome = ledger.get(number), ledger.outcome(number)
    folder = ledger.folder(run)
    ledger.close()
    if as_json:
        found = {
            "run": {**run_output.run_as_json(run), "artifact": str(folder.resolve())},
            "spec": run.spec,
            "versions": run.versions,
            "metrics": outcome.metrics,
            "layers": run_output.pruning_of(outcome)["layers"],
            "points": [vars(p) for p in outcome.points],
        }
        print_json(found)
        return
    tell(f"run {run.id} · {run_output.title(run)} · {run.status}")
    if run.error:
        tell(f"error: {run.error}")
    tell(f"again: {command_line.of_recorded(run.kind, run.spec)}")
    tell(f"fingerprint: {run.fingerprint}")
    tell(f"started {clock.local(run.started_at)} on {run.device or run.host}")
    if run.parent:
        tell(f"made from run {run.parent}")
    for name, value in outcome.metrics.items():
        tell(f"  {name:28} {run_output.format_number(value)}")
    if outcome.protocol:
        tell(f"measured by: {outcome.protocol}")
    if run.examples:
        tell(f"examples: {run_output.counts(run.examples)}")
    if outcome.remark:
        tell(f"remark: {outcome.remark}")
    for layer in outcome.layers:
        tell(f"  {layer.sparsity:7.2%} zeros  {layer.name} {list(layer.shape)}")
    for line in run_output.pruning_lines(outcome) if outcome.layers else []:
        tell(line)
    tell(f"files: {place(folder)}")


@runs.command("rm", epilog=examples.of("runs rm"))
def remove_run(
    number: Number,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
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
        print_json({"removed": number, "files": str(folder), "files_removed": own})
    else:
        there = place(folder)
        tell(f"removed run {number}{f' and {there}' if own else f'; its files stay at {there}'}")
