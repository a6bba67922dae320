"""Options that say what runs cells, shared by all commands that run several."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_WHERE = "Where it runs"
Name = Literal["local", "ray", "slurm"]
Engine = Annotated[
    Name, typer.Option("--engine", help="What runs the cells.", rich_help_panel=_WHERE)
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Worker processes; by default one per GPU, else up to 4.", min=1,
        rich_help_panel=_WHERE,
    ),
]  # fmt: skip
PerDevice = Annotated[
    int,
    typer.Option(help="Workers that share a GPU, for small cells.", min=1, rich_help_panel=_WHERE),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray: the cluster to join; by default one is started here.", rich_help_panel=_WHERE
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        metavar="GB", help="Ray, Slurm: memory that a cell needs.", rich_help_panel=_WHERE
    ),
]
Minutes = Annotated[
    int, typer.Option(help="Slurm: time that a cell may take.", min=1, rich_help_panel=_WHERE)
]
Gpus = Annotated[
    int, typer.Option(help="Slurm: GPUs that a cell needs.", min=0, rich_help_panel=_WHERE)
]
SlurmCluster = Annotated[
    str | None,
    typer.Option(
        help="Slurm: `local` runs the jobs as processes here, to try it out.",
        rich_help_panel=_WHERE,
    ),
]
Retries = Annotated[
    int,
    typer.Option(help="How often a failed cell is tried again.", min=0, rich_help_panel=_WHERE),
]
