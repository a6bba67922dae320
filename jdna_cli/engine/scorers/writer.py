"""Models that write: prompts and what may follow them as tokens, and its likelihood.

A decoder reads the prompt and what follows it as one text; an encoder-decoder encodes the prompt
and decodes what follows. Tokens of a pair are those that the LM evaluation harness takes: white
space at the end of the prompt goes to what follows, a decoder's pair is tokenised as one text and
cut where the prompt's own tokens end.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jdna_cli.engine import languages, loading
from jdna_cli.engine.batches import by_length
from jdna_cli.engine.devices import Placing
from jdna_cli.engine.scorers.scorer import Encoded, EvalContext, Scorer, Shown
from jdna_cli.errors import RequestError
from jdna_cli.specs import ModelSource
from jdna_cli.tasks import prompts
from jdna_cli.tasks.records import Records
from jdna_cli.tasks.rows import Example

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


@dataclass(frozen=True)
class Asked:
    """Each example's pairs (one per option), and which of them is right."""

    pairs: tuple[tuple[Pair, ...], ...]
    items: tuple[prompts.Item, ...]
    records: Records
    torn: str = ""  # the first question or option that is not read whole, in words

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example with its right target."""
        return [len(self.right(i)) for i in range(len(self))]

    def right(self, i: int) -> Pair:
        """The pair with the right target."""
        return self.pairs[i][self.items[i].right]


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
        """Mean over all tokens of the right targets, summed in float64."""
        total, done, device = 0.0, 0, measuring.accelerator.device
        model.eval()
        with torch.inference_mode():
            for indices in by_length(encoded.lengths, measuring.batch_size):
                pairs = [encoded.right(i) for i in indices]
                total += float(self.negative_log_likelihood(model, pairs, device).double().sum())
                done += len(indices)
                measuring.tell("evaluate", done, len(encoded))
        return total / self.weight(encoded, range(len(encoded)))

    def _decoded(
        self, model: nn.Module, pairs: Sequence[Pair], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Logits at the ends of left-padded texts, (B, T, V), and the tokens due there, (B, T)."""
        rows = [pair.prompt + pair.target[:-1] for pair in pairs]
        kept = max(len(pair.target) for pair in pairs)
        inputs = left_padded(rows, self.tokens.pad, device)
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


