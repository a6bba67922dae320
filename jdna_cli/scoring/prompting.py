"""Models that write: prompts and what may follow them as tokens, and its likelihood.

A decoder reads the prompt and what follows it as one text; an encoder-decoder encodes the prompt
and decodes what follows. Tokens of a pair are those that the LM evaluation harness takes: white
space at the end of the prompt goes to what follows, a decoder's pair is tokenised as one text and
cut where the prompt's own tokens end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jdna_cli.errors import RequestError
from jdna_cli.scoring import language_codes
from jdna_cli.scoring.language_model import LanguageModelScorer, Pair
from jdna_cli.scoring.scorer import Shown
from jdna_cli.scoring.templates import bounded
from jdna_cli.tasks import prompts
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.examples import Example


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
        return bounded(
            lambda: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

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
        with language_codes.set_for(tokenizer, pair):
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
