"""Classes and numbers: a linear head on the model's summary of one or two texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.engine import loading
from jdna_cli.engine.batches import Features, by_length
from jdna_cli.engine.devices import Placing
from jdna_cli.engine.scorers.scorer import Evaluation, Measuring, Scorer, Shown
from jdna_cli.errors import NotFiniteError
from jdna_cli.specs import ModelSource
from jdna_cli.tasks.metrics import score
from jdna_cli.tasks.records import Records


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
            self.numbering = loading.label_order(model, self.task)
        return model

    def encode(self, records: Records, shown: Shown | None = None) -> Labelled:
        """One or two texts to an example, cut to the length."""
        columns = [list(column) for column in zip(*records.texts, strict=True)]
        found = self.tokens(*columns, truncation=True, max_length=self.max_length)
        kind = torch.long if self._classes else torch.float32
        labels = torch.tensor(records.labels, dtype=kind)
        return Labelled(Features(found, self.tokens.tokenizer), labels, records)

    @property
    def _classes(self) -> bool:
        return self.task.kind == "classification"

    def outputs(
        self, model: nn.Module, encoded: Labelled, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """A row for each example."""
        inputs = encoded.features.batch(indices)
        found: Tensor = model(
            **{k: v.to(device, non_blocking=True) for k, v in inputs.items()}
        ).logits
        return found

    def loss_of(self, outputs: Tensor, encoded: Labelled, indices: Sequence[int]) -> Tensor:
        """Mean over the examples."""
        labels = encoded.labels[list(indices)].to(outputs.device, non_blocking=True)
        return self._loss_of(outputs, labels, "mean")

    def _loss_of(self, outputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        if self._classes:
            return nn.functional.cross_entropy(outputs.float(), labels, reduction=reduction)
        return nn.functional.mse_loss(outputs.float().squeeze(-1), labels, reduction=reduction)

    def measure(self, model: nn.Module, encoded: Labelled, measuring: Measuring) -> Evaluation:
        """The class with the highest output (the first of equals), or the number."""
        outputs = predict(model, encoded.features, measuring)
        if self.numbering is not None:
            outputs = outputs[:, self.numbering]
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
        return Evaluation(loss, score(self.task.metrics, labels, answers), rows)


def predict(model: nn.Module, features: Features, measuring: Measuring) -> Tensor:
    """Outputs (n, outputs) float32 on the CPU, in the order of the examples."""
    model.eval()
    found: list[Tensor] = []
    places: list[int] = []
    with torch.inference_mode():
        for indices in by_length(features.lengths, measuring.batch_size):
            found.append(model(**measuring.moved(features.batch(indices))).logits.float())
            places += indices
            measuring.tell("evaluate", len(places), len(features))
    return torch.cat(found).cpu()[torch.argsort(torch.tensor(places))]


SCORER = Head
