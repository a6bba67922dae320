"""The one training loop: the paper's recipe, under a regime's constraint, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from jdna_cli.compute import distributed, processes
from jdna_cli.errors import InterruptedRunError, NotFiniteError
from jdna_cli.results import Measurement
from jdna_cli.run_context import RunContext
from jdna_cli.scoring.batches import training_order
from jdna_cli.scoring.scorer import Encoded, Scorer
from jdna_cli.sparsity import masks, shards
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.regimes import Constraint
from jdna_cli.specs import FinetuneSpec
from jdna_cli.training import checkpoints
from jdna_cli.training.checkpoints import Checkpoint
from jdna_cli.training.distillation import Teacher
from jdna_cli.training.dynamics import Observe
from jdna_cli.training.gradients import Gradients
from jdna_cli.training.gradual_pruning import GradualPruning
from jdna_cli.training.journal import Journal
from jdna_cli.training.tracking import Tracking

LOG_EVERY = 20  # steps per point of the training curve

EpochEnd = Callable[[int, int], list[Measurement]]  # (epoch from 1, step) -> what was measured


@dataclass(frozen=True)
class Extras:
    """What a training does besides the recipe."""

    teacher: Teacher | None = None
    rounds: GradualPruning | None = None
    observe: Observe | None = None
    tracking: Tracking | None = None


def learning_rate(spec: FinetuneSpec, step: int, total: int) -> float:
    """Rate of the step from 0: linear warm-up over a share of all steps, then linear decay to 0."""
    warmup = math.ceil(spec.warmup * total)
    if step < warmup:
        return spec.lr * step / warmup
    return spec.lr * (total - step) / max(1, total - warmup)


class Training:
    """One training of one model; `run` trains it in place."""

    def __init__(
        self,
        model: nn.Module,
        encoded: Encoded,
        scorer: Scorer,
        spec: FinetuneSpec,
        constraint: Constraint,
        accelerator: Accelerator,
        extras: Extras = Extras(),
    ) -> None:
        """Set up the optimiser.

        Args:
            model: on the accelerator's device, not yet prepared.
            encoded: the training examples.
            scorer: gives the loss.
            spec: the recipe.
            constraint: which of the model's parameters must not change.
            accelerator: device and precision.
            extras: a teacher, pruning on the way, and who looks on.
        """
        self._extras = extras
        self._encoded, self._scorer, self._spec = encoded, scorer, spec
        self._constraint, self.accelerator = constraint, accelerator
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=spec.lr, weight_decay=0.0, fused=True
        )
        constraint.attach(self._optimizer, spec.weight_decay)
        # A divided model gathers and reduces by itself: it is not wrapped for that.
        self.model = accelerator.prepare_model(model, evaluation_mode=distributed.is_sharded())
        self._stepper = accelerator.prepare_optimizer(self._optimizer)
        batches = math.ceil(len(encoded) / spec.batch_size)
        self._steps_per_epoch = math.ceil(batches / spec.gradient_accumulation)
        self.total = self._steps_per_epoch * spec.epochs
        self._first = 0
        self._gradients = Gradients(
            self.model, encoded, scorer, accelerator, extras.teacher, spec.batch_size
        )
        self.kept: dict[str, Mask] = {}  # what the rounds so far have left
        self._order: tuple[int, list[list[int]]] = (-1, [])
        self._recent: list[Tensor] = []
        self._journal = Journal()

    @property
    def parts(self) -> int:
        """In how many parts each batch is computed, for want of memory."""
        return self._gradients.parts

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same spec."""
        tensors = checkpoint.tensors
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                _put(parameter, tensors[f"model.{name}"])
                # A parameter that the task's loss does not reach has no state.
                if f"optimizer.{name}.step" in tensors:
                    step = tensors[f"optimizer.{name}.step"].to(parameter.device)
                    self._optimizer.state[parameter] = {"step": step}
                    for key in ("exp_avg", "exp_avg_sq"):
                        moment = torch.empty_like(parameter)
                        _put(moment, tensors[f"optimizer.{name}.{key}"])
                        self._optimizer.state[parameter][key] = moment
        if rounds := {n: t for n, t in tensors.items() if n.startswith("mask.")}:
            found = {n.removeprefix("mask."): t for n, t in rounds.items()}
            shapes = {n: tuple(self._parameters[n].shape) for n in found}
            self.kept = {n: masks.unpack(t, shapes[n]) for n, t in found.items()}
            self._constraint.prune(self.kept, self._optimizer)
        held = {n.removeprefix("held."): t for n, t in tensors.items() if n.startswith("held.")}
        self._constraint.restore(held)
        checkpoints.restore_random_state(tensors, self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        self._first = checkpoint.step
        self._gradients.parts = checkpoint.state["parts"]
        self._journal = Journal.from_json(checkpoint.state["journal"])
        self._recent = [torch.tensor(loss) for loss in self._journal.window]

    def run(self, context: RunContext, epoch_end: EpochEnd) -> Journal:
        """Train for all epochs; `epoch_end` is called after each.

        Raises:
            NotFiniteError: the loss is not a finite number.
            InterruptedRunError: `context.stop` asked for it; a checkpoint was written.
        """
        every, journal, note = self._spec.checkpoint_every, self._journal, ""
        began = time.perf_counter()
        self.model.train()
        if self._first == 0:
            self._observe(0)
        for done in range(self._first + 1, self.total + 1):
            self._step(done - 1)
            self._prune(done)
            if done == self.total or done % self._spec.dynamics_every == 0:
                self._observe(done)
            epoch, within = divmod(done, self._steps_per_epoch)
            if done % LOG_EVERY == 0 or within == 0:
                self._measured([Measurement("train", "loss", self._mean_loss(done), done)])
                note = f"loss {journal.measured[-1].value:.3f}"
            context.progress("train", done, self.total, note)
            if within == 0:
                journal.seconds += time.perf_counter() - began
                self._measured(epoch_end(epoch, done))
                self.model.train()
                began = time.perf_counter()
            asked = distributed.broadcast_int(context.stop()) if done < self.total else 0
            if asked or (every and done % every == 0 and done < self.total):
                journal.seconds += time.perf_counter() - began
                self._checkpoint(context, done)
                began = time.perf_counter()
            if asked:
                raise InterruptedRunError(f"interrupted at step {done} of {self.total}", asked)
        self._constraint.verify(self.total)
        return journal

    def _measured(self, measured: list[Measurement]) -> None:
        self._journal.measured += measured
        if self._extras.tracking is not None:
            rate = self._optimizer.param_groups[0]["lr"]
            self._extras.tracking.log(measured, **{"train/learning_rate": rate})

    def _step(self, step: int) -> None:
        """One update from the mean loss over all that its batches predict."""
        epoch, within = divmod(step, self._steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._spec, step, self.total)
        accumulated = self._spec.gradient_accumulation
        batches = self._batches(epoch)[within * accumulated : (within + 1) * accumulated]
        loss = self._gradients.add(batches, step)
        if self._spec.max_grad_norm is not None:
            self._constraint.clear_gradients()
            self.accelerator.clip_grad_norm_(self._parameters.values(), self._spec.max_grad_norm)
        self._stepper.step()
        self._stepper.zero_grad()
        self._recent.append(loss)

    def _prune(self, done: int) -> None:
        """Take away what this step's round takes, if it has one."""
        rounds = self._extras.rounds
        share = rounds.due(done, self.total) if rounds else None
        if rounds is not None and share is not None:
            self.kept = rounds.masks(self._parameters, self.kept, share)
            self._constraint.prune(self.kept, self._optimizer)

    def _observe(self, done: int) -> None:
        if self._extras.observe is not None and distributed.measures():
            self._journal.movements += self._extras.observe(done)

    def _batches(self, epoch: int) -> list[list[int]]:
        if self._order[0] != epoch:
            lengths, spec = self._encoded.lengths, self._spec
            self._order = (epoch, training_order(lengths, spec.batch_size, spec.seed, epoch))
        return self._order[1]

    def _losses(self, done: int) -> list[float]:
        """Losses since the last point of the curve, fetched from the device at once."""
        losses = [float(x) for x in distributed.mean(torch.stack(self._recent)).cpu()]
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise NotFiniteError("the training loss", done - len(losses) + 1 + i)
        return losses

    def _mean_loss(self, done: int) -> float:
        losses = self._losses(done)
        self._recent.clear()
        return math.fsum(losses) / len(losses)

    def _checkpoint(self, context: RunContext, done: int) -> None:
        self._constraint.verify(done)
        self._journal.window = self._losses(done) if self._recent else []
        tensors = distributed.gathered(checkpoints.random_state(self.accelerator.device))
        own: dict[str, Tensor] = {f"model.{n}": p for n, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                own[f"optimizer.{name}.{key}"] = value
        if distributed.is_sharded():
            own = shards.gathered(own, keep=processes.is_first())
        if not processes.is_first():
            return
        tensors |= {name: tensor.detach() for name, tensor in own.items()}
        tensors |= {f"held.{name}": tensor for name, tensor in self._constraint.state().items()}
        if self._extras.rounds is not None:
            tensors |= {f"mask.{n}": torch.from_numpy(m.bits) for n, m in self.kept.items()}
        state: dict[str, Any] = {
            "fingerprint": context.fingerprint,
            "journal": self._journal.as_json(),
            "parts": self.parts,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        checkpoints.save(context.work, Checkpoint(done, tensors, state))


def _put(there: Tensor, full: Tensor) -> None:
    """Set a tensor, or this process's rows of it, to the whole one's values."""
    shards.local(there.detach()).copy_(shards.rows_of(full, there))
