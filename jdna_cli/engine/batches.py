"""From texts to padded batches: tokenised once, grouped by length, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jdna_cli.tasks.records import Records

GROUP = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples: what the tokenizer gave for each, labels, and the tokenizer that pads."""

    features: tuple[dict[str, list[int]], ...]
    labels: Tensor
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.features)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(feature["input_ids"]) for feature in self.features]

    def batch(self, indices: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """The examples at `indices`, padded to the longest of them, and their labels (B,)."""
        chosen = {k: [self.features[i][k] for i in indices] for k in self.features[0]}
        padded = self.tokenizer.pad(chosen, padding=True, return_tensors="pt")
        return dict(padded), self.labels[list(indices)]


def encode(records: Records, tokenizer: Any, max_length: int, classes: bool) -> Encoded:
    """Tokenise all examples, cut to at most `max_length` tokens each."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    columns = [list(column) for column in zip(*records.texts, strict=True)]
    tokens = tokenizer(*columns, truncation=True, max_length=max_length)
    features = tuple(
        dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)
    )
    labels = torch.tensor(records.labels, dtype=torch.long if classes else torch.float32)
    return Encoded(features, labels, tokenizer)


def training_order(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Batches of one epoch: random, but examples of a batch are of similar length.

    A function of its arguments alone, so that a resumed run sees what the uninterrupted one saw.
    The examples are shuffled, sorted by length within groups of `GROUP` batches, cut into batches,
    and the batches shuffled. Each example occurs once; the last batch of the cut may be smaller.
    """
    draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=draw).tolist()
    batches = []
    for start in range(0, len(shuffled), GROUP * batch_size):
        group = sorted(shuffled[start : start + GROUP * batch_size], key=lambda i: -lengths[i])
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=draw).tolist()]


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """All examples, longest first, in batches: the least padding, and the memory peak first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
