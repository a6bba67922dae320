"""From a request to a scorer and tokens: what is checked before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli.engine import cluster, languages, loading, models, prunable, pruning, scorers
from jdna_cli.engine.scorers.head import Head
from jdna_cli.engine.scorers.scorer import Scorer
from jdna_cli.engine.scorers.writer import LanguageModelScorer, PromptedScorer
from jdna_cli.engine.tokens import Tokens
from jdna_cli.errors import RequestError
from jdna_cli.specs import FinetuneSpec, Measured, ModelSource
from jdna_cli.tasks import Task, conditions
from jdna_cli.tasks.conditions import Conditions
from jdna_cli.tasks.records import Records, load


def scorer_for(
    spec: Measured, task: Task, source: ModelSource, cache: Path | None = None
) -> Scorer:
    """What trains `source` on the task and measures it there.

    Raises:
        RequestError: such a model cannot do such a task, or the languages are not its own.
    """
    config = models.config_of(source.folder)
    fitting = scorers.choose(task, config, new_head=isinstance(spec, FinetuneSpec))
    tokenizer = models.tokenizer_of(source.folder)
    put = conditions.of(task, spec)
    if (put.shots or put.chat) and not issubclass(fitting, PromptedScorer):
        flag = "--shots" if put.shots else "--chat"
        raise RequestError(f"{flag}: {config.model_type} is an encoder, it is not prompted")
    order: str | None = getattr(spec, "label_order", None)
    if order is not None and task.kind != "classification":
        raise RequestError(f"--label-order: task {task.name!r} has no classes")
    measured = task.kind == "classification" and not isinstance(spec, FinetuneSpec)
    headed = any("SequenceClassification" in name for name in config.architectures or ())
    # Another number of outputs, or no head at all, is told when the model is loaded.
    if measured and headed and config.num_labels == task.outputs:
        loading.label_order(config, task, order)
    languages.check(tokenizer, put.pairs)
    limit = prunable.architecture(source.folder).positions
    length = spec.max_length if limit is None else min(spec.max_length, limit)
    form = scorers.form_of(config)
    start = getattr(config, "decoder_start_token_id", None)
    return fitting(
        task,
        put,
        Tokens(tokenizer, cache, getattr(config, "vocab_size", None)),
        causal=form == scorers.DECODER,
        decoder_start=loading.decoder_start(tokenizer) if form == scorers.ENCODER else start,
        max_length=length,
        stride=getattr(spec, "stride", None),
        label_order=order,
    )


CORRELATIONS = frozenset({"pearson", "spearman"})


@dataclass(frozen=True)
class Prepared:
    """Examples under the request's conditions, and as tokens."""

    records: Records
    encoded: Any


def examples(task: Task, split: str, put: Conditions, data_dir: Path | None) -> Records:
    """The examples of one split under the request's conditions.

    Raises:
        RequestError: the data are not what the task needs, or cannot be put under them.
    """
    found = conditions.apply(task, load(task, split, data_dir), put)
    if split != "train":
        _check_measurable(task, split, found)
    return found


def _check_measurable(task: Task, split: str, found: Records) -> None:
    """Refuse examples of which a metric of the task says nothing, where 0 would be recorded."""
    asked, labels = set(task.metrics), set(found.labels)
    if CORRELATIONS & asked and len(found) < 2:
        raise RequestError(
            f"task {task.name!r}: {split} has one example, a correlation needs two at least"
        )
    if (CORRELATIONS | {"matthews_correlation"}) & asked and len(labels) < 2:
        raise RequestError(
            f"task {task.name!r}: all {len(found)} examples of {split} have one label, and a "
            "correlation needs two at least"
        )
    if "f1" in asked and task.kind == "classification" and 1 not in labels:
        raise RequestError(
            f"task {task.name!r}: no example of {split} is {task.labels[1]!r}, of which f1 is"
        )


def counted(read: Records, used: Records | None = None) -> dict[str, int]:
    """How many examples were read, and how many of them used."""
    return {"read": len(read), "used": len(read if used is None else used)}


