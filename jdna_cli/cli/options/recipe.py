"""Options that say how a model is fine-tuned."""

from __future__ import annotations

from typing import Annotated

import typer

from jdna_cli.cli import completing
from jdna_cli.cli.options.common import AskedPrecision

_RECIPE = "Recipe"
_WHERE = "Where"
_TEACHING = "Teacher and dynamics"
_ADAPTERS = "Adapters"

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
    AskedPrecision,
    typer.Option(
        help="Precision of the computation; auto: whichever this machine is faster in.",
        rich_help_panel=_RECIPE,
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
Lora = Annotated[
    int | None,
    typer.Option(
        metavar="RANK",
        help="Train low-rank adapters beside the matrices in place of the weights, and merge them "
        "at the end, under the mask of the regime; a new head trains in full (extra `lora`).",
        rich_help_panel=_ADAPTERS,
    ),
]
LoraAlpha = Annotated[
    float | None,
    typer.Option(
        help="The product is scaled by alpha / rank; by default twice the rank.",
        rich_help_panel=_ADAPTERS,
    ),
]
LoraTargets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Matrices that get an adapter, by a shell pattern of their name or its end, as "
        "q_proj; may be repeated; by default all prunable ones.",
        rich_help_panel=_ADAPTERS,
    ),
]
LoraKeep = Annotated[
    bool,
    typer.Option(
        "--lora-keep",
        help="Write the adapters beside the merged model too, as peft reads them.",
        rich_help_panel=_ADAPTERS,
    ),
]
LogWith = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Tell tensorboard, mlflow, trackio, wandb, or another of accelerate's trackers what "
        "is measured while it trains; may be repeated. No report needs it.",
        rich_help_panel=_WHERE,
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
