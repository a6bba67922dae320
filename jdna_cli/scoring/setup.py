"""From a request to a scorer and tokens: what is checked before a model is loaded."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jdna_cli import files
from jdna_cli.errors import RequestError
from jdna_cli.models import architecture, loading, model_files
from jdna_cli.scoring import forms, language_codes
from jdna_cli.scoring.prompting import PromptedScorer
from jdna_cli.scoring.scorer import Scorer
from jdna_cli.scoring.tokenizer_cache import Tokens
from jdna_cli.specs import FinetuneSpec, Measured, ModelSource
from jdna_cli.tasks import conditions
from jdna_cli.tasks.conditions import Conditions
from jdna_cli.tasks.datasets import Records, load
from jdna_cli.tasks.task import Task


def scorer_for(
    spec: Measured, task: Task, source: ModelSource, cache: Path | None = None
) -> Scorer:
    """What trains `source` on the task and measures it there.

    Raises:
        RequestError: such a model cannot do such a task, or the languages are not its own.
    """
    config = model_files.config_of(source.folder)
    fitting = forms.choose(task, config, new_head=isinstance(spec, FinetuneSpec))
    # A link that leads nowhere is no file of the model.
    there = frozenset((f.name, files.state(f)) for f in source.folder.iterdir() if f.exists())
    tokenizer = _tokenizer(source.folder, there)
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
    language_codes.check(tokenizer, put.pairs)
    limit = architecture.architecture(source.folder).positions
    length = spec.max_length if limit is None else min(spec.max_length, limit)
    form = forms.form_of(config)
    start = getattr(config, "decoder_start_token_id", None)
    return fitting(
        task,
        put,
        Tokens(tokenizer, cache, getattr(config, "vocab_size", None)),
        causal=form == forms.DECODER,
        decoder_start=loading.decoder_start(tokenizer) if form == forms.ENCODER else start,
        max_length=length,
        stride=getattr(spec, "stride", None),
        label_order=order,
    )


@functools.lru_cache(maxsize=2)  # a request is checked and run, and the next one is often alike
def _tokenizer(folder: Path, there: frozenset[tuple[str, tuple[int, int, int]]]) -> Any:
    return model_files.tokenizer_of(folder)


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
    examples = conditions.apply(task, load(task, split, data_dir), put)
    if split != "train":
        _check_measurable(task, split, examples)
    return examples


def _check_measurable(task: Task, split: str, records: Records) -> None:
    """Refuse examples of which a metric of the task says nothing, where 0 would be recorded."""
    asked, labels = set(task.metrics), set(records.labels)
    if CORRELATIONS & asked and len(records) < 2:
        raise RequestError(
            f"task {task.name!r}: {split} has one example, a correlation needs two at least"
        )
    if (CORRELATIONS | {"matthews_correlation"}) & asked and len(labels) < 2:
        raise RequestError(
            f"task {task.name!r}: all {len(records)} examples of {split} have one label, and a "
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
        all_of_them = replace(put, limit=None)
        shown = conditions.shots(task, examples(task, "train", all_of_them, data_dir), put)
    return Prepared(records, scorer.encode(records, shown))
