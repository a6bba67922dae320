"""Every option, once: name, help, unit. Ranges and defaults are those of the specs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jdna_cli.cli import completing

MODEL_HELP = "Hub id (optional @revision), local folder, or run:ID."
_RECIPE, _WHERE, _PRUNING, _CONDITIONS = "Recipe", "Where", "Pruning", "Difficulty"
_ROUNDING, _CALIBRATION, _TEACHING = "Quantisation", "Calibration", "Teacher and dynamics"


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
    AUTO = "auto"


class Book(StrEnum):
    """Whether questions are answered with a text at hand."""

    OPEN = "open"
    CLOSED = "closed"


class Dtype(StrEnum):
    """Type of the weights in memory."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    AUTO = "auto"


class DeviceMap(StrEnum):
    """How a model is spread over devices."""

    AUTO = "auto"
    BALANCED = "balanced"
    SEQUENTIAL = "sequential"


class Granularity(StrEnum):
    """What shares a scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"


class Rounding(StrEnum):
    """How weights are rounded."""

    NEAREST = "nearest"
    GPTQ = "gptq"


class Schedule(StrEnum):
    """When weights are pruned."""

    ONE_SHOT = "one-shot"
    ITERATIVE = "iterative"


class Kernels(StrEnum):
    """What multiplies matrices."""

    DENSE = "dense"
    SEMI_STRUCTURED = "semi-structured"


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


_MODEL = typer.Argument(
    metavar="MODEL", help=MODEL_HELP, show_default=False, autocompletion=completing.models
)
Model = Annotated[str, _MODEL]
OtherModel = Annotated[str, _MODEL]
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
    str,
    typer.Option(
        help="What scores a weight's importance: magnitude, magnitude-inverse, random, gradient, "
        "fisher, wanda, sparsegpt, or a function of a file of your own, as in mine.py:score.",
        autocompletion=completing.criteria,
        rich_help_panel=_PRUNING,
    ),
]
ScopeOption = Annotated[
    Scope | None,
    typer.Option(
        "--scope",
        help="Where scores compete; by default as the criterion says: global, for wanda row, for "
        "sparsegpt layer.",
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
        help="In place of pruning: round every prunable weight to 2 … 8 bits.",
        rich_help_panel=_ROUNDING,
    ),
]
GranularityOption = Annotated[
    Granularity,
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
RoundingOption = Annotated[
    Rounding,
    typer.Option(
        "--rounding",
        help="To the nearest value, or column by column with the error made good by the columns "
        "to the right (needs --calibration).",
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
ScheduleOption = Annotated[
    Schedule,
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
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Learn from this model's outputs too: run:ID, a folder, or a hub id; for classes and "
        "numbers one that was fine-tuned on the task.",
        rich_help_panel=_TEACHING,
    ),
]
DistillWeight = Annotated[
    float,
    typer.Option(
        help="Weight of the divergence from the teacher; the labels' loss has the rest.",
        rich_help_panel=_TEACHING,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(help="Temperature of both softmaxes.", rich_help_panel=_TEACHING),
]
Dynamics = Annotated[
    bool,
    typer.Option(
        "--dynamics",
        help="Record how far small and large weights move, tensor by tensor.",
        rich_help_panel=_TEACHING,
    ),
]
DynamicsEvery = Annotated[
    int, typer.Option(metavar="STEPS", help="Steps between records.", rich_help_panel=_TEACHING)
]
Time = Annotated[
    bool,
    typer.Option("--time", help="Measure latency and throughput too.", rich_help_panel=_WHERE),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(
        "--kernels",
        help="Multiply 2:4 weights by the GPU's semi-structured kernels, with --dtype float16 or "
        "bfloat16.",
        rich_help_panel=_WHERE,
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

Regime = Annotated[
    str | None,
    typer.Option(
        help="Transfer regime: dense, sparse, sparse-to-dense, dense-frozen, reinit, "
        "large-frozen; quantized, quantized-to-dense. By default sparse where something was "
        "pruned, quantized where it was rounded, else dense.",
        autocompletion=completing.regimes,
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
    int | None,
    typer.Option(
        help="Tokens per example, longer ones are cut; by default 128, for questions with a text "
        "and running text 512.",
        rich_help_panel=_RECIPE,
    ),
]
MaxLengthOrSame = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        help="Tokens per example, of running text per window; by default as in its "
        "fine-tuning, else 128 for a head and 2048, or what the model has, for prompts.",
    ),
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
    typer.Option(
        help="Precision of the computation; auto: whichever this machine is faster in.",
        rich_help_panel=_RECIPE,
    ),
]
MixedPrecisionOrSame = Annotated[
    Precision | None,
    typer.Option(
        "--mixed-precision",
        help="Precision of the computation; auto: "
        "whichever this machine is faster in; by default as in its fine-tuning.",
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
Options = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Options of a multiple choice: the right one and K − 1 seeded others.",
        rich_help_panel=_CONDITIONS,
    ),
]
Shots = Annotated[
    int,
    typer.Option(
        metavar="K",
        help="Examples of the training split shown before each question, seeded.",
        rich_help_panel=_CONDITIONS,
    ),
]
BookOption = Annotated[
    Book | None,
    typer.Option(
        "--book",
        help="Answer questions with their text at hand, or without; open by default where the "
        "task has texts.",
        rich_help_panel=_CONDITIONS,
    ),
]
ContextWords = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Cut each text around its answer's sentence, or fill it up with texts of other "
        "questions, to exactly N words.",
        rich_help_panel=_CONDITIONS,
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Directions of translation: en-de, several as en-de,en-fr, the first 2, 5, …, or "
        "majority or minority; by default the task's first.",
        rich_help_panel=_CONDITIONS,
    ),
]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat",
        help="Put prompts as the tokenizer's chat template says.",
        rich_help_panel=_CONDITIONS,
    ),
]
DrawSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Seed of what is drawn: options, shots, texts; by default its fine-tuning's, else 0.",
        rich_help_panel=_CONDITIONS,
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="Running text: tokens from one window to the next; by default no overlap.",
        rich_help_panel=_CONDITIONS,
    ),
]
LabelOrder = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,…",
        help="A classifier whose outputs have other names than the task's labels: the number of "
        "the output of each label, in the task's order.",
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Type of the weights in memory; auto: that of the files, or float32 where this "
        "CPU is faster in it.",
        rich_help_panel=_WHERE,
    ),
]
DeviceMapOption = Annotated[
    DeviceMap | None,
    typer.Option(
        "--device-map",
        help="Spread a model that one device cannot hold over all, then over memory and disk.",
        rich_help_panel=_WHERE,
    ),
]
Harness = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Tasks of the LM evaluation harness in place of --task, as in arc_easy,hellaswag; "
        "a name that ends in .yaml is a file. Needs the extra `harness`.",
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="With --harness: only the first so many examples of each task.")
]
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
