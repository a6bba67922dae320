"""Learning from a teacher's outputs beside the labels.

loss = (1 − w) · loss(labels) + w · divergence. For classes, options and tokens the divergence is
T² · KL(softmax(teacher / T) ‖ softmax(student / T)), Hinton et al. 2015 (arXiv 1503.02531), the
mean over examples or over tokens to be predicted; for a number it is the squared error, and a
temperature has no meaning there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from jdna_cli.observer import Progress
from jdna_cli.scoring.batches import by_length
from jdna_cli.scoring.scorer import Scorer
from jdna_cli.specs import FinetuneSpec

ROOM = 2 << 30  # bytes of outputs that are kept; the rule must not depend on the machine


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student), mean over rows; a scalar.

    Args:
        student: logits (rows, classes), any floating type; -inf where a row has fewer classes.
        teacher: logits of the same shape.
        temperature: T.
    """
    ours = torch.log_softmax(student.float() / temperature, -1)
    theirs = torch.log_softmax(teacher.float() / temperature, -1)
    there = torch.isfinite(theirs) & torch.isfinite(ours)
    difference = torch.where(there, theirs.exp() * (theirs - ours), torch.zeros_like(ours))
    return temperature**2 * difference.sum(-1).mean()


class Teacher:
    """A teacher's outputs for the training examples: computed once and kept, or when needed."""

    def __init__(
        self,
        model: nn.Module,
        scorer: Scorer,
        encoded: Any,
        spec: FinetuneSpec,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        """Compute what can be kept.

        Args:
            model: the teacher.
            scorer: its own: another tokenizer than the student's may read the same examples.
            encoded: the training examples as that scorer encodes them, in the student's order.
            spec: weight, temperature, batches.
            accelerator: device and precision.
            progress: told after each batch.
        """
        self._scorer, self._encoded, self._accelerator = scorer, encoded, accelerator
        self._weight, self._temperature = spec.distill_weight, spec.temperature
        self._numbers = scorer.task.kind == "regression"
        self._model = accelerator.prepare_model(model, evaluation_mode=True)
        self._model.eval()
        self._kept: dict[int, Tensor] = {}
        first = self._outputs([0])
        rows = scorer.weight(encoded, range(len(encoded)))
        if rows * first.shape[-1] * 4 <= ROOM:
            done = 0
            for indices in by_length(encoded.lengths, spec.eval_batch_size):
                parts = torch.split(self._outputs(indices).cpu(), self._rows(indices))
                self._kept.update(zip(indices, parts, strict=True))
                done += len(indices)
                progress("teacher", done, len(encoded), "")
            del self._model

    def _rows(self, indices: Sequence[int]) -> list[int]:
        return [self._scorer.weight(self._encoded, [i]) for i in indices]

    def _outputs(self, indices: Sequence[int]) -> Tensor:
        with torch.no_grad():
            device = self._accelerator.device
            found = self._scorer.outputs(self._model, self._encoded, indices, device).float()
        order = self._scorer.output_order
        return found if order is None else found[:, order]

    def loss(self, student: Tensor, labelled: Tensor, indices: Sequence[int]) -> Tensor:
        """The loss of some examples, from the student's outputs and its loss on their labels."""
        if self._kept:
            parts = [self._kept[i] for i in indices]
            width = max(part.shape[-1] for part in parts)
            theirs = torch.cat([_widened(part, width) for part in parts]).to(student.device)
        else:
            theirs = self._outputs(indices)
        if self._numbers:
            apart = nn.functional.mse_loss(student.float(), theirs)
        else:
            apart = divergence(student, theirs, self._temperature)
        return (1 - self._weight) * labelled + self._weight * apart


def _widened(part: Tensor, width: int) -> Tensor:
    """Rows with as many classes as the longest has."""
    return nn.functional.pad(part, (0, width - part.shape[-1]), value=-torch.inf)
