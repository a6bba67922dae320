"""Models from the hub or a folder: found, checked, and saved. Safetensors only.

No remote code is ever run. Pickle files are read where that was asked for, and then only to be
written as safetensors (`converted`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jdna_cli.engine.files import require_space, sha256, whole
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.sparsity import streams

INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
# What stands beside weights and is read with them, by suffix: configurations, vocabularies (also
# bpe.codes, source.spm, dict.txt), chat templates.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.codes", "*.spm", "*.jinja", "*.tiktoken",
               "tokenizer*", "vocab.*")  # fmt: skip
_TEMPLATES = "additional_chat_templates"
_OWN = ("spec.json", "metrics.jsonl")  # what a run wrote of itself


def fetch(reference: str, converted: Path, allow_pickle: bool) -> Path:
    """The local folder of a model given as a folder or as a hub id with an optional @revision.

    Args:
        reference: the model.
        converted: where models that have pickle files alone are written as safetensors.
        allow_pickle: whether they may be; one that was once is found there again.

    Raises:
        RequestError: there is no such model, or it cannot be read safely.
        JdnaError: the hub did not answer.
    """
    folder = Path(reference).expanduser()
    safe = ["*.safetensors", INDEX, *_COMPANIONS, f"{_TEMPLATES}/*"]
    local = folder.is_dir()
    if not local:
        folder = _download(reference, safe)
    if any(folder.glob("*.safetensors")):
        return folder
    if not local and allow_pickle:
        folder = _download(reference, [*_PICKLED, *_COMPANIONS])
    files = sorted(folder.glob(_PICKLED[0]))
    if not files:
        return folder
    sums = "".join(f"{file.name}:{sha256(file)}\n" for file in files)
    target = converted / hashlib.sha256(sums.encode()).hexdigest()[:16]
    if not target.is_dir():
        if not allow_pickle:
            return folder
        _convert(folder, files, target)
    return target


def _convert(folder: Path, files: list[Path], target: Path) -> None:
    """Write a model of pickle files as safetensors.

    Tensors alone are unpickled: torch refuses anything else in them.

    Raises:
        RequestError: a file is damaged, or holds more than tensors.
    """
    require_space(target, 2 * size(files))
    names: dict[str, str] = {}
    with whole(target) as place:
        for file in files:
            try:
                tensors = torch.load(file, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                raise RequestError(
                    f"{file}: not tensors alone, or damaged: {str(error).splitlines()[0][:120]}"
                ) from None
            # Tied tensors share their memory in a pickle; each is written by itself.
            own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
            written = file.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
            save_file(own, place / written, metadata={"format": "pt"})
            names |= dict.fromkeys(own, written)
        if len(files) > 1:
            (place / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
        copy_companions(folder, place)


def _download(reference: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if reference.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(reference):
        raise RequestError(f"model {reference!r}: no such folder")
    name, _, revision = reference.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=patterns)
    except RepositoryNotFoundError:
        raise RequestError(f"model {reference!r}: no such folder, and the hub has none") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise RequestError(
            f"model {reference!r}: no such folder, and the hub could not be asked "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Path(found)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, each of them whole.

    Raises:
        RequestError: the folder holds no model, no safetensors, or a damaged file.
    """
    if not (folder / "config.json").is_file():
        raise RequestError(f"{folder} is no model: it has no config.json")
    files = [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RequestError(f"{folder / INDEX} is damaged: it has no weight_map") from None
        if any(Path(name).name != name for name in named):
            raise RequestError(f"{folder / INDEX} names files outside its folder")
        # As transformers chooses, so that all commands read the same: the whole file, if there.
        if not files[0].is_file():
            files = [folder / name for name in sorted(named)]
    for file in files:
        if not file.is_file():
            if file.name != "model.safetensors":
                raise RequestError(f"{folder / INDEX} names {file.name}, which is not there")
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
            hint = "; pickle files are read with --allow-pickle alone" if pickled else ""
            raise RequestError(f"{folder} has no {file.name}{hint}")
        check_whole(file)
    return files


def stored_dtype(folder: Path) -> str:
    """The type that most bytes of a model's files are of, by torch's name."""
    sizes: dict[str, int] = {}
    for entry in streams.entries(weight_files(folder)).values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.end - entry.start
    most = max(sizes, key=lambda name: sizes[name])
    return streams.type_of(most)


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
    from jdna_cli.engine.hushed import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{folder}/config.json: {str(error).splitlines()[0]}") from None


def tokenizer_of(folder: Path) -> Any:
    """The model's tokenizer.

    Raises:
        RequestError: there is none that can be read.
    """
    from jdna_cli.engine.hushed import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        told = " ".join(str(error).split())
        package = f"install {error.name!r}: " if error.name else ""
        raise RequestError(
            f"{folder}: its tokenizer needs a package that is not here: {package}{told}"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(
            f"{folder} has no usable tokenizer: {str(error).splitlines()[0]}"
        ) from None


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters by the names that the model's file uses."""
    return dict(model.named_parameters())


def match(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """For each tensor name of any file of this architecture, the name of this model's parameter.

    Files differ in the prefix of the backbone: `bert.encoder…` with a head, `encoder…` without.
    A pooler that this model has no use for is left out.

    Raises:
        JdnaError: a name has no parameter here.
    """
    whole: Any = model
    prefixes = [f"{whole.base_model_prefix}."]
    if whole.config.model_type == "encoder-decoder":
        # The encoder is a model of its own inside, and its files have its own prefix.
        prefixes = ["encoder.", f"{whole.get_encoder().base_model_prefix}."]
    own: dict[str, str] = {}
    for name, _ in model.named_parameters():
        own.setdefault(name.removeprefix(prefixes[0]), name)
    found = {}
    for name in names:
        bare = [name, *(name.removeprefix(prefix) for prefix in prefixes)]
        place = next((own[form] for form in bare if form in own), None)
        if place is None and ".pooler." in f".{name}":
            continue
        if place is None:
            raise JdnaError(f"tensor {name!r} of the mask has no weight in the model")
        found[name] = place
    return found


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
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            weights = file.name.endswith((".index.json", ".safetensors"))
            if file.is_file() and not weights and file.name not in _OWN:
                shutil.copyfile(file, target / file.name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, target / _TEMPLATES)


def size(files: Iterable[Path]) -> int:
    """Bytes of `files` together."""
    return sum(os.path.getsize(file) for file in files)
