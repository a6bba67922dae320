"""Models from the hub or a folder: found, and where they are pickled, converted.

No remote code is ever run. Pickle files are read where that was asked for, and then only to be
written as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from jdna_cli.errors import RequestError
from jdna_cli.files import require_space, sha256, whole
from jdna_cli.models import gguf_files, model_files

_PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def fetch(reference: str, converted: Path, allow_pickle: bool) -> Path:
    """The local folder of a model: a folder, a GGUF file, or a hub id with an optional @revision.

    Args:
        reference: the model.
        converted: where models that are in GGUF or pickle files alone are written as safetensors.
        allow_pickle: whether they may be; one that was once is found there again.

    Raises:
        RequestError: there is no such model, or it cannot be read safely.
        JdnaError: the hub did not answer.
    """
    folder = Path(reference).expanduser()
    if (file := gguf_files.file_of(folder)) is not None:
        return gguf_files.converted(file, converted)
    safe = [
        "*.safetensors",
        model_files.INDEX,
        *model_files.COMPANIONS,
        f"{model_files.TEMPLATES}/*",
    ]
    local = folder.is_dir()
    if not local:
        folder = _download(reference, safe)
    if any(folder.glob("*.safetensors")):
        return folder
    if not local and allow_pickle:
        folder = _download(reference, [*_PICKLED, *model_files.COMPANIONS])
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
    require_space(target, 2 * model_files.size(files))
    names: dict[str, str] = {}
    with whole(target, named_by_content=True) as place:
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
            (place / model_files.INDEX).write_text(
                json.dumps({"metadata": {}, "weight_map": names})
            )
        model_files.copy_companions(folder, place)


def _download(reference: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if reference.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(reference):
        raise RequestError(f"model {reference!r}: no such folder")
    name, _, revision = reference.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=patterns)
    except HFValidationError:
        raise RequestError(
            f"model {reference!r}: no such folder, and no name that the hub could have"
        ) from None
    except RepositoryNotFoundError:
        raise RequestError(f"model {reference!r}: no such folder, and the hub has none") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise RequestError(
            f"model {reference!r}: no such folder, and the hub could not be asked "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Path(found)
