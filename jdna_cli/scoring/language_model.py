"""Models that write, and the likelihood of what they might write.

A decoder reads the prompt and what follows it as one text; an encoder-decoder encodes the prompt
and decodes what follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jdna_cli.compute.devices import Placing
from jdna_cli.models import loading
from jdna_cli.scoring import shared_prefix
from jdna_cli.scoring.padding import accepted, right_padded
from jdna_cli.scoring.scorer import Encoded, EvalContext, Scorer
from jdna_cli.specs import ModelSource

IGNORE_INDEX = -100  # no token to be predicted here


@dataclass(frozen=True)
class Pair:
    """Tokens of a prompt, and of what follows it."""

    prompt: list[int]
    target: list[int]
    lost: int = 0  # tokens that the prompt lost at its beginning, to fit
    missing: int = 0  # tokens that the target lost at its end

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


class Answered(Encoded, Protocol):
    """Examples of which each has one text to be predicted."""

    def right(self, i: int) -> Pair:
        """The prompt and that text."""


class LanguageModelScorer(Scorer):
    """A model that writes, and the likelihood of what it might write."""

    def load(
        self, source: ModelSource, *, new_head: bool, seed: int = 0, placing: Placing | None = None
    ) -> nn.Module:
        """A model that writes, whole; nothing is made afresh."""
        return loading.load_writer(source, not self.causal, placing)

    def opened(self, ids: list[int]) -> list[int]:
        """Tokens without the one that a tokenizer may put at the end of a text."""
        closing = {self.tokens.tokenizer.eos_token_id, self.tokens.tokenizer.sep_token_id} - {None}
        return ids[:-1] if len(ids) > 1 and ids[-1] in closing else ids

    def negative_log_likelihood(
        self, model: nn.Module, pairs: Sequence[Pair], device: torch.device
    ) -> Tensor:
        """Negative log-likelihood of each target after its prompt, summed: (B,) float32.

        Args:
            model: what computes it.
            pairs: B prompts and targets.
            device: where the model reads its inputs.
        """
        logits, targets = (self._decoded if self.causal else self._translated)(model, pairs, device)
        return token_losses(logits, targets).sum(1)

    def weight(self, encoded: Answered, indices: Sequence[int]) -> int:
        """The tokens to be predicted."""
        return sum(len(encoded.right(i).target) for i in indices)

    def loss(
        self, model: nn.Module, encoded: Answered, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """Mean over the tokens to be predicted."""
        pairs = [encoded.right(i) for i in indices]
        return self.negative_log_likelihood(model, pairs, device).sum() / self.weight(
            encoded, indices
        )

    def outputs(
        self, model: nn.Module, encoded: Answered, indices: Sequence[int], device: torch.device
    ) -> Tensor:
        """A row for each token to be predicted."""
        pairs = [encoded.right(i) for i in indices]
        logits, due = (self._decoded if self.causal else self._translated)(model, pairs, device)
        return logits[due != IGNORE_INDEX]

    def loss_of(self, outputs: Tensor, encoded: Answered, indices: Sequence[int]) -> Tensor:
        """Mean over the tokens to be predicted."""
        due = [token for i in indices for token in encoded.right(i).target]
        return nn.functional.cross_entropy(
            outputs.float(), torch.tensor(due, device=outputs.device)
        )

    def mean_negative_log_likelihood(
        self, model: nn.Module, encoded: Answered, measuring: EvalContext
    ) -> float:
        """Mean over all tokens of the right targets."""
        sums = self.negative_log_likelihoods(model, encoded, measuring)
        return math.fsum(sums) / self.weight(encoded, range(len(encoded)))

    def negative_log_likelihoods(
        self, model: nn.Module, encoded: Answered, measuring: EvalContext
    ) -> list[float]:
        """Of each example's right target, summed over its tokens."""
        sums, done, device = [0.0] * len(encoded), 0, measuring.accelerator.device
        model.eval()
        with torch.inference_mode():
            for indices in measuring.batches(encoded.lengths):
                pairs = [encoded.right(i) for i in indices]
                lost = self.negative_log_likelihood(model, pairs, device).tolist()
                for i, value in zip(indices, lost, strict=True):
                    sums[i] = value
                done += len(indices)
                measuring.tell("evaluate", done, len(encoded))
        return sums

    def _decoded(
        self, model: nn.Module, pairs: Sequence[Pair], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Logits at the ends of left-padded texts, (B, T, V), and the tokens due there, (B, T)."""
        rows = [pair.prompt + pair.target[:-1] for pair in pairs]
        kept = max(len(pair.target) for pair in pairs)
        # What is predicted is no part of what is read beforehand.
        inputs, _ = shared_prefix.read(model, rows, self.tokens.pad, device, kept)
        targets = torch.full((len(pairs), kept), IGNORE_INDEX, device=device)
        for row, pair in enumerate(pairs):
            targets[row, kept - len(pair.target) :] = torch.tensor(pair.target, device=device)
        logits = model(**accepted(model, {**inputs, "logits_to_keep": kept})).logits
        return logits[:, -kept:], targets

    def _translated(
        self, model: nn.Module, pairs: Sequence[Pair], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Logits of a decoder, (B, T, V), and the tokens due, (B, T)."""
        read = right_padded([pair.prompt for pair in pairs], self.tokens.pad, device)
        targets = nn.utils.rnn.pad_sequence(
            [torch.tensor(pair.target) for pair in pairs], True, IGNORE_INDEX
        ).to(device)
        inner: Any = model
        started = inner.prepare_decoder_input_ids_from_labels(labels=targets.clone())
        return model(**read, decoder_input_ids=started).logits, targets


def token_losses(logits: Tensor, due: Tensor) -> Tensor:
    """Negative log-likelihood of each token due, zero where none is: (B, T) float32.

    Args:
        logits: (B, T, V), any floating type.
        due: (B, T) int64; `IGNORE_INDEX` where no token is due.
    """
    # Along contiguous memory: a strided sum over a large vocabulary loses 1e-4 nats and more.
    found = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), due.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return found.view(due.shape)
