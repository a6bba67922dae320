"""Options of most commands: what is run, where it is recorded, how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jdna_cli.cli import completing

_WHERE = "Where"

AskedPrecision = Literal["no", "bf16", "fp16", "auto"]
Format = Literal["table", "markdown", "latex", "csv", "json"]


def _model(metavar: str) -> Any:
    return typer.Argument(
        metavar=metavar,
        help="Hub id (optional @revision), local folder, GGUF file, or run:ID.",
        show_default=False,
        autocompletion=completing.models,
    )


Model = Annotated[str, _model("MODEL")]
FirstModel = Annotated[str, _model("A")]
SecondModel = Annotated[str, _model("B")]
Task = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Name of a task (`jdna tasks list`), or a TOML file that describes one.",
        show_default=False,
        autocompletion=completing.tasks,
    ),
]
TaskOrNone = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Name of a task (`jdna tasks list`), or a TOML file that describes one.",
        autocompletion=completing.tasks,
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Draw a plot into this file: .png, .svg, or .pdf.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check all, say which tensors would be pruned and why others not, and what memory "
        "it takes; stop.",
    ),
]
MemoryOnly = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all, say what memory it takes and where; stop."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the model, in place of HOME/ID.", rich_help_panel=_WHERE),
]
Home = Annotated[
    Path,
    typer.Option(
        envvar="JDNA_HOME",
        help="Folder of the database and of the runs' files.",
        rich_help_panel=_WHERE,
    ),
]
Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        envvar="JDNA_DB",
        help="Database, as a SQLAlchemy URL; HOME/jdna.db by default.",
        show_default=False,
        rich_help_panel=_WHERE,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="JDNA_DATA",
        help="Where DIR/TASK/SPLIT.jsonl stands, it is used in place of the hub.",
        rich_help_panel=_WHERE,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read a model that has pickle files alone, and keep it as safetensors. Tensors alone "
        "are unpickled.",
        rich_help_panel=_WHERE,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON object on standard output, nothing else.", rich_help_panel=_WHERE
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Run even if the database has the answer.", rich_help_panel=_WHERE
    ),
]
DEFAULT_HOME = Path("jdna-runs")
