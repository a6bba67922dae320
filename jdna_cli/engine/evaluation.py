"""Loss and scores of a model on one split, and its answer to each example."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from jdna_cli.engine.batches import Encoded, by_length
from jdna_cli.errors import NotFiniteError
from jdna_cli.tasks import Task
from jdna_cli.tasks.metrics import score
from jdna_cli.tasks.records import Records

# Called with what is being done, how much is done, of how much, and a note.
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Evaluation:
    """Mean loss over all examples, the task's metrics, and the outputs (n, outputs) float32."""

    loss: float
    scores: dict[str, float]
    outputs: Tensor


def loss_of(outputs: Tensor, labels: Tensor, task: Task, reduction: str = "mean") -> Tensor:
    """Cross-entropy for classes, squared error for numbers.

    Args:
        outputs: (B, outputs), any floating dtype; computed in float32.
        labels: (B,) int64 classes or float32 numbers.
        task: says which.
        reduction: as in torch.
    """
    if task.kind == "classification":
        return nn.functional.cross_entropy(outputs.float(), labels, reduction=reduction)
    return nn.functional.mse_loss(outputs.float().squeeze(-1), labels, reduction=reduction)


def predict(
    model: nn.Module,
    encoded: Encoded,
    batch_size: int,
    accelerator: Accelerator,
    order: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Outputs (n, outputs) float32 on the CPU, in the order of the examples.

    Args:
        model: prepared by `accelerator`; left in evaluation mode.
        encoded: the examples.
        batch_size: examples at a time.
        accelerator: whose device and precision are used.
        order: columns of the model's output that are the task's labels; default as they are.
        progress: told after each batch.
    """
    model.eval()
    found: list[Tensor] = []
    places: list[int] = []
    with torch.inference_mode():
        for indices in by_length(encoded.lengths, batch_size):
            inputs, _ = encoded.batch(indices)
            inputs = {k: v.to(accelerator.device, non_blocking=True) for k, v in inputs.items()}
            found.append(model(**inputs).logits.float())
            places += indices
            if progress:
                progress("evaluate", len(places), len(encoded), "")
    outputs = torch.cat(found).cpu()
    outputs = outputs[torch.argsort(torch.tensor(places))]
    return outputs if order is None else outputs[:, list(order)]


def measure(outputs: Tensor, encoded: Encoded, task: Task, step: int = 0) -> Evaluation:
    """Mean loss (summed in float64) and the task's metrics of given outputs.

    Raises:
        NotFiniteError: an output is not finite; `step` says when.
    """
    loss = float(loss_of(outputs, encoded.labels, task, "none").double().mean())
    if not torch.isfinite(outputs).all():
        raise NotFiniteError("an output of the model", step)
    answers = answers_of(outputs, task)
    return Evaluation(loss, score(task.metrics, encoded.labels.tolist(), answers), outputs)


def answers_of(outputs: Tensor, task: Task) -> list[float]:
    """The class with the highest output (the first of equals), or the number."""
    if task.kind == "classification":
        return [int(i) for i in outputs.argmax(-1)]
    return [float(x) for x in outputs.squeeze(-1)]


def save_predictions(path: Path, records: Records, outputs: Tensor, task: Task) -> None:
    """Write one JSON line per example: its name, label, the model's answer, and its outputs."""
    with path.open("w", encoding="utf-8") as file:
        rows = zip(records.ids, records.labels, answers_of(outputs, task), outputs, strict=True)
        for name, label, answer, output in rows:
            row: dict[str, Any] = {
                "id": name,
                "label": int(label) if task.kind == "classification" else label,
                "prediction": answer,
                "outputs": [float(x) for x in output],
            }
            file.write(json.dumps(row) + "\n")
