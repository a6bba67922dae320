"""Options that say what is taken away, and how it is chosen."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jdna_cli import specs
from jdna_cli.cli import completing

_WHERE = "Where"
_PRUNING = "Pruning"
_ROUNDING = "Quantization"
_CALIBRATION = "Calibration"
Sparsity = Annotated[
    float | None,
    typer.Option(
        help="Fraction of the prunable weights to set to zero, 0 ≤ S < 1.",
        rich_help_panel=_PRUNING,
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="N:M",
        help="Keep N of each M consecutive weights along the input dimension.",
        rich_help_panel=_PRUNING,
    ),
]
Criterion = Annotated[
    str,
    typer.Option(
        help="What scores a weight's importance: magnitude, magnitude-inverse, random, gradient, "
        "fisher, wanda, sparsegpt, or a function of a file of your own, as in mine.py:score.",
        autocompletion=completing.criteria,
        rich_help_panel=_PRUNING,
    ),
]
Scope = Annotated[
    specs.Scope | None,
    typer.Option(
        "--scope",
        help="Where scores compete; by default as the criterion says: global, for wanda row, for "
        "sparsegpt layer.",
        rich_help_panel=_PRUNING,
    ),
]
ScopeWithin = Annotated[
    Literal["layer", "row"] | None,
    typer.Option(
        "--scope",
        help="Where scores compete within a matrix: layer, or row; by default as the criterion "
        "says.",
        rich_help_panel=_PRUNING,
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="How much each tensor loses: uniform, global (scores compete), erk (large tensors "
        "lose more), owl (blocks with outliers lose less; needs --calibration), or a file that "
        "says it, as `jdna scan` writes one. By default as the scope says.",
        autocompletion=completing.allocations,
        rich_help_panel=_PRUNING,
    ),
]
PruningSeed = Annotated[
    int,
    typer.Option(
        help="Seed of random scores and of calibration samples.", rich_help_panel=_PRUNING
    ),
]
Quantize = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        help="Round every prunable weight, or what pruning leaves, to 2 … 8 bits.",
        rich_help_panel=_ROUNDING,
    ),
]
Granularity = Annotated[
    specs.Granularity,
    typer.Option(
        "--granularity", help="What shares a scale: the tensor, or each output channel.",
        rich_help_panel=_ROUNDING,
    ),
]  # fmt: skip
GroupSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="A scale for each N consecutive weights of a channel along the input.",
        rich_help_panel=_ROUNDING,
    ),
]
Asymmetric = Annotated[
    bool,
    typer.Option(
        "--asymmetric", help="Values from the smallest to the largest weight, with a zero point.",
        rich_help_panel=_ROUNDING,
    ),
]  # fmt: skip
Rounding = Annotated[
    specs.Rounding,
    typer.Option(
        "--rounding",
        help="To the nearest value, or column by column with the error made good by the columns "
        "to the right (needs --calibration); with sparsegpt always so.",
        rich_help_panel=_ROUNDING,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="TASK|FILE",
        help="What the model is run on to choose weights: a task's training examples, or windows "
        "of a text file.",
        rich_help_panel=_CALIBRATION,
    ),
]
CalibrationSamples = Annotated[
    int, typer.Option(help="Examples, or windows.", rich_help_panel=_CALIBRATION)
]
CalibrationLength = Annotated[
    int,
    typer.Option(
        help="Tokens of a window, and of an example at most; no more than the model has positions.",
        rich_help_panel=_CALIBRATION,
    ),
]
Sequential = Annotated[
    bool,
    typer.Option(
        "--sequential/--no-sequential",
        help="Choose within a block by what the blocks before it, already pruned, make of the "
        "samples; else by what they made before. Global scores are always of the model as it was.",
        rich_help_panel=_CALIBRATION,
    ),
]
Packed = Annotated[
    bool,
    typer.Option(
        "--packed",
        help="Write the compact form: bit masks and kept values, 2:4 places, or codes. Every "
        "command of jdna reads it, bit for bit; transformers does not.",
        rich_help_panel=_WHERE,
    ),
]
Schedule = Annotated[
    specs.Schedule,
    typer.Option(
        "--schedule",
        help="Prune once before training, or in rounds while training (cubic).",
        rich_help_panel=_PRUNING,
    ),
]
ScheduleRounds = Annotated[
    int, typer.Option(help="Rounds of the iterative schedule.", rich_help_panel=_PRUNING)
]
ScheduleEnd = Annotated[
    float,
    typer.Option(
        help="Share of all steps after which the last round has been.", rich_help_panel=_PRUNING
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Prune only tensors whose name matches this shell pattern; may be repeated.",
        rich_help_panel=_PRUNING,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Do not prune tensors whose name matches this shell pattern; may be repeated.",
        rich_help_panel=_PRUNING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Take up a calibrated pruning that was cut off, after its last finished block.",
        rich_help_panel=_WHERE,
    ),
]