class PromptedScorer(LanguageModelScorer):
    """Prompts, and targets that may follow them."""

    ends = False  # whether a target is learnt with the token that ends a text

    @property
    def reserve(self) -> int:
        """Tokens of the length that are kept free for what is written."""
        return 0

    def encode(self, records: Records, shown: Shown | None = None) -> Asked:
        """Prompts with their shots, and targets."""
        items = tuple(
            prompts.item(self.task, example, self._shots(example, shown), not self.causal)
            for example in records.examples
        )
        flat = [(self._opening(item, i), item.targets[i], example.pair)
                for item, example in zip(items, records.examples, strict=True)
                for i in range(len(item.targets))]  # fmt: skip
        found = self._pairs(flat)
        for (_, target, _), pair in zip(flat, found, strict=True):
            if not pair.target:
                raise RequestError(
                    f"task {self.task.name!r}: the tokenizer makes nothing of {target!r}"
                )
        pairs = iter(found)
        told = tuple(tuple(next(pairs) for _ in item.targets) for item in items)
        return Asked(told, items, records, self._torn(told, items, records))

    def _shots(self, example: Example, shown: Shown | None) -> Sequence[Example]:
        if shown is None:
            return ()
        shared = prompts.company(self.task, example)
        if shared not in shown:
            raise RequestError(
                f"--shots: the training split of task {self.task.name!r} has no example of "
                f"{self.task.group} {shared!r}"
            )
        return shown[shared]

    def told_cut(self, asked: Asked) -> str:
        """How many prompts lost their beginning and how much, in words; nothing where none did."""
        every = [pair for own in asked.pairs for pair in own]
        lost = [one for one in map(self._lost, every) if one]
        if not lost:
            return ""
        free = f", with {self.reserve} for the answer" if self.reserve else ""
        return (
            f"{len(lost)} of {len(every)} prompts lost their beginning, up to "
            f"{max(lost)} tokens, to fit into {self.max_length}{free}"
        )

    def _lost(self, pair: Pair) -> int:
        """Tokens that a prompt loses, before what is written has its room and after."""
        room = self.max_length - self.reserve
        return pair.lost + (max(0, len(pair.prompt) - room) if self.reserve else 0)

    def _torn(
        self,
        pairs: Sequence[Sequence[Pair]],
        items: Sequence[prompts.Item],
        records: Records,
    ) -> str:
        """The first example of which the question without its shots, or an option, is cut."""
        for own, item, example in zip(pairs, items, records.examples, strict=True):
            for i, pair in enumerate(own):
                whole = len(pair.target) + pair.missing
                if pair.missing:
                    return self._too_long(f"the answer {example.id}", whole, self.max_length - 1)
                if not (lost := self._lost(pair)):
                    continue
                alone = prompts.Item((), (prompts.question(self.task, example, item, i),), ("",))
                opening = self._opening(alone, 0)
                least = len(self.tokens([opening], add_special_tokens=False)["input_ids"][0])
                kept = len(pair.prompt) + pair.lost - lost
                if kept < least:
                    return self._too_long(f"the question of {example.id}", least, kept)
        return ""

    def _too_long(self, what: str, needed: int, there: int) -> str:
        return (
            f"task {self.task.name!r}: {what} takes {needed} tokens, and {there} are left for it "
            f"of --max-length {self.max_length}"
        )

    def _opening(self, item: prompts.Item, index: int) -> str:
        """The prompt as text: shots before it, or a conversation as the tokenizer writes one."""
        prompt = item.prompt(index)
        if not self.conditions.chat:
            return item.shown + prompt
        turns = [
            {"role": role, "content": self.tokens.in_conversation(text)}
            for shot in (*item.shots, (prompt, ""))
            for role, text in zip(("user", "assistant"), shot, strict=True)
        ][:-1]
        turns[0]["content"] = item.header + turns[0]["content"]
        tokenizer = self.tokens.tokenizer
        if not tokenizer.chat_template:
            raise RequestError("--chat: the model's tokenizer has no chat template")
        found: str = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=True,
        )
        return found

    def _pairs(self, texts: Sequence[tuple[str, str, str]]) -> list[Pair]:
        """Tokens of (prompt, target, direction)."""
        if self.causal:
            return self._causal([(prompt, target) for prompt, target, _ in texts])
        found: list[Pair | None] = [None] * len(texts)
        for pair in dict.fromkeys(pair for _, _, pair in texts):
            own = [i for i, text in enumerate(texts) if text[2] == pair]
            read, written = self._apart([texts[i][:2] for i in own], pair)
            most = self.max_length
            for i, prompt, target in zip(own, read, written, strict=True):
                lost, missing = max(0, len(prompt) - most), max(0, len(target) - most)
                found[i] = Pair(prompt[-most:], target[:most], lost, missing)
        return [pair for pair in found if pair is not None]

    def _causal(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        openings, wholes = [], []
        for prompt, target in texts:
            if self.conditions.chat:
                target = self.tokens.in_conversation(target)
            # An option takes the white space before it; what is written comes after it.
            bare = prompt.rstrip(" ") if self.ends else prompt.rstrip()
            joint = target if self.conditions.chat else prompts.spaced(prompt, target)
            openings.append(bare)
            wholes.append(bare + prompt[len(bare) :] + joint)
        # A conversation has its special tokens already.
        plain = {"add_special_tokens": False, "split_special_tokens": False}
        rest = plain if self.conditions.chat else {}
        before = self.tokens(openings, **rest)["input_ids"]
        whole = self.tokens(wholes, **rest)["input_ids"]
        if not self.conditions.chat:  # whose turns end as its template says
            before, whole = ([self.opened(ids) for ids in rows] for rows in (before, whole))
        return [
            self._cut(ids[: len(b)], ids[len(b) :]) for b, ids in zip(before, whole, strict=True)
        ]

    def _cut(self, prompt: list[int], target: list[int]) -> Pair:
        """A pair within the length: a prompt loses its beginning; it has one token at least."""
        tokenizer = self.tokens.tokenizer
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.tokens.end
        target = [
            *target,
            *([self.tokens.end] if self.ends and self.tokens.end is not None else []),
        ]
        read = target[: self.max_length - 1]
        prompt = prompt or [start if start is not None else self.tokens.pad]
        # The last token of a target is not read: it is what is to be predicted.
        room = self.max_length - len(read) + 1
        lost, missing = max(0, len(prompt) - room), len(target) - len(read)
        return Pair(prompt[-room:], read, lost, missing)

    def _apart(
        self, texts: Sequence[tuple[str, str]], pair: str
    ) -> tuple[list[list[int]], list[list[int]]]:
        """What an encoder reads, and what its decoder writes."""
        tokenizer = self.tokens.tokenizer
        with languages.set_for(tokenizer, pair):
            read = self.tokens([prompt for prompt, _ in texts])["input_ids"]
            names = tokenizer(
                text_target=[self.tokens.spelt(target) for _, target in texts],
                add_special_tokens=self.ends,
                split_special_tokens=True,
            )["input_ids"]
        self.tokens.check(names)
        if self.decoder_start is not None:
            # What decoding starts with is not written again.
            names = [ids[1:] if ids[:1] == [self.decoder_start] else ids for ids in names]
        return read, names


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


def left_padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs (B, L) of rows of different lengths, so that all end together."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    found = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: value.to(device) for name, value in found.items()}


def right_padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs (B, L) of rows of different lengths, so that all begin together."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def accepted(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Those inputs that an architecture knows: some have no positions, or keep all logits."""
    optional = {"position_ids", "logits_to_keep"}
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in inputs.items() if name not in optional or name in known}
