"""Calibration: what a criterion may know of a model besides its weights.

Samples are examples of a task, put as the task puts them, or windows of a text. Drawn by a seed,
run one at a time: nothing is padded, and gradients are each example's own.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.compute.devices import Placing
from jdna_cli.errors import RequestError
from jdna_cli.models import architecture, loading, model_files
from jdna_cli.models.quiet import transformers
from jdna_cli.observer import Progress
from jdna_cli.scoring import forms
from jdna_cli.scoring.tokenizer_cache import Tokens
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.specs import FinetuneSpec, ModelSource, PruneSpec
from jdna_cli.tasks import datasets, reading
from jdna_cli.tasks.calibration import is_file, split_of
from jdna_cli.tasks.lookup import get
from jdna_cli.tasks.task import Task

MASKED = 0.15  # of the tokens of a window, where an encoder's pre-training loss is wanted

Loss = Callable[[nn.Module, int, torch.device], Tensor]


@dataclass(frozen=True)
class Samples:
    """Calibration samples of one model: how many, the model that takes them, and its loss."""

    count: int
    load: Callable[[Placing], nn.Module]
    loss: Loss

    def passes(self, model: nn.Module, device: torch.device) -> list[Callable[[], object]]:
        """One forward pass for each sample."""
        return [lambda i=i: self.loss(model, i, device) for i in range(self.count)]  # type: ignore[misc]


def prepare(
    spec: PruneSpec, source: ModelSource, data_dir: Path | None, *, gradients: bool
) -> Samples:
    """Draw and tokenise the samples.

    Args:
        spec: names the calibration, and says how many samples of what length.
        source: the model they are for.
        data_dir: where tasks' files are.
        gradients: whether the loss is wanted, or the activations alone.

    Raises:
        RequestError: there are too few examples, or the text is shorter than one window.
    """
    assert spec.calibration is not None
    limit = architecture.architecture(source.folder).positions
    length = spec.calibration_length if limit is None else min(spec.calibration_length, limit)
    if is_file(spec.calibration):
        return _of_text(spec, source, _text_of(Path(spec.calibration)), length, gradients)
    task = get(spec.calibration)
    if task.kind == "language-modelling":
        rows = datasets.load(task, split_of(task), data_dir)
        text = task.separator.join(texts[0] for texts in rows.texts)
        return _of_text(spec, source, text, length, gradients)
    return _of_task(spec, source, task, length, data_dir)


def _text_of(file: Path) -> str:
    if file.suffix != ".jsonl":
        return reading.text_of(file)
    rows = reading.json_lines(file)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("text"), str):
            raise RequestError(f"--calibration: {file}, row {number}: has no `text`")
    return "\n\n".join(row["text"] for row in rows)


def _of_task(
    spec: PruneSpec, source: ModelSource, task: Task, length: int, data_dir: Path | None
) -> Samples:
    """Examples of a task's training split, with the task's own loss."""
    asked: dict[str, Any] = {"model": spec.model, "task": task.name, "seed": spec.pruning_seed}
    if task.kind == "question-answering":
        asked["book"] = "open" if task.context else "closed"
    from jdna_cli.scoring.setup import examples, scorer_for

    put = FinetuneSpec(**asked, max_length=max(4, length))
    scorer = scorer_for(put, task, source)
    full = examples(task, split_of(task), scorer.conditions, data_dir)
    if len(full) < spec.calibration_samples:
        raise RequestError(
            f"--calibration-samples: {task.name} has {len(full)} examples, "
            f"{spec.calibration_samples} were asked"
        )
    order = random.Random(spec.pruning_seed).sample(range(len(full)), spec.calibration_samples)
    encoded = scorer.encode(full.chosen(order))

    def load(placing: Placing) -> nn.Module:
        return scorer.load(source, new_head=True, seed=spec.pruning_seed, placing=placing)

    def loss(model: nn.Module, i: int, device: torch.device) -> Tensor:
        return scorer.loss(model, encoded, [i], device)

    return Samples(spec.calibration_samples, load, loss)


def _of_text(
    spec: PruneSpec, source: ModelSource, text: str, length: int, gradients: bool
) -> Samples:
    """Windows of a running text, with the loss of pre-training where it is wanted."""
    config = model_files.config_of(source.folder)
    form = forms.form_of(config)
    tokenizer = Tokens(model_files.tokenizer_of(source.folder)).tokenizer
    # An encoder's window has the tokens between which its texts stand.
    ends = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    framed = form == forms.ENCODER and None not in ends
    width = length - 2 if framed else length
    ids = _tokenized(source.folder, source.identity, text)
    if width < 2 or len(ids) < width:
        raise RequestError(
            f"--calibration: a text of {len(ids)} tokens is shorter than one window of {length}: "
            "give a longer one, or a smaller --calibration-length"
        )
    draw = random.Random(spec.pruning_seed)
    starts = [draw.randrange(len(ids) - width + 1) for _ in range(spec.calibration_samples)]
    windows = [torch.tensor(ids[start : start + width]) for start in starts]
    if framed:
        first, last = (torch.tensor([token]) for token in ends)
        windows = [torch.cat([first, window, last]) for window in windows]
    kinds = {
        forms.ENCODER: transformers.AutoModelForMaskedLM,
        forms.DECODER: transformers.AutoModelForCausalLM,
        forms.ENCODER_DECODER: transformers.AutoModelForSeq2SeqLM,
    }

    def load(placing: Placing) -> nn.Module:
        kind = kinds[form] if gradients else transformers.AutoModel
        model, absent = loading.load(kind, source, "calibration", placing)
        if absent and gradients:
            raise RequestError(
                f"model {source.name!r} lacks {min(absent)!r}, without which it has no loss on a "
                "text: calibrate with a task"
            )
        return model  # type: ignore[no-any-return]

    def loss(model: nn.Module, i: int, device: torch.device) -> Tensor:
        window = windows[i][None].to(device)
        inputs = _inputs(form, window, config)
        if not gradients:
            return model(**inputs)[0]  # type: ignore[no-any-return]
        if form == forms.ENCODER:
            return _masked_loss(model, window, tokenizer, spec.pruning_seed + i)
        labels = window[:, width // 2 :] if form == forms.ENCODER_DECODER else window
        inputs.pop("decoder_input_ids", None)
        return model(**inputs, labels=labels).loss  # type: ignore[no-any-return]

    return Samples(spec.calibration_samples, load, loss)


@functools.lru_cache(maxsize=1)  # it is checked before it is used
def _tokenized(folder: Path, identity: str, text: str) -> list[int]:
    tokenizer = Tokens(model_files.tokenizer_of(folder)).tokenizer
    found: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return found


def _inputs(form: str, window: Tensor, config: Any) -> dict[str, Tensor]:
    """A window as an architecture reads it; a decoder after an encoder continues its half."""
    if form != forms.ENCODER_DECODER:
        return {"input_ids": window}
    half = window.shape[1] // 2
    start = config.decoder_start_token_id
    began = torch.full((1, 1), 0 if start is None else start, device=window.device)
    written = torch.cat([began, window[:, half:-1]], dim=1)
    return {"input_ids": window[:, :half], "decoder_input_ids": written}


def _masked_loss(model: nn.Module, window: Tensor, tokenizer: Any, seed: int) -> Tensor:
    """Cross-entropy of masked tokens, Devlin et al. 2018: here all of them become the mask."""
    if tokenizer.mask_token_id is None:
        raise RequestError("--calibration: the tokenizer has no mask token, calibrate with a task")
    draw = torch.Generator().manual_seed(seed)
    inner = window.shape[1] - 2
    count = max(1, round(MASKED * inner))
    places = 1 + torch.randperm(inner, generator=draw)[:count].to(window.device)
    labels = torch.full_like(window, -100)
    labels[:, places] = window[:, places]
    masked = window.clone()
    masked[:, places] = tokenizer.mask_token_id
    return model(input_ids=masked, labels=labels).loss  # type: ignore[no-any-return]


def gradients(
    model: nn.Module, chosen: dict[str, Tensor], samples: Samples, device: torch.device,
    progress: Progress,
) -> Iterator[tuple[str, Statistics]]:  # fmt: skip
    """Means over samples of each chosen weight's gradient and of its square, in float32.

    Args:
        model: in evaluation mode, on `device`.
        chosen: parameters of the model by the name under which they are told.
        samples: what the loss is taken of.
        device: where it is computed.
        progress: told after each sample.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in chosen.items()}
    squares = {name: torch.zeros_like(total) for name, total in sums.items()}
    for weight in chosen.values():
        weight.requires_grad_(True)
    for i in range(samples.count):
        loss = samples.loss(model, i, device)
        own = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
        for name, found in zip(chosen, own, strict=True):
            if found is not None:
                sums[name] += found.float()
                squares[name].addcmul_(found.float(), found.float())
        progress("calibrate", i + 1, samples.count, "")
    for name in chosen:
        yield (
            name,
            Statistics(
                name,
                examples=samples.count,
                gradient=(sums.pop(name) / samples.count).cpu(),
                squared_gradient=(squares.pop(name) / samples.count).cpu(),
            ),
        )


