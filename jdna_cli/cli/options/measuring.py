"""Options that say how a model is measured, and under which conditions."""

from __future__ import annotations

from typing import Annotated

import typer

from jdna_cli import specs
from jdna_cli.cli.options.common import AskedPrecision

_WHERE = "Where"
_CONDITIONS = "Difficulty"

Split = Annotated[
    str | None, typer.Option(help="Split to measure on; the task's own first by default.")
]
EvalBatchSize = Annotated[
    int,
    typer.Option(
        "--eval-batch-size", help="Examples per batch when measuring.", rich_help_panel=_WHERE
    ),
]
EvalBatchSizeOrAuto = Annotated[
    str,
    typer.Option(
        "--eval-batch-size",
        metavar="N|auto",
        help="Examples per batch when measuring; auto: as many as fill a batch of tokens for "
        "which this device has memory (with --harness: 64, if nothing is said).",
        rich_help_panel=_WHERE,
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
MixedPrecisionOrSame = Annotated[
    AskedPrecision | None,
    typer.Option(
        "--mixed-precision",
        help="Precision of the computation; auto: "
        "whichever this machine is faster in; by default as in its fine-tuning.",
    ),
]
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
Book = Annotated[
    specs.Book | None,
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
Dtype = Annotated[
    specs.Dtype,
    typer.Option(
        "--dtype",
        help="Type of the weights in memory; auto: that of the files, or float32 where this "
        "CPU is faster in it.",
        rich_help_panel=_WHERE,
    ),
]
DeviceMap = Annotated[
    specs.DeviceMap | None,
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
    int | None,
    typer.Option(
        metavar="N",
        help="Measure N examples (of running text: windows), drawn by --seed; N are part of more. "
        "With --harness: the first N of each task.",
    ),
]
Points = Annotated[int, typer.Option(help="Points on the line, both ends included.")]
Time = Annotated[
    bool,
    typer.Option("--time", help="Measure latency and throughput too.", rich_help_panel=_WHERE),
]
Kernels = Annotated[
    specs.Kernels,
    typer.Option(
        "--kernels",
        help="Multiply 2:4 weights by the GPU's semi-structured kernels, with --dtype float16 or "
        "bfloat16.",
        rich_help_panel=_WHERE,
    ),
]
