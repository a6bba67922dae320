"""Gradients of the mean loss over all that some batches predict, in as much memory as there is."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from jdna_cli.compute import distributed, processes
from jdna_cli.errors import JdnaError
from jdna_cli.scoring.scorer import Encoded, Scorer
from jdna_cli.training.distillation import Teacher


class Gradients:
    """Adds up gradients; where the device runs out of memory, batches are halved from there on."""

    def __init__(
        self,
        model: nn.Module,
        encoded: Encoded,
        scorer: Scorer,
        accelerator: Accelerator,
        teacher: Teacher | None,
        batch_size: int,
    ) -> None:
        """Set up.

        Args:
            model: prepared by the accelerator.
            encoded: the training examples.
            scorer: gives the loss.
            accelerator: device and precision.
            teacher: whose outputs are learnt too, if any.
            batch_size: examples of a batch; more parts than that there cannot be.
        """
        self._model, self._encoded, self._scorer = model, encoded, scorer
        self._accelerator, self._teacher, self._batch_size = accelerator, teacher, batch_size
        self.parts = 1  # in which each batch is computed

    def add(self, batches: list[list[int]], step: int) -> Tensor:
        """Add the gradients of the mean loss over all that `batches` predict; returns the loss.

        Raises:
            JdnaError: there is no memory for one example.
        """
        while True:
            parts = [part for batch in batches for part in _parts(batch, self.parts)]
            weights = sum(self._scorer.weight(self._encoded, part) for part in parts)
            total = torch.zeros((), device=self._accelerator.device)
            try:
                for part in parts:
                    share = distributed.share(part)
                    weight = self._scorer.weight(self._encoded, share) if share else 0
                    # Gradients are means over processes; one without examples adds nothing.
                    loss = self._loss(share or part[:1]) * (weight * processes.size() / weights)
                    self._accelerator.backward(loss)
                    total += loss.detach()
                return total
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or processes.size() > 1:
                    raise
                if self.parts >= self._batch_size:
                    raise JdnaError(
                        f"out of memory at step {step + 1}, even one example at a time"
                    ) from error
                self.parts *= 2
            self._model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _loss(self, indices: list[int]) -> Tensor:
        device = self._accelerator.device
        if self._teacher is None:
            return self._scorer.loss(self._model, self._encoded, indices, device)
        outputs = self._scorer.outputs(self._model, self._encoded, indices, device)
        labelled = self._scorer.loss_of(outputs, self._encoded, indices)
        return self._teacher.loss(outputs, labelled, indices)


def _parts(batch: list[int], count: int) -> list[list[int]]:
    """A batch in at most `count` parts of about the same size."""
    size = -(-len(batch) // count)
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
