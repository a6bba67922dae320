"""Classes and numbers: a linear head on the model's summary of one or two texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.errors import NotFiniteError
from jdna_cli.models import loading
from jdna_cli.scoring import forms
from jdna_cli.scoring.batches import Features
from jdna_cli.scoring.scorer import EvalContext, EvalResult, Scorer, Shown
from jdna_cli.specs import ModelSource
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.metrics import score


@dataclass(frozen=True)
class Labelled:
    """Tokenised texts with their labels (n,), int64 classes or float32 numbers."""

    features: Features
    labels: Tensor
    records: Records

    def __len__(self) -> int:
        return len(self.features)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return self.features.lengths


class Head(Scorer):
    """Cross-entropy for classes, squared error for numbers."""

    def load(
        self, source: ModelSource, *, new_head: bool, seed: int = 0, placing: Placing | None = None
    ) -> nn.Module:
        """A model for sequence classification."""
        model = loading.load_for_task(
            source, self.task, new_head=new_head, seed=seed, placing=placing
        )
        if not new_head:
            self.output_order = loading.label_order(model.config, self.task, self.label_order)
        if self.causal:
            # What is written is read by others, who pad as the tokenizer says.
            config: Any = model.config
            config.pad_token_id = self.tokens.tokenizer.pad_token_id
        return model

    def encode(self, records: Records, shown: Shown | None = None) -> Labelled:
        """One or two texts to an example, cut to the length."""
        columns = [list(column) for column in zip(*records.texts, strict=True)]
        features = self.tokens.features(*columns, truncation=True, max_length=self.max_length)
        kind = torch.long if self._classes else torch.float32
        labels = torch.tensor(records.labels, dtype=kind)
        return Labelled(features, labels, records)

    @property
    def _classes(self) -> bool:
        return self.task.kind == "classification"

    def outputs(
        self, model: nn.Module, encoded: Labelled, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """A row for each example."""
        inputs = encoded.features.batch(indices, devices.length_unit(device))
        return logits(
            model,
            {k: v.to(device, non_blocking=True) for k, v in inputs.items()},
            encoded.features.filler,
        )

    def loss_of(self, outputs: Tensor, encoded: Labelled, indices: Sequence[int]) -> Tensor:
        """Mean over the examples."""
        labels = encoded.labels[list(indices)].to(outputs.device, non_blocking=True)
        return self._loss_of(outputs, labels, "mean")

    def _loss_of(self, outputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        if self._classes:
            return nn.functional.cross_entropy(outputs.float(), labels, reduction=reduction)
        return nn.functional.mse_loss(outputs.float().squeeze(-1), labels, reduction=reduction)

    def measure(self, model: nn.Module, encoded: Labelled, measuring: EvalContext) -> EvalResult:
        """The class with the highest output (the first of equals), or the number."""
        outputs = predict(model, encoded.features, measuring)
        if self.output_order is not None:
            outputs = outputs[:, self.output_order]
        loss = float(self._loss_of(outputs, encoded.labels, "none").double().mean())
        if not torch.isfinite(outputs).all():
            raise NotFiniteError("an output of the model", measuring.step)
        answers: list[Any] = (
            outputs.argmax(-1).tolist() if self._classes else outputs.squeeze(-1).tolist()
        )
        labels = encoded.labels.tolist()
        rows = [
            {"label": label, "prediction": answer, "outputs": output}
            for label, answer, output in zip(labels, answers, outputs.tolist(), strict=True)
        ]
        told = cut(encoded.features.cut, len(encoded), self.max_length)
        return EvalResult(loss, score(self.task.metrics, labels, answers), rows, told)


def logits(model: nn.Module, inputs: dict[str, Tensor], filler: int) -> Tensor:
    """What the model's head says, of inputs that are filled up with the token `filler`.

    A decoder's head reads at the last token that is not its configuration's padding token: it is
    told what the padding is, whatever stands in its files.
    """
    config: Any = unwrapped(model).config
    before = config.pad_token_id
    config.pad_token_id = filler
    try:
        logits: Tensor = model(**accepted(model, inputs)).logits
    finally:
        config.pad_token_id = before
    return logits


def cut(count: int, of: int, length: int) -> str:
    """How many texts were longer than the model reads, in words; nothing where none was."""
    return f"{count} of {of} texts cut to {length} tokens" if count else ""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it is wrapped: for several processes, or to be asked otherwise."""
    while isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner
    return model


def accepted(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without token types, where the model knows none, or too few: tokenizers give them anyway."""
    types = inputs.get("token_type_ids")
    if types is None:
        return inputs
    inner = unwrapped(model)
    rows = getattr(inner.config, "type_vocab_size", None)
    known = "token_type_ids" in inspect.signature(type(inner).forward).parameters
    few = rows is not None and rows <= 1
    if known and not few and not forms.is_decoder(inner.config):
        return inputs
    return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}


def predict(model: nn.Module, features: Features, measuring: EvalContext) -> Tensor:
    """Outputs (n, outputs) float32 on the CPU, in the order of the examples."""
    model.eval()
    found: list[Tensor] = []
    places: list[int] = []
    unit = devices.length_unit(measuring.accelerator.device)
    with torch.inference_mode():
        for indices in measuring.batches(features.lengths):
            inputs = measuring.moved(features.batch(indices, unit))
            found.append(logits(model, inputs, features.filler).float())
            places += indices
            measuring.tell("evaluate", len(places), len(features))
    return torch.cat(found).cpu()[torch.argsort(torch.tensor(places))]


SCORER = Head
