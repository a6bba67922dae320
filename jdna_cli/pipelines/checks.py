"""What is checked of a request before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jdna_cli.compute import distributed
from jdna_cli.errors import RequestError
from jdna_cli.models import model_files
from jdna_cli.pipelines import prune
from jdna_cli.scoring import forms
from jdna_cli.scoring.classification import Head
from jdna_cli.scoring.language_model import LanguageModelScorer
from jdna_cli.scoring.setup import examples, scorer_for
from jdna_cli.specs import FinetuneSpec, Measured, ModelSource
from jdna_cli.tasks import conditions
from jdna_cli.tasks.task import Task
from jdna_cli.training import adapters, tracking


def check_finetune(
    spec: FinetuneSpec, task: Task, source: ModelSource, data_dir: Path | None
) -> None:
    """Find what is wrong with a request before anything is computed.

    Raises:
        RequestError: the model, its tokenizer, the task's data, or the precision will not do.
    """
    if distributed.is_sharded():
        _check_sharded(spec)
    tracking.check(spec.log_with, "--log-with")
    if spec.lora is not None:
        _check_lora(spec, source)
    check_measuring(spec, task, source)
    for split in ("train", *task.evaluation_splits):
        examples(task, split, conditions.of(task, spec), data_dir)
    if spec.prunes:
        prune.check_prune(spec.prune_spec(), source, data_dir)


def _check_lora(spec: FinetuneSpec, source: ModelSource) -> None:
    if spec.regime == "quantized":
        raise RequestError(
            "--regime: quantized moves every weight along its grid, leave --lora out"
        )
    for switch, flag in (
        (spec.schedule != "one-shot", "--schedule: iterative"),
        (spec.dynamics, "--dynamics"),
        (distributed.is_sharded(), "--use_fsdp"),
    ):
        if switch:
            raise RequestError(f"{flag} goes with weights that train themselves, not with --lora")
    adapters.targets(spec, source.folder)


def _check_sharded(spec: FinetuneSpec) -> None:
    if spec.regime == "quantized":
        raise RequestError(
            "--regime: quantized rounds whole tensors, and FSDP divides them: leave --use_fsdp out"
        )
    if spec.mixed_precision == "fp16":
        raise RequestError("--mixed-precision: fp16 was not tried with FSDP, use bf16 or no")


def check_teacher(
    spec: FinetuneSpec, task: Task, source: ModelSource, teacher: ModelSource
) -> None:
    """Find out whether a teacher's outputs can be compared with the model's.

    Raises:
        RequestError: it cannot do the task, or writes other tokens.
    """
    model_files.weight_files(teacher.folder)
    own = scorer_for(spec, task, source)
    config = model_files.config_of(teacher.folder)
    theirs = forms.choose(task, config, new_head=False)
    if type(own) is not theirs:
        raise RequestError(
            f"--teacher: {teacher.name} does task {task.name!r} by {theirs.__name__.lower()}, the "
            f"model by {type(own).__name__.lower()}: their outputs cannot be compared"
        )
    if issubclass(theirs, LanguageModelScorer):
        mine, other = own.tokens.tokenizer, model_files.tokenizer_of(teacher.folder)
        if mine.get_vocab() != other.get_vocab():
            raise RequestError(f"--teacher: {teacher.name} writes other tokens than the model")


def check_measuring(spec: Measured, task: Task, *sources: ModelSource) -> None:
    """Find what is wrong with models before they are loaded.

    Raises:
        RequestError: a model or its tokenizer is missing or damaged, or cannot do the task.
    """
    for source in sources:
        model_files.weight_files(source.folder)
        scorer = scorer_for(spec, task, source)
        if isinstance(scorer, Head):
            _check_end(scorer, source)
    if len(sources) == 2:
        _check_alike(*sources)


def _check_end(scorer: Head, source: ModelSource) -> None:
    """Refuse a tokenizer that ends no text, where the head reads the end of it."""
    config = model_files.config_of(source.folder)
    if forms.form_of(config) != forms.ENCODER_DECODER:
        return
    (ids,) = scorer.tokens(["a"])["input_ids"]
    if config.eos_token_id not in ids:
        raise RequestError(
            f"{source.folder}: {config.model_type} classifies by the token that ends a text, "
            f"number {config.eos_token_id}, and the tokenizer puts none there"
        )


def _flat(table: dict[str, Any], within: str = "") -> dict[str, Any]:
    """A configuration with those inside it, by names that say where."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict) and key not in ("id2label", "label2id")
        flat |= _flat(value, f"{within}{key}.") if nested else {f"{within}{key}": value}
    return flat


# What a configuration says of how a model was made, is trained or is run, not of what it answers.
_OF_NO_MATTER = ("name_or_path", "architectures", "version", "dtype", "drop", "use_cache",
                 "initializer", "init_std", "pad_token_id", "gradient_checkpointing",
                 "label2id", "problem_type", "finetuning_task")  # fmt: skip


def _check_alike(first: ModelSource, second: ModelSource) -> None:
    """Refuse the line between two models that differ in more than their weights.

    Raises:
        RequestError: names what differs.
    """
    told = [_flat(model_files.config_of(source.folder).to_dict()) for source in (first, second)]
    differing = sorted(
        key
        for key in {*told[0], *told[1]}
        if told[0].get(key) != told[1].get(key) and not any(part in key for part in _OF_NO_MATTER)
    )
    if differing:
        key = differing[0]
        raise RequestError(
            f"{first.name} and {second.name} differ in more than their weights: {key} is "
            f"{told[0].get(key)!r} and {told[1].get(key)!r}; there is no line between them"
        )
    one, other = (model_files.tokenizer_of(source.folder) for source in (first, second))
    text = "The 2 quick foxes, naïve & Ünder-fed, don't jump."
    if one.get_vocab() != other.get_vocab() or one(text).input_ids != other(text).input_ids:
        raise RequestError(
            f"{first.name} and {second.name} have different tokenizers: what one reads is not what "
            "the other reads; there is no line between them"
        )
