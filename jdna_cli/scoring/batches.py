"""From texts to padded batches: tokenised once, grouped by length, in a seeded order.

Batches are padded here, on the right, whatever a tokenizer's files say of padding, so that an
answer does not depend on which examples share its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

GROUP = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Features:
    """What a tokenizer gave for texts, column by column, and the token that fills rows up.

    No text ends with the filler: models that look for the last token before the padding find it.
    """

    columns: dict[str, list[list[int]]]
    filler: int
    cut: int = 0  # texts that were longer than they may be
    limit: int = 0  # tokens to which they were cut

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.columns["input_ids"]]

    def batch(self, indices: Sequence[int], unit: int = 1) -> dict[str, Tensor]:
        """The texts at `indices`, (B, L) int64, padded to the longest of them.

        L is a multiple of `unit`, where that is no longer than texts may be. A text alone is not
        padded: whoever looks at its inputs sees its tokens and no others.
        """
        rows = [torch.tensor(self.columns["input_ids"][i]) for i in indices]
        found = {
            "input_ids": pad_sequence(rows, True, self.filler),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], True),
        }
        for name, column in self.columns.items():
            if name not in found:
                found[name] = pad_sequence([torch.tensor(column[i]) for i in indices], True)
        longest = found["input_ids"].shape[1]
        more = min(-longest % unit, max(0, self.limit - longest)) if len(rows) > 1 else 0
        if more:
            for name, tensor in found.items():
                value = self.filler if name == "input_ids" else 0
                found[name] = torch.nn.functional.pad(tensor, (0, more), value=value)
        return found


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


def by_tokens(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The same in batches of as many examples as have `tokens` when padded, or of one example."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        end = start + max(1, tokens // max(1, lengths[order[start]]))
        yield order[start:end]
        start = end
