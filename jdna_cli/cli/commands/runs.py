"""`jdna runs`: list, show, verify, or remove recorded runs."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

import typer

from jdna_cli import amounts, clock, command_line
from jdna_cli.cli import completing, examples
from jdna_cli.cli.opening import require_database, url_of
from jdna_cli.cli.options import common
from jdna_cli.console import place, print_json, say, size, tell

runs = typer.Typer(help="List, show, verify, or remove recorded runs.", no_args_is_help=True)


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
    from jdna_cli.store import reading, schema

    url = url_of(home, db)
    reading.require_schema(url, schema.head())
    # Of a run whose process has died nobody may have taken note yet.
    dead = ", ".join(map(str, reading.dead_runs(url, home))) or "0"
    state = f"CASE WHEN run.id IN ({dead}) THEN 'interrupted' ELSE run.status END"
    where, values = ["1 = 1"], []
    for column, value in (("run.task", task), (state, status)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    found = reading.query(
        url,
        f"SELECT run.id, run.kind, {state} AS status, run.model, run.task, run.regime, "  # noqa: S608
        "run.pattern, run.sparsity, run.criterion, run.allocation, run.quantization, run.seed, "
        "metric.name, metric.value AS score, run.error FROM run "
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
    score = "" if row["score"] is None else f"{row['score']:.4f}"
    seed = "" if row["kind"] == "prune" else row["seed"]
    model = row["_name"] if row["model"] else None
    values = [row["id"], row["kind"], row["status"], model, row["task"], row["regime"]]
    values += [amounts.taken(row), seed, score]
    return ["" if value is None else str(value) for value in values]


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
    own = ledger.is_own(folder)
    parts = home.glob(f".{number}.part-*")
    for path in (*((folder,) if own else ()), work, *parts):
        if path.is_dir():
            shutil.rmtree(path)
    if as_json:
        print_json({"removed": number, "files": str(folder), "files_removed": own})
    else:
        there = place(folder)
        tell(f"removed run {number}{f' and {there}' if own else f'; its files stay at {there}'}")


@runs.command("gc", epilog=examples.of("runs gc"))
def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and stop.")
    ] = False,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Remove what no finished, running, or resumable run needs: parts, checkpoints, stray folders.

    Recorded runs and their files stay; `runs rm` removes those.
    """
    from jdna_cli.store import housekeeping
    from jdna_cli.store.ledger import Ledger

    require_database(home, db)
    ledger = Ledger(home, db)
    found = housekeeping.leftovers(ledger)
    total = sum(one.bytes for one in found)
    if not dry_run:
        housekeeping.remove(found)
    ledger.close()
    if as_json:
        gone = [{"path": str(one.path), "bytes": one.bytes, "why": one.why} for one in found]
        print_json({"removed": not dry_run, "bytes": total, "paths": gone})
        return
    for one in found:
        tell(f"{place(one.path)}  {size(one.bytes)}  {one.why}")
    what = "would be freed" if dry_run else "freed"
    tell(f"{size(total)} {what}" if found else "nothing is left over")


@runs.command("verify", epilog=examples.of("runs verify"))
def verify(
    numbers: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[ID]...",
            help="Numbers of runs; all that have finished by default.",
            show_default=False,
            autocompletion=completing.numbers,
        ),
    ] = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Read every file that runs wrote, and compare it with its recorded hash.

    Exit code 1 where a file has changed or is gone.
    """
    from jdna_cli.store import housekeeping
    from jdna_cli.store.ledger import Ledger

    require_database(home, db)
    ledger = Ledger(home, db)
    done = housekeeping.verify(ledger, numbers or [])
    ledger.close()
    wrong = [one for one in done if one.problems and one.files]
    if as_json:
        rows = [{"run": one.run, "files": one.files, "ok": one.ok, "problems": one.problems}
                for one in done]  # fmt: skip
        print_json({"runs": rows, "ok": not wrong})
    else:
        for one in done:
            for problem in one.problems:
                tell(f"run {one.run}: {problem}")
        files = sum(one.files for one in done)
        right = sum(one.ok for one in done)
        tell(f"{right} of {len(done)} runs as they were written, {files:,} files read")
    if wrong:
        say(f"jdna: {len(wrong)} runs have files that are not what they wrote")
        raise typer.Exit(1)
