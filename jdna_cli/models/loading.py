"""Models into memory, with what a task needs on top; what is missing is refused, not made up."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from jdna_cli.compute.devices import Placing
from jdna_cli.errors import RequestError
from jdna_cli.models import experts, model_files
from jdna_cli.models.architecture import shapes_differ
from jdna_cli.models.quiet import transformers
from jdna_cli.specs import ModelSource
from jdna_cli.tasks.task import Task


def load_for_task(
    source: ModelSource,
    task: Task,
    *,
    new_head: bool,
    seed: int = 0,
    placing: Placing | None = None,
) -> nn.Module:
    """Load a model with a head for `task`.

    Args:
        source: where the weights are.
        task: says which head, and how many outputs it has.
        new_head: a head that is missing or of another shape is initialised afresh from `seed`;
            else it must be there.
        seed: of the new head.
        placing: in what type and where; float32 on the CPU by default.

    Raises:
        RequestError: weights are missing that should be there.
    """
    config = model_files.config_of(source.folder)
    rest: dict[str, Any] = {}
    if task.kind == "multiple-choice":
        kind = transformers.AutoModelForMultipleChoice
    else:
        kind = transformers.AutoModelForSequenceClassification
        names = dict(enumerate(task.labels)) or {0: task.label}
        if new_head or config.num_labels == task.outputs:
            rest = {"num_labels": task.outputs}
            if new_head:
                rest |= {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    torch.manual_seed(seed)
    model, absent = load(kind, source, task.kind, placing, **rest)
    _check_head(source, task, model, absent, new_head)
    if new_head and task.kind != "multiple-choice" and not _is_of(config, task):
        _renewed(model, seed)
    model.config.problem_type = None
    return model  # type: ignore[no-any-return]


# By name of each tensor: why the file's cannot be taken, nothing where it is missing.
Absent = dict[str, str]


def lacks(absent: Absent) -> str:
    """What is wrong with a model's files, in words."""
    for name in sorted(absent):
        if absent[name]:
            return f"its weight {name!r} {absent[name]}"
    return f"it lacks {len(absent)} of its weights, {min(absent)!r} first"


def load(
    kind: Any, source: ModelSource, use: str, placing: Placing | None = None, **rest: Any
) -> tuple[Any, Absent]:
    """A model of one of transformers' automatic classes, and the tensors that its files lack.

    Raises:
        RequestError: the architecture has no such form.
    """
    try:
        model, report = kind.from_pretrained(
            source.folder,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below
            **(placing or Placing()).arguments(),
            **rest,
        )
    except ValueError as error:
        kind_of = model_files.config_of(source.folder).model_type
        raise RequestError(
            f"model {source.name!r} ({kind_of}) has no form for {use}: "
            f"{str(error).splitlines()[0][:120]}"
        ) from None
    if placing is None or placing.device_map is None:  # whose parts stay where they were put
        experts.part_(model)
    absent = {str(name): "" for name in report["missing_keys"]}
    for name, stored, wanted in report["mismatched_keys"]:
        absent[str(name)] = shapes_differ(stored, wanted)
    return model, absent


def take_memory_(model: nn.Module) -> None:
    """Move weights out of the pages of their files, whose first change each takes far longer."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def load_writer(source: ModelSource, encoder_decoder: bool, placing: Placing | None) -> nn.Module:
    """Load a model that writes text, whole.

    Raises:
        RequestError: some of its weights are missing: it is a backbone alone, or damaged.
    """
    kind = (
        transformers.AutoModelForSeq2SeqLM if encoder_decoder else transformers.AutoModelForCausalLM
    )
    model, absent = load(kind, source, "writing text", placing)
    if absent:
        raise RequestError(f"model {source.name!r} cannot write: {lacks(absent)}")
    return model  # type: ignore[no-any-return]


def decoder_start(tokenizer: Any) -> int | None:
    """The token that a new decoder starts with: what an encoder's texts start with."""
    first: int | None = tokenizer.cls_token_id
    last: int | None = tokenizer.sep_token_id
    return last if first is None else first


