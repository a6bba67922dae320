"""Multiple choice on encoders: a head that gives each option one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto import modeling_auto as auto

from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.errors import NotFiniteError, RequestError
from jdna_cli.models import loading
from jdna_cli.scoring.batches import Features
from jdna_cli.scoring.classification import accepted, cut, logits, predict
from jdna_cli.scoring.scorer import EvalContext, EvalResult, Scorer, Shown
from jdna_cli.specs import ModelSource
from jdna_cli.tasks import prompts
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.task import Task


@dataclass(frozen=True)
class Options:
    """Tokenised options of all questions, one after the other, and where each question's begin."""

    features: Features
    starts: tuple[int, ...]  # one more than there are questions
    records: Records

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longest option of each question."""
        own = self.features.lengths
        return [max(own[i] for i in self.rows(q)) for q in range(len(self))]

    def rows(self, question: int) -> range:
        """Where the options of a question stand."""
        return range(self.starts[question], self.starts[question + 1])


class Choice(Scorer):
    """Cross-entropy over the options of a question."""

    @classmethod
    def check(cls, task: Task, config: Any, new_head: bool) -> None:
        """The architecture must have such a head, and the task be measured by it."""
        if task.metric != "accuracy":
            raise RequestError(
                f"task {task.name!r}: {task.metric} needs a model that writes, and "
                f"{config.model_type} is an encoder: make accuracy its first metric"
            )
        if config.model_type not in auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES:
            raise RequestError(
                f"task {task.name!r}: transformers has no multiple-choice head for "
                f"{config.model_type}"
            )

    def load(
        self, source: ModelSource, *, new_head: bool, seed: int = 0, placing: Placing | None = None
    ) -> nn.Module:
        """A model for multiple choice."""
        return loading.load_for_task(
            source, self.task, new_head=new_head, seed=seed, placing=placing
        )

    def encode(self, records: Records, shown: Shown | None = None) -> Options:
        """Question and option as two texts; where too long, the longer text is cut."""
        texts, starts = [], [0]
        for example in records.examples:
            texts += prompts.pairs(self.task, example)
            starts.append(len(texts))
        columns = [[first for first, _ in texts], [second for _, second in texts]]
        features = self.tokens.features(*columns, truncation=True, max_length=self.max_length)
        return Options(features, tuple(starts), records)

    def outputs(
        self, model: nn.Module, encoded: Options, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """A row for each question, a column for each option."""
        rows = [row for i in indices for row in encoded.rows(i)]
        inputs = encoded.features.batch(rows, devices.length_unit(device))
        # As one option per question, so that questions may have different numbers of options.
        own = accepted(model, {k: v.unsqueeze(1).to(device) for k, v in inputs.items()})
        found = logits(model, own, encoded.features.filler)
        return _by_question(found.float().flatten(), [len(encoded.rows(i)) for i in indices])

    def loss_of(self, outputs: Tensor, encoded: Options, indices: Sequence[int]) -> Tensor:
        """Mean over the questions."""
        rights = [int(encoded.records.examples[i].label) for i in indices]
        return _cross_entropy(outputs, rights).mean()

    def measure(self, model: nn.Module, encoded: Options, measuring: EvalContext) -> EvalResult:
        """The option with the highest output; the first of equals."""
        outputs = predict(_OneOption(model), encoded.features, measuring).flatten()
        if not torch.isfinite(outputs).all():
            raise NotFiniteError("an output of the model", measuring.step)
        counts = [len(encoded.rows(i)) for i in range(len(encoded))]
        rights = [int(label) for label in encoded.records.labels]
        loss = float(_cross_entropy(_by_question(outputs, counts), rights).double().mean())
        parts = [part.tolist() for part in torch.split(outputs, counts)]
        answers = [part.index(max(part)) for part in parts]
        rows = [
            {"label": right, "prediction": answer, "outputs": part}
            for right, answer, part in zip(rights, answers, parts, strict=True)
        ]
        correct = sum(a == r for a, r in zip(answers, rights, strict=True))
        # Length does not enter what a head says: both accuracies of a task are this one.
        scores = {"accuracy": correct / len(rights)}
        told = cut(encoded.features.cut, len(encoded.features), self.max_length)
        protocol = "; ".join(part for part in ("multiple-choice head", told) if part)
        return EvalResult(loss, scores, rows, protocol)


class _OneOption(nn.Module):
    """A multiple-choice model that is given each option by itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, **inputs: Tensor) -> Any:
        return self.module(**{name: value.unsqueeze(1) for name, value in inputs.items()})


def _by_question(outputs: Tensor, counts: Sequence[int]) -> Tensor:
    """Outputs of all options one after the other, as (questions, most options)."""
    return nn.utils.rnn.pad_sequence(
        list(torch.split(outputs, list(counts))), batch_first=True, padding_value=-torch.inf
    )


def _cross_entropy(outputs: Tensor, rights: Sequence[int]) -> Tensor:
    """Loss of each question."""
    right = torch.tensor(rights, device=outputs.device)
    return nn.functional.cross_entropy(outputs, right, reduction="none")


SCORER = Choice