def unreached(name: str) -> RequestError:
    """What to raise where no sample goes through a matrix."""
    return RequestError(
        f"the calibration does not reach {name!r}: leave it out with --exclude '{name}'"
    )


def _exact(inputs: Tensor) -> bool:
    """Whether a GPU multiplies these as they are without an error, and adds up in float32."""
    if inputs.dtype != torch.bfloat16 or not inputs.is_cuda or torch.version.hip is not None:
        return False
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _with_products(total: Tensor | None, inputs: Tensor) -> Tensor:
    """X Xᵀ (in, in) float32 of inputs (tokens, in), added to `total` in place if there is one."""
    if _exact(inputs):  # ten times as fast as in float32
        found = torch.mm(inputs.T, inputs, out_dtype=torch.float32)
        return found if total is None else total.add_(found)
    x = inputs.float()
    return x.T @ x if total is None else total.addmm_(x.T, x)


class Activations:
    """Norms, or products, of the inputs of some matrices, summed over calibration tokens."""

    def __init__(self, *, products: bool) -> None:
        """Sum X Xᵀ (`products`), or its diagonal alone."""
        self._products = products
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}
        # Matrices that read the same inputs share one sum: that of the first of them.
        self._first_of: dict[str, str] = {}
        self._last: tuple[Tensor | None, str] = (None, "")
        self.torn = False  # whether two that shared read different inputs: nothing of it counts

    def see(self, name: str, inputs: Tensor) -> None:
        """Add inputs (tokens, in) of the matrix `name`; the same object where they are the same."""
        given, giver = self._last
        if given is inputs and name not in self._sums:
            self.torn = self.torn or self._first_of.setdefault(name, giver) != giver
            self._tokens[name] = self._tokens.get(name, 0) + len(inputs)
            return
        self.torn = self.torn or name in self._first_of
        self._last = (inputs, name)
        self._tokens[name] = self._tokens.get(name, 0) + len(inputs)
        if self._products:
            self._sums[name] = _with_products(self._sums.get(name), inputs)
        else:
            found = inputs.float().square().sum(0).double()
            self._sums[name] = self._sums[name] + found if name in self._sums else found

    def told(self, seen: str, name: str, input_dim: int, seed: int, examples: int) -> Statistics:
        """What a criterion is told of the matrix that was seen as `seen`, under its own name.

        Raises:
            RequestError: no sample went through it.
        """
        first = self._first_of.get(seen, seen)
        if first not in self._sums:
            raise unreached(name)
        found, tokens = self._sums[first], self._tokens[seen]
        if tokens == 0:
            # An expert that no token was routed to: nothing is known of its inputs, all are alike.
            found = (
                torch.eye(len(found), device=found.device)
                if self._products
                else torch.ones_like(found)
            )
        squares = found.diagonal() if self._products else found
        return Statistics(
            name,
            input_dim,
            seed,
            tokens=tokens,
            examples=examples,
            input_norm=squares.sqrt().float(),
            gram=found if self._products else None,
        )
