"""Texts to tokens, remembered on disk by content: the same texts are tokenised once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from jdna_cli.errors import RequestError
from jdna_cli.scoring.batches import Features

WORTH = 2000  # fewer texts are tokenised faster than looked up


class Tokens:
    """A tokenizer, and where its work is remembered."""

    def __init__(
        self, tokenizer: Any, cache: Path | None = None, embedded: int | None = None
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: of transformers.
            cache: folder in which large sets of texts are remembered.
            embedded: rows of the model's embeddings, if known; more tokens cannot be read.
        """
        self.tokenizer, self._cache, self._embedded = tokenizer, cache, embedded
        self.cut = 0  # texts of the last call that were longer than they may be
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def _padding(self) -> int | None:
        """The tokenizer's own token that fills up, where the model has an embedding of it."""
        own = self.tokenizer.pad_token_id
        known = own is not None and (self._embedded is None or own < self._embedded)
        return int(own) if known else None

    @property
    def pad(self) -> int:
        """A token to fill prompts up with, which are masked there: any will do."""
        own = self._padding
        return own if own is not None else self.end or 0

    @property
    def end(self) -> int | None:
        """The token that ends a text."""
        for found in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            if found is not None:
                return int(found)
        return None

    def features(self, *columns: Sequence[str], **settings: Any) -> Features:
        """Texts, or pairs of texts, as rows of tokens that batches can be made of.

        A text of which the tokenizer makes nothing is one token that begins texts, or ends them.
        """
        found = self(*columns, **settings)
        rows = found["input_ids"]
        if not all(rows):
            start = self.tokenizer.bos_token_id
            first = start if start is not None else self.end or 0
            rows = [row or [first] for row in rows]
            found = {name: [own or [0] for own in column] for name, column in found.items()}
        # Some models find the end of a text by its last token, or by its token of ending.
        taken = {row[-1] for row in rows} | {self.end}
        own = self._padding
        if own is None or own in taken:
            own = next(i for i in range(len(taken) + 1) if i not in taken)
        limit = settings.get("max_length", 0) if settings.get("truncation") else 0
        return Features({**found, "input_ids": rows}, own, self.cut, limit)

    def __call__(self, *columns: Sequence[str], **settings: Any) -> dict[str, list[list[int]]]:
        """What the tokenizer gives for texts, or for pairs of texts, without padding.

        Text is text: what spells a special token is not taken for it, unless `settings` say so.
        """
        settings = {"split_special_tokens": True, **settings}
        if settings["split_special_tokens"]:
            columns = tuple([self.spelt(text) for text in column] for column in columns)
        file = self._file(columns, settings)
        if file is not None and (remembered := _read(file)) is not None:
            tokenized, self.cut = remembered
            self.check(tokenized["input_ids"])
            return tokenized
        if columns and not columns[0]:
            return {"input_ids": []}
        made = self.tokenizer(*(list(column) for column in columns), **settings)
        tokenized = dict(made)
        self.check(tokenized["input_ids"])
        told = getattr(made, "encodings", None) or []
        self.cut = sum(bool(one.overflowing) for one in told) if settings.get("truncation") else 0
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".part-{os.getpid()}")
            packed = _packed(tokenized)
            save_file(packed, part, metadata={"sha256": _digest(packed), "cut": str(self.cut)})
            part.rename(file)
        return tokenized

    def spelt(self, text: str) -> str:
        """A text in which nothing stands for a token of the tokenizer's own.

        Vocabularies of pieces hold `</s>` among the pieces of text: there a space comes into it.
        """
        return _parted(text, self._pieces)

    def in_conversation(self, text: str) -> str:
        """A text among the tokenizer's own marks of who speaks, of which it must spell none."""
        if not any(name in text for name in self._special):
            return text
        return _parted(text, self._special)

    @functools.cached_property
    def _special(self) -> list[str]:
        known = self.tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in known if token.special}
        names |= set(self.tokenizer.all_special_tokens)
        return sorted((name for name in names if len(name) > 1), key=len, reverse=True)

    @functools.cached_property
    def _pieces(self) -> list[str]:
        """Special tokens that come out even where they are to be spelt."""
        pieces = []
        for name in self.tokenizer.all_special_tokens:
            ids = self.tokenizer(name, add_special_tokens=False, split_special_tokens=True)
            own = self.tokenizer.convert_tokens_to_ids(name)
            if own in ids["input_ids"] and own != self.tokenizer.unk_token_id and len(name) > 1:
                pieces.append(name)
        return pieces

    def check(self, rows: Sequence[Sequence[int]]) -> None:
        """Refuse tokens that the model has no embedding of.

        Raises:
            RequestError: names the first.
        """
        most = max((max(row) for row in rows if row), default=0)
        if self._embedded is not None and most >= self._embedded:
            name = self.tokenizer.convert_ids_to_tokens(most)
            raise RequestError(
                f"the tokenizer gives token {name!r}, number {most}, and the model has embeddings "
                f"of {self._embedded} tokens: they do not belong together"
            )

    def _file(self, columns: Sequence[Sequence[str]], settings: dict[str, Any]) -> Path | None:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if self._cache is None or backend is None or len(columns[0]) < WORTH:
            return None
        # What the last call cut and padded to stays in the tokenizer, and says nothing of this one.
        meaning = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        told = [type(self.tokenizer).__name__, meaning, settings]
        sides = [getattr(self.tokenizer, name, None) for name in ("truncation_side", "src_lang")]
        digest = hashlib.sha256(json.dumps([*told, sides, *map(list, columns)]).encode())
        return self._cache / f"{digest.hexdigest()[:40]}.safetensors"


def _parted(text: str, names: Sequence[str]) -> str:
    """A text in which a space parts each of the names, so that none of them is spelt."""
    for name in names:
        text = text.replace(name, f"{name[0]} {name[1:]}")
    return text


def _read(file: Path) -> tuple[dict[str, list[list[int]]], int] | None:
    """What a file remembers, and how many texts were cut; None where there is none as written."""
    try:
        with safe_open(file, framework="pt") as handle:
            packed = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            told = handle.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if told.get("sha256") != _digest(packed):
        return None
    return _unpacked(packed), int(told.get("cut", 0))


def _digest(packed: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(packed):
        found.update(name.encode() + packed[name].numpy().tobytes())
    return found.hexdigest()


def _packed(found: dict[str, list[list[int]]]) -> dict[str, torch.Tensor]:
    packed = {}
    for name, rows in found.items():
        packed[f"{name}.lengths"] = torch.tensor([len(row) for row in rows])
        packed[name] = torch.tensor([t for row in rows for t in row], dtype=torch.int32)
    return packed


def _unpacked(packed: dict[str, torch.Tensor]) -> dict[str, list[list[int]]]:
    unpacked = {}
    for name in sorted(n for n in packed if not n.endswith(".lengths")):
        flat, rows, start = packed[name].tolist(), [], 0
        for length in packed[f"{name}.lengths"].tolist():
            rows.append(flat[start : start + length])
            start += length
        unpacked[name] = rows
    return unpacked