def prepare(scorer: Scorer, split: str, data_dir: Path | None) -> Prepared:
    """Read, check and tokenise one split, with its shots."""
    task, put = scorer.task, scorer.conditions
    records = examples(task, split, put, data_dir)
    shown = None
    if put.shots:
        shown = conditions.shots(task, examples(task, "train", put, data_dir), put)
    return Prepared(records, scorer.encode(records, shown))


def check_finetune(
    spec: FinetuneSpec, task: Task, source: ModelSource, data_dir: Path | None
) -> None:
    """Find what is wrong with a request before anything is computed.

    Raises:
        RequestError: the model, its tokenizer, the task's data, or the precision will not do.
    """
    if cluster.is_sharded():
        _check_sharded(spec)
    check_measuring(spec, task, source)
    for split in ("train", *task.evaluation_splits):
        examples(task, split, conditions.of(task, spec), data_dir)
    if spec.prunes:
        pruning.check_prune(spec.prune_spec(), source, data_dir)


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
    models.weight_files(teacher.folder)
    own = scorer_for(spec, task, source)
    config = models.config_of(teacher.folder)
    theirs = scorers.choose(task, config, new_head=False)
    if type(own) is not theirs:
        raise RequestError(
            f"--teacher: {teacher.name} does task {task.name!r} by {theirs.__name__.lower()}, the "
            f"model by {type(own).__name__.lower()}: their outputs cannot be compared"
        )
    if issubclass(theirs, LanguageModelScorer):
        mine, other = own.tokens.tokenizer, models.tokenizer_of(teacher.folder)
        if mine.get_vocab() != other.get_vocab():
            raise RequestError(f"--teacher: {teacher.name} writes other tokens than the model")


def check_measuring(spec: Measured, task: Task, *sources: ModelSource) -> None:
    """Find what is wrong with models before they are loaded.

    Raises:
        RequestError: a model or its tokenizer is missing or damaged, or cannot do the task.
    """
    for source in sources:
        models.weight_files(source.folder)
        scorer = scorer_for(spec, task, source)
        if isinstance(scorer, Head):
            _check_end(scorer, source)
    if len(sources) == 2:
        _check_alike(*sources)


def _check_end(scorer: Head, source: ModelSource) -> None:
    """Refuse a tokenizer that ends no text, where the head reads the end of it."""
    config = models.config_of(source.folder)
    if scorers.form_of(config) != scorers.ENCODER_DECODER:
        return
    (ids,) = scorer.tokens(["a"])["input_ids"]
    if config.eos_token_id not in ids:
        raise RequestError(
            f"{source.folder}: {config.model_type} classifies by the token that ends a text, "
            f"number {config.eos_token_id}, and the tokenizer puts none there"
        )


def _flat(table: dict[str, Any], within: str = "") -> dict[str, Any]:
    """A configuration with those inside it, by names that say where."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict) and key not in ("id2label", "label2id")
        found |= _flat(value, f"{within}{key}.") if nested else {f"{within}{key}": value}
    return found


# What a configuration says of how a model was made, is trained or is run, not of what it answers.
_OF_NO_MATTER = ("name_or_path", "architectures", "version", "dtype", "drop", "use_cache",
                 "initializer", "init_std", "pad_token_id", "gradient_checkpointing",
                 "label2id", "problem_type", "finetuning_task")  # fmt: skip


def _check_alike(first: ModelSource, second: ModelSource) -> None:
    """Refuse the line between two models that differ in more than their weights.

    Raises:
        RequestError: names what differs.
    """
    told = [_flat(models.config_of(source.folder).to_dict()) for source in (first, second)]
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
    one, other = (models.tokenizer_of(source.folder) for source in (first, second))
    text = "The 2 quick foxes, naïve & Ünder-fed, don't jump."
    if one.get_vocab() != other.get_vocab() or one(text).input_ids != other(text).input_ids:
        raise RequestError(
            f"{first.name} and {second.name} have different tokenizers: what one reads is not what "
            "the other reads; there is no line between them"
        )
