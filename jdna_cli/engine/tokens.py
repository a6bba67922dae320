"""Texts to tokens, remembered on disk by content: the same texts are tokenised once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

WORTH = 2000  # fewer texts are tokenised faster than looked up


class Tokens:
    """A tokenizer, and where its work is remembered."""

    def __init__(self, tokenizer: Any, cache: Path | None = None) -> None:
        """Wrap `tokenizer`; with `cache`, large sets of texts are remembered in that folder."""
        self.tokenizer, self._cache = tokenizer, cache
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def pad(self) -> int:
        """The token that fills up; any will do where there is none, for it is masked."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def end(self) -> int | None:
        """The token that ends a text."""
        for found in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            if found is not None:
                return int(found)
        return None

    def __call__(self, *columns: Sequence[str], **settings: Any) -> dict[str, list[list[int]]]:
        """What the tokenizer gives for texts, or for pairs of texts, without padding."""
        file = self._file(columns, settings)
        if file is not None and (remembered := _read(file)) is not None:
            return remembered
        if columns and not columns[0]:
            return {"input_ids": []}
        found = dict(self.tokenizer(*(list(column) for column in columns), **settings))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".part-{os.getpid()}")
            packed = _packed(found)
            save_file(packed, part, metadata={"sha256": _digest(packed)})
            part.rename(file)
        return found

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


def _read(file: Path) -> dict[str, list[list[int]]] | None:
    """What a file remembers, or None where there is none that is as it was written."""
    try:
        with safe_open(file, framework="pt") as handle:
            packed = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            told = (handle.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return _unpacked(packed) if told == _digest(packed) else None


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
    found = {}
    for name in sorted(n for n in packed if not n.endswith(".lengths")):
        flat, rows, start = packed[name].tolist(), [], 0
        for length in packed[f"{name}.lengths"].tolist():
            rows.append(flat[start : start + length])
            start += length
        found[name] = rows
    return found
