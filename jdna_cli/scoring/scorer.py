"""What every scorer can do."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from jdna_cli.compute.devices import Placing
from jdna_cli.observer import Progress
from jdna_cli.scoring.batches import by_length, by_tokens
from jdna_cli.scoring.tokenizer_cache import Tokens
from jdna_cli.specs import ModelSource
from jdna_cli.tasks.conditions import Conditions
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.examples import Example
from jdna_cli.tasks.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

Shown = Mapping[str, Sequence[Example]]  # by direction of translation, else ""


@dataclass(frozen=True)
class EvalResult:
    """Mean loss, scores by name, a row for each example, and how it was measured."""

    loss: float
    scores: dict[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    protocol: str = ""
    names: tuple[str, ...] | None = None  # of the rows, where they are not the examples


class Encoded(Protocol):
    """Examples as tokens."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each example."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class EvalContext:
    """How a measurement goes about: what is computed at a time, device and precision, whom to tell.

    Batches have `batch_size` examples; where that is None, as many as make `tokens` with padding.
    """

    batch_size: int | None
    accelerator: Accelerator
    progress: Progress | None = None
    step: int = 0
    tokens: int = 2048

    def batches(self, lengths: Sequence[int], rows: int = 1) -> Iterator[list[int]]:
        """Examples of these lengths, longest first, in batches; each takes `rows` rows of one."""
        if self.batch_size is None:
            return by_tokens(lengths, self.tokens // rows)
        return by_length(lengths, max(1, self.batch_size // rows))

    def tell(self, what: str, done: int, total: int) -> None:
        """Say how far it is."""
        if self.progress:
            self.progress(what, done, total, "")

    def moved(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs on the device."""
        device = self.accelerator.device
        return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}


class Scorer(abc.ABC):
    """Trains on and measures one task, under some conditions, with one tokenizer."""

    # Which output of the model is which class, where classes have names.
    output_order: list[int] | None = None

    def __init__(
        self,
        task: Task,
        conditions: Conditions,
        tokens: Tokens,
        *,
        causal: bool,
        max_length: int,
        stride: int | None = None,
        decoder_start: int | None = None,
        label_order: str | None = None,
    ) -> None:
        """Set up.

        Args:
            task: what is asked.
            conditions: under which it is asked.
            tokens: the model's tokenizer.
            causal: whether the model is a decoder.
            max_length: tokens of an example at most.
            stride: tokens from one window of running text to the next; default: no overlap.
            decoder_start: the token that the decoder of an encoder-decoder starts with.
            label_order: which output of a classifier is which label; by their names by default.
        """
        self.task, self.conditions, self.tokens = task, conditions, tokens
        self.causal, self.max_length, self.stride = causal, max_length, stride
        self.decoder_start, self.label_order = decoder_start, label_order

    @classmethod
    def check(cls, task: Task, config: Any, new_head: bool) -> None:
        """Refuse what only this scorer knows to be wrong, before anything is loaded."""
        return

    @abc.abstractmethod
    def load(
        self, source: ModelSource, *, new_head: bool, seed: int = 0, placing: Placing | None = None
    ) -> nn.Module:
        """The model with what the task needs on top.

        Args:
            source: where the weights are.
            new_head: whether what is missing on top is made afresh, or refused.
            seed: of what is made.
            placing: in what type, and where; float32 on the CPU by default.

        Raises:
            RequestError: weights are missing that should be there.
        """

    @abc.abstractmethod
    def encode(self, records: Records, shown: Shown | None = None) -> Any:
        """The examples as tokens.

        Args:
            records: the examples.
            shown: those to show before each.
        """

    def weight(self, encoded: Any, indices: Sequence[int]) -> int:
        """Over how many things the loss of these examples is a mean."""
        return len(indices)

    @abc.abstractmethod
    def outputs(
        self, model: nn.Module, encoded: Any, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """What the model says to these examples, with its graph: logits (rows, classes).

        As many rows as `weight` says, in the order of the examples; -inf fills up rows that have
        fewer classes than others.
        """

    @abc.abstractmethod
    def loss_of(self, outputs: Tensor, encoded: Any, indices: Sequence[int]) -> Tensor:
        """Mean loss of `outputs` over these examples' rows; a scalar."""

    def loss(
        self, model: nn.Module, encoded: Any, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """Mean training loss over these examples; a scalar with its graph."""
        return self.loss_of(self.outputs(model, encoded, indices, device), encoded, indices)

    @abc.abstractmethod
    def measure(self, model: nn.Module, encoded: Any, measuring: EvalContext) -> EvalResult:
        """Loss and scores of all examples, in evaluation mode.

        Raises:
            NotFiniteError: an output is not finite.
        """
