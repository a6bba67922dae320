"""What a model is by content, and what each of its files is; large files are read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from sqlalchemy.engine import Engine
from sqlmodel import Session

from jdna_cli import files
from jdna_cli.store.tables import Weights

HASHES = 4  # files at a time
REMEMBERED = ".identity"  # what a run's model was by content, where it may be taken away

# What determines a model's answers: weights, configuration, tokenizer; not its readme. A test holds
# it against the names of all tokenizers that transformers knows.
_CONTENT = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.codes",
    "*.spm",
    "*.tiktoken",
    "*.tokenizer",
    "*.jinja",
    "dict.txt",
    "vocab-*.json",
    "target_vocab.json",
    "entity_vocab.json",
    "normalizer.json",
    "byte_maps.json",
    "emoji.json",
    "word_*.json",
)
_TEMPLATES = "additional_chat_templates"
# How writing begins and ends, where a file of its own says it otherwise than the configuration.
_WRITING = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")


class Identities:
    """Content hashes, of which those of weight files are remembered by size and time."""

    def __init__(self, engine: Engine) -> None:
        """Remember in `engine`."""
        self._engine = engine

    def of(self, folder: Path) -> str:
        """Hash of a model folder's content: weights, configuration, tokenizer."""
        if not has_weights(folder) and (folder / REMEMBERED).is_file():
            return (folder / REMEMBERED).read_text().strip()
        own = sorted(file for file in folder.iterdir() if file.is_file() and is_content(file.name))
        own += sorted(file for file in (folder / _TEMPLATES).glob("*") if file.is_file())
        lines = [f"{file.name}:{sum_}" for file, sum_ in zip(own, self.sums(own), strict=True)]
        lines += _writing(folder)
        text = "\n".join(lines)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def sums(self, paths: Sequence[Path]) -> list[str]:
        """Hashes of files' contents, side by side: hashing lets go of the interpreter."""
        with ThreadPoolExecutor(HASHES) as pool:
            return list(pool.map(self.sha256, paths))

    def sha256(self, file: Path) -> str:
        """Hash of a file's content, in hexadecimal."""
        path, (size, modified_ns, inode) = str(file.resolve()), files.state(file)
        remembered = file.suffix == ".safetensors"
        if remembered:
            with Session(self._engine) as session:
                row = session.get(Weights, path)
                if row and (row.size, row.modified_ns, row.inode) == (size, modified_ns, inode):
                    return row.sha256
        digest = files.sha256(file)
        if remembered:
            with Session(self._engine) as session:
                session.merge(
                    Weights(
                        path=path, size=size, modified_ns=modified_ns, inode=inode, sha256=digest
                    )
                )
                session.commit()
        return digest


def is_content(name: str) -> bool:
    """Whether a file of this name determines a model's answers; masks and grids do too."""
    return any(fnmatch(name, pattern) for pattern in _CONTENT)


def _writing(folder: Path) -> list[str]:
    """What generation_config.json says of writing that config.json does not."""
    told = []
    for name in ("config.json", "generation_config.json"):
        try:
            values = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []  # there is none, or it is refused when the model is read
        told.append({key: values.get(key) for key in _WRITING} if isinstance(values, dict) else {})
    differing = {k: v for k, v in told[1].items() if v is not None and v != told[0].get(k)}
    return [f"generation_config:{json.dumps(differing, sort_keys=True)}"] if differing else []


def has_weights(folder: Path) -> bool:
    """Whether a run's folder still holds its model, in whatever form."""
    beside = ("mask.safetensors", "grid.safetensors")
    return any(file.name not in beside for file in folder.glob("*.safetensors"))


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a model in its compact form."""
    return any(folder.glob("packed-*.safetensors"))
