"""Every option, once: name, help, unit. Ranges and defaults are those of the specs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "Hub id (optional @revision), local folder, or run:ID."
_RECIPE, _WHERE, _PRUNING = "Recipe", "Where", "Pruning"


class Scope(StrEnum):
    """Where scores compete."""

    GLOBAL = "global"
    LAYER = "layer"
    ROW = "row"


class Precision(StrEnum):
    """Mixed precision."""

    NO = "no"
    BF16 = "bf16"
    FP16 = "fp16"


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
OtherModel = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Task = Annotated[
    str, typer.Option("--task", help="Name of the task: `jdna tasks list`.", show_default=False)
]
Split = Annotated[
    str | None, typer.Option(help="Split to measure on; the task's own first by default.")
]

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
    str, typer.Option(help="What scores a weight's importance.", rich_help_panel=_PRUNING)
]
ScopeOption = Annotated[
    Scope,
    typer.Option("--scope", help="Where scores compete.", rich_help_panel=_PRUNING),
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

Regime = Annotated[
    str | None,
    typer.Option(
        help="Transfer regime: dense, sparse, sparse-to-dense, dense-frozen, reinit, large-frozen. "
        "By default sparse where something was pruned, else dense.",
        rich_help_panel=_RECIPE,
    ),
]
DataFraction = Annotated[
    float, typer.Option(help="Fraction of the training set.", rich_help_panel=_RECIPE)
]
MaxTrainSamples = Annotated[
    int | None,
    typer.Option(help="Use at most this many training examples.", rich_help_panel=_RECIPE),
]
Epochs = Annotated[
    int, typer.Option(help="Passes over the training examples.", rich_help_panel=_RECIPE)
]
LearningRate = Annotated[
    float, typer.Option("--lr", help="Highest learning rate.", rich_help_panel=_RECIPE)
]
BatchSize = Annotated[int, typer.Option(help="Examples per batch.", rich_help_panel=_RECIPE)]
EvalBatchSize = Annotated[
    int, typer.Option(help="Examples per batch when measuring.", rich_help_panel=_WHERE)
]
GradientAccumulation = Annotated[
    int, typer.Option(help="Batches per update of the weights.", rich_help_panel=_RECIPE)
]
MaxLength = Annotated[
    int, typer.Option(help="Tokens per example; longer ones are cut.", rich_help_panel=_RECIPE)
]
MaxLengthOrSame = Annotated[
    int | None,
    typer.Option("--max-length", help="Tokens per example; by default as in its fine-tuning."),
]
WeightDecay = Annotated[
    float, typer.Option(help="Decoupled weight decay of matrices.", rich_help_panel=_RECIPE)
]
Warmup = Annotated[
    float, typer.Option(help="Fraction of all steps with a rising rate.", rich_help_panel=_RECIPE)
]
MaxGradNorm = Annotated[
    float | None,
    typer.Option(help="Clip the norm of the gradient to this.", rich_help_panel=_RECIPE),
]
Seed = Annotated[
    int,
    typer.Option(help="Seed of head, order, dropout, and subset.", rich_help_panel=_RECIPE),
]
MixedPrecision = Annotated[
    Precision,
    typer.Option(help="Precision of the computation.", rich_help_panel=_RECIPE),
]
MixedPrecisionOrSame = Annotated[
    Precision | None,
    typer.Option(
        "--mixed-precision", help="Precision of the computation; by default as in its fine-tuning."
    ),
]
CheckpointEvery = Annotated[
    int,
    typer.Option(
        metavar="STEPS",
        help="Steps between checkpoints; 0 for none but on a signal.",
        rich_help_panel=_WHERE,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Take up a run that was cut off at its last checkpoint.",
        rich_help_panel=_WHERE,
    ),
]  # fmt: skip
Points = Annotated[int, typer.Option(help="Points on the line, both ends included.")]
Plot = Annotated[Path | None, typer.Option(help="Draw a plot into this file: .png, .svg, or .pdf.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say which tensors would be pruned and why others not; stop."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the pruned model, in place of HOME/ID.", rich_help_panel=_WHERE),
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