def with_new_decoder(source: ModelSource, tokenizer: Any, pad: int, seed: int) -> nn.Module:
    """The encoder of `source` with a decoder of two layers, made afresh, that attends to it.

    Source: the encoders with a small decoder of Patel et al. 2021 (arXiv 2103.07191), section 4.

    Raises:
        RequestError: the encoder's own weights are incomplete.
    """
    encoder, absent = load(transformers.AutoModel, source, "encoding")
    _check_backbone(source, absent, "")
    config, end = encoder.config, tokenizer.sep_token_id
    width, heads = config.hidden_size, config.num_attention_heads
    torch.manual_seed(seed)
    start = decoder_start(tokenizer)
    written = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        is_decoder=True,
        add_cross_attention=True,
        pad_token_id=pad,
        bos_token_id=start,
        eos_token_id=end,
    )
    decoder = transformers.BertLMHeadModel(written)
    model = transformers.EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for own in (model.config, model.generation_config):
        own.decoder_start_token_id, own.eos_token_id = start, end
        own.pad_token_id = pad
    return model  # type: ignore[no-any-return]


def _check_head(
    source: ModelSource, task: Task, model: Any, absent: Absent, new_head: bool
) -> None:
    """Refuse what transformers only prints: weights that were missing and are now random."""
    _check_backbone(source, absent, f"{model.base_model_prefix}.")
    if new_head:
        return
    if absent or (task.kind != "multiple-choice" and model.config.num_labels != task.outputs):
        raise RequestError(
            f"model {source.name!r} has no head for task {task.name!r} ({task.outputs} outputs): "
            f"fine-tune it first, `jdna finetune {source.name} --task {task.name}`"
        )


def _check_backbone(source: ModelSource, absent: Absent, prefix: str) -> None:
    """Refuse a backbone that lacks weights; poolers count as part of a head.

    Many models were pre-trained without a pooler.
    """
    inside = {
        name: why
        for name, why in absent.items()
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
    }
    if inside:
        raise RequestError(f"model {source.name!r} is not whole: {lacks(inside)}")


def label_order(config: Any, task: Task, asked: str | None = None) -> list[int]:
    """Which output of a classifier is which label of the task.

    Args:
        config: of the model; its outputs have names.
        task: its labels have names.
        asked: numbers of the outputs, label by label, as `--label-order` says them.

    Raises:
        RequestError: names differ and nobody says which is which.
    """
    if not task.labels:
        return list(range(task.outputs))
    if asked is not None:
        parts = [part.strip() for part in asked.split(",")]
        if sorted(parts) != [str(i) for i in range(task.outputs)]:
            raise RequestError(
                f"--label-order: {asked!r} is no order of the outputs 0 to {task.outputs - 1}"
            )
        return [int(part) for part in parts]
    theirs = {plain(name): int(i) for i, name in (config.id2label or {}).items()}
    ours = [plain(label) for label in task.labels]
    if set(theirs) == set(ours):
        return [theirs[label] for label in ours]
    listed = ", ".join(str(config.id2label[i]) for i in sorted(config.id2label))
    raise RequestError(
        f"the model's outputs are called {listed}; the labels of task {task.name!r} are "
        f"{', '.join(task.labels)}: say which output is which label, label by label, as in "
        f"--label-order {','.join(str(i) for i in range(task.outputs))}"
    )


def plain(name: object) -> str:
    """A label's name without what spellings differ in."""
    return str(name).strip().lower()


def _is_of(config: Any, task: Task) -> bool:
    """Whether a model's head says what this task asks, output by output."""
    ours = task.labels or (task.label,)
    theirs = config.id2label or {}
    return [plain(theirs.get(i)) for i in range(len(theirs))] == [plain(name) for name in ours]


def _renewed(model: Any, seed: int) -> None:
    """Make a head afresh that was made for another task."""
    torch.manual_seed(seed)
    inside = f"{model.base_model_prefix}."
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own or f"{name}.".startswith(inside):
            continue
        for parameter in own:
            parameter._is_hf_initialized = False
        model._init_weights(module)
