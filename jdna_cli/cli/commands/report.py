"""`jdna report`: what the runs say, as a table, data, a figure, or a page. Imports no torch."""

from __future__ import annotations

import datetime as dt
import gc
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jdna_cli.cli import completing, report_output
from jdna_cli.cli.asked import fraction
from jdna_cli.cli.options import common
from jdna_cli.errors import RequestError

if TYPE_CHECKING:
    from jdna_cli.difficulty import StatedTest
    from jdna_cli.reports.query import Filters, Source

_WHICH = "Which runs"


def _day(what: str) -> Any:
    return typer.Option(
        formats=["%Y-%m-%d"], metavar="DATE", rich_help_panel=_WHICH, show_default=False,
        help=f"{what} (YYYY-MM-DD, this machine's time zone); dense references stay.",
    )  # fmt: skip


def _some(what: str, metavar: str, completed: Any = None) -> Any:
    return typer.Option(
        metavar=metavar, help=f"{what}; again for more.", rich_help_panel=_WHICH,
        show_default=False, autocompletion=completed,
    )  # fmt: skip


# Shared by all reports: which runs.
Models = Annotated[list[str] | None, _some("Only runs from this pre-trained model", "MODEL")]
Tasks = Annotated[list[str] | None, _some("Only runs on this task", "TASK", completing.tasks)]
Regimes = Annotated[
    list[str] | None, _some("Only this transfer regime", "REGIME", completing.regimes)
]
Criteria = Annotated[
    list[str] | None, _some("Only weights chosen by this criterion", "NAME", completing.criteria)
]
Patterns = Annotated[
    list[str] | None,
    _some("Only this pattern: unstructured, N:M for all of those, or one as 2:4", "PATTERN"),
]
Seeds = Annotated[list[int] | None, _some("Only runs with this seed", "SEED")]
Since = Annotated[dt.datetime | None, _day("Only runs that ended on this day or later")]
Until = Annotated[dt.datetime | None, _day("Only runs that ended on this day or earlier")]


def report(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Which report; `list` names all.",
            show_default=False,
            autocompletion=completing.reports,
        ),
    ] = "drop",
    figure: Annotated[
        str,
        typer.Argument(
            metavar="[FIGURE]", help="paper: which of the published figures.", show_default=False
        ),
    ] = "",
    model: Models = None,
    task: Tasks = None,
    regime: Regimes = None,
    criterion: Criteria = None,
    pattern: Patterns = None,
    seed: Seeds = None,
    since: Since = None,
    until: Until = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="Only the models, tasks and seeds of this experiment, judged by the test that "
            "its file states.",
            rich_help_panel=_WHICH,
            show_default=False,
            autocompletion=completing.experiments,
        ),
    ] = None,
    run: Annotated[
        list[int] | None, _some("compare: the two runs", "ID", completing.numbers)
    ] = None,
    tolerance: Annotated[
        str, typer.Option(help="verdict, advise: drop that still counts as none, as 1% or 0.01.")
    ] = "1%",
    output: Annotated[common.Format, typer.Option("--format", help="How to write it.")] = "table",
    plot: common.Plot = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write everything as one page that needs no network, to this file."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER",
            help="Hand the runs over to tensorboard, mlflow, trackio, wandb, or another of "
            "accelerate's trackers.",
        ),
    ] = None,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """What the recorded runs say. By default: performance drop by task difficulty and sparsity."""
    from jdna_cli import reports
    from jdna_cli.cli.opening import url_of
    from jdna_cli.reports.query import Filters, source_of
    from jdna_cli.reports.rendering import plots

    # Short-lived, and full of small things that stay: there is nothing to collect.
    gc.disable()
    if name == "list":
        print(_listed(as_json=as_json), end="")
        return
    if plot is not None:
        plots.check_path(plot)
    if html is not None:
        _check_page(html)
    own, stated = _of_experiment(experiment)
    filters = Filters(
        models=tuple(model or own.models),
        tasks=tuple(task or own.tasks),
        regimes=tuple(regime or ()),
        criteria=tuple(criterion or ()),
        patterns=tuple(pattern or ()),
        seeds=tuple(seed or own.seeds),
        since=since.date() if since else None,
        until=until.date() if until else None,
    )
    drop, asked = fraction("--tolerance", tolerance), tuple(run or ())
    reports.load(name)
    source = source_of(url_of(home, db), home, filters, drop, asked, figure, stated)
    if export is not None:
        told = _export(export, source)
        print(json.dumps(told) if as_json else "{exported} runs exported to {to}".format(**told))
        return
    targets = report_output.Targets("json" if as_json else output, plot, html, as_json, title)
    print(report_output.write(name, source, targets), end="")


def _export(tracker: str, source: Source) -> dict[str, Any]:
    """Tell a tracker of all selected runs; how many, and where."""
    from jdna_cli.reports import exports
    from jdna_cli.training import tracking

    tracking.check([tracker], "--export")
    folder = source.home / "exports"
    runs = exports.runs(source)
    for run in runs:
        # A log grows: the same export again would say everything twice.
        shutil.rmtree(folder / tracker / run.name, ignore_errors=True)
        told = tracking.Tracking([tracker], run.name, folder, run.settings)
        told.log([m for m in run.measured if m.step is not None])
        told.finish(run.measured)
    return {"exported": len(runs), "to": tracking.place(tracker, folder)}


def _of_experiment(name: str | None) -> tuple[Filters, StatedTest | None]:
    """Which runs are an experiment's, and the test that it stated."""
    from jdna_cli.reports.query import Filters

    if name is None:
        return Filters(), None
    from jdna_cli.cli.sweep_models import filters_of
    from jdna_cli.sweeps.experiment import find

    asked = find(name)
    return filters_of(asked), asked.test


def _listed(*, as_json: bool) -> str:
    from jdna_cli import reports
    from jdna_cli.reports.rendering import tables

    told = {
        name: (reports.load(name).__doc__ or "").split(":", 1)[1].splitlines()[0].strip()
        for name in reports.names()
    }
    if as_json:
        return json.dumps({"reports": told}) + "\n"
    return tables.render(
        ("report", "shows"), [[name, text] for name, text in told.items()], "table"
    )


def _check_page(path: Path) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--html: {path} must end in .html")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"--html: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise RequestError(f"--html: {path} is a folder")
