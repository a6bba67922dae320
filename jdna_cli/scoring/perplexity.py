"""Running text on decoders: perplexity over windows.

All rows of a split are joined and tokenised as one text, and cut into windows; each window predicts
all its tokens but the first, or, with a stride shorter than the window, those that no window before
it predicted. A last window that is not full is left out where there is another. Where only some
windows are measured, they are drawn from all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from jdna_cli.errors import NotFiniteError, RequestError
from jdna_cli.scoring.language_model import LanguageModelScorer, Pair
from jdna_cli.scoring.scorer import EvalContext, EvalResult, Shown
from jdna_cli.tasks.conditions import drawn
from jdna_cli.tasks.datasets import Records


@dataclass(frozen=True)
class Windows:
    """Windows of a text: what is only read, and what is predicted."""

    pairs: tuple[Pair, ...]
    tokens: int  # of the whole text
    names: tuple[str, ...]
    total: int  # windows of the whole text

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each window."""
        return [len(pair) for pair in self.pairs]

    def right(self, i: int) -> Pair:
        """The window at `i`."""
        return self.pairs[i]

    @property
    def scored(self) -> int:
        """Tokens that are predicted."""
        return sum(len(pair.target) for pair in self.pairs)


class Perplexity(LanguageModelScorer):
    """exp of the mean negative log-likelihood of a token."""

    def encode(self, records: Records, shown: Shown | None = None) -> Windows:
        """Windows of at most `max_length` tokens, `stride` tokens apart."""
        text = self.task.separator.join(texts[0] for texts in records.texts)
        ids = self.opened(self.tokens([text], verbose=False)["input_ids"][0])
        if len(ids) < 2:
            raise RequestError(f"task {self.task.name!r}: a text of {len(ids)} tokens is too short")
        size, stride = self.max_length, self.stride or self.max_length
        if stride > size:
            raise RequestError(f"--stride: {stride} is longer than the window of {size} tokens")
        pairs: list[Pair] = []
        for start in range(0, len(ids) - 1, stride):
            window = ids[start : start + size]
            new = 1 if start == 0 or stride == size else size - stride
            if len(window) > new and (len(window) == size or not pairs):
                pairs.append(Pair(window[:new], window[new:]))
        names, chosen = [f"window-{i}" for i in range(len(pairs))], list(range(len(pairs)))
        if self.conditions.limit is not None:
            chosen = drawn(names, self.conditions.limit, self.conditions.seed)
        kept = tuple(pairs[i] for i in chosen)
        return Windows(kept, len(ids), tuple(names[i] for i in chosen), len(pairs))

    def measure(self, model: nn.Module, encoded: Windows, measuring: EvalContext) -> EvalResult:
        """Perplexity of the text."""
        sums = self.negative_log_likelihoods(model, encoded, measuring)
        loss = math.fsum(sums) / encoded.scored
        if not loss < math.log(1e300):
            raise NotFiniteError("the perplexity", measuring.step)
        stride = self.stride or self.max_length
        some = f" of {encoded.total}" if len(encoded) < encoded.total else ""
        protocol = (
            f"{len(encoded)}{some} windows of {self.max_length} tokens, stride {stride}, "
            f"{encoded.scored} of {encoded.tokens} tokens predicted, rows joined by "
            f"{self.task.separator!r}"
        )
        scores = {"perplexity": math.exp(loss), "tokens": float(encoded.scored)}
        lost: list[dict[str, Any]] = [
            {"negative_log_likelihood": value, "tokens": len(pair.target)}
            for value, pair in zip(sums, encoded.pairs, strict=True)
        ]
        return EvalResult(loss, scores, lost, protocol, encoded.names)


SCORER = Perplexity
