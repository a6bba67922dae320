"""Models from the hub or a folder: found, checked, and saved. Safetensors only.

No remote code is ever run. Pickle files are read where that was asked for, and then only to be
written as safetensors (`converted`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from jdna_cli.errors import RequestError
from jdna_cli.sparsity import safetensors_io

UNHEARD_OF = "\U0001f9ec"  # what no vocabulary has: some tokenizers fail at it alone
LONGEST_NAME = 200  # characters of a file's
INDEX = "model.safetensors.index.json"
# What stands beside weights and is read with them, by suffix: configurations, vocabularies (also
# bpe.codes, source.spm, dict.txt), chat templates.
COMPANIONS = ("*.json", "*.txt", "*.model", "*.codes", "*.spm", "*.jinja", "*.tiktoken",
               "tokenizer*", "vocab.*")  # fmt: skip
TEMPLATES = "additional_chat_templates"
_OWN = ("spec.json", "metrics.jsonl")  # what a run wrote of itself


def check_inside(folder: Path) -> None:
    """Refuse links that lead out of a model's folder, to whatever file of this machine.

    The hub's cache links to its own blobs.

    Raises:
        RequestError: names the first.
    """
    top = folder.resolve()
    blobs = next((up / "blobs" for up in top.parents if up.name.startswith("models--")), None)
    for path in sorted([*folder.glob("*"), *(folder / TEMPLATES).glob("*")]):
        if not path.is_symlink():
            continue
        leads = path.resolve()
        if leads.is_relative_to(top) or (blobs is not None and leads.parent == blobs):
            continue
        raise RequestError(f"{path} is a link that leads out of the model's folder, to {leads}")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, each of them whole.

    Raises:
        RequestError: the folder holds no model, no safetensors, or a damaged file, or a link leads
            out of it.
    """
    check_inside(folder)
    if not (folder / "config.json").is_file():
        raise RequestError(f"{folder} is no model: it has no config.json")
    files = [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise RequestError(f"{folder / INDEX} is damaged: it has no weight_map") from None
        if any(not isinstance(name, str) or Path(name).name != name for name in named):
            raise RequestError(f"{folder / INDEX} names files outside its folder")
        # As transformers chooses, so that all commands read the same: the whole file, if there.
        if not files[0].is_file():
            files = [folder / name for name in sorted(named)]
    for file in files:
        if len(file.name) > LONGEST_NAME or not file.is_file():
            if file.name != "model.safetensors":
                name = file.name[:LONGEST_NAME]
                raise RequestError(f"{folder / INDEX} names {name}, which is not there")
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
            hint = "; pickle files are read with --allow-pickle alone" if pickled else ""
            raise RequestError(f"{folder} has no {file.name}{hint}")
        check_whole(file)
    return files


def stored_dtype(folder: Path) -> str:
    """The type that most bytes of a model's files are of, by torch's name."""
    sizes: dict[str, int] = {}
    for entry in safetensors_io.entries(weight_files(folder)).values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.end - entry.start
    most = max(sizes, key=lambda name: sizes[name])
    return safetensors_io.type_of(most)


def check_whole(file: Path) -> None:
    """Refuse a safetensors file that is damaged.

    Raises:
        RequestError: it cannot be opened, or is shorter or longer than it says.
    """
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{file} is damaged or truncated: {error}") from None


def config_of(folder: Path) -> Any:
    """The model's configuration.

    Raises:
        RequestError: it is damaged, of an unknown architecture, or asks for code of its own.
    """
    from jdna_cli.models.quiet import transformers

    _refuse_code(folder)
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a library makes of what may stand there
        raise RequestError(f"{folder}/config.json: {_line(error)}") from error


def _refuse_code(folder: Path) -> None:
    """Refuse a configuration that names code to be loaded, as kernels of somebody's repository.

    Raises:
        RequestError: names the setting.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # what is wrong with it is said when it is read
    if isinstance(config, dict) and config.get("quantization_config"):
        table = config["quantization_config"]
        how = table.get("quant_method") if isinstance(table, dict) else None
        raise RequestError(
            f"{folder}/config.json: the model is quantized already ({how or 'somehow'}): take the "
            "one that it was made from"
        )
    tables = [config]
    while tables:
        table = tables.pop()
        for key, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, dict):
                tables.append(value)
            named = "implementation" in key or "kernel" in key
            if named and isinstance(value, str) and re.search(r"[/:|@]", value):
                raise RequestError(
                    f"{folder}/config.json: {key} is {value!r}: code of others is not loaded"
                )


def _line(error: BaseException) -> str:
    """What a library says is wrong, in one line."""
    text = " ".join(str(error).split())[:200]
    return (
        text
        if isinstance(error, OSError | ValueError) and text
        else (f"{type(error).__name__}: {text}" if text else type(error).__name__)
    )


FEW = 1000  # tokens, of which all may be special: language codes, places to fill


def _words(tokenizer: Any) -> set[str]:
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return set(tokenizer.get_vocab()) - special


def tokenizer_of(folder: Path) -> Any:
    """The model's tokenizer.

    Raises:
        RequestError: there is none that can be read.
    """
    from jdna_cli.models.quiet import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer(UNHEARD_OF)
    except ImportError as error:
        told = " ".join(str(error).split())
        package = f"install {error.name!r}: " if error.name else ""
        raise RequestError(
            f"{folder}: its tokenizer needs a package that is not here: {package}{told}"
        ) from None
    except BaseException as error:  # whatever a library makes of what may stand there
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RequestError(f"{folder} has no usable tokenizer: {_line(error)}") from error
    # Without its files many a class makes one that knows no word, and says nothing.
    if len(tokenizer) < FEW and len(_words(tokenizer)) <= 1:
        wanted = sorted({"tokenizer.json", *tokenizer.vocab_files_names.values()})
        raise RequestError(
            f"{folder} has no usable tokenizer: it knows no words; its files, as "
            f"{' or '.join(wanted)}, are not there, or empty"
        )
    return tokenizer


def save(model: Any, tokenizer: Any, folder: Path, weights: dict[str, Tensor] | None) -> None:
    """Write what `from_pretrained` reads: weights as safetensors, configuration, tokenizer.

    Where nobody wants the weights (None), what is left of a model that was taken away is written.
    """
    if weights is None:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
    else:
        # A copy: it renames what it is given.
        model.save_pretrained(folder, state_dict=dict(weights))
    tokenizer.save_pretrained(folder)


def copy_companions(source: Path, target: Path) -> None:
    """Copy configuration and tokenizer files, as they are."""
    for pattern in COMPANIONS:
        for file in source.glob(pattern):
            weights = file.name.endswith((".index.json", ".safetensors"))
            if file.is_file() and not weights and file.name not in _OWN:
                shutil.copyfile(file, target / file.name)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, target / TEMPLATES)


def size(files: Iterable[Path]) -> int:
    """Bytes of `files` together."""
    return sum(os.path.getsize(file) for file in files)
