"""GGUF files: read through transformers, dequantized once, and kept as safetensors.

What a quantization has taken away does not come back: the source's kind of quantization goes with
the model's name, and stands beside its files (`gguf.json`).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.files import require_space, sha256, whole

BESIDE = "gguf.json"
_PARTED = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def file_of(place: Path) -> Path | None:
    """The GGUF file that a path is, or the only model in the folder that it is; else None.

    Raises:
        RequestError: there are several, or one that is in parts.
    """
    if place.is_dir():
        if any(place.glob("*.safetensors")) or any(place.glob("*.bin")):
            return None
        files = sorted(place.glob("*.gguf"))
        if len(files) > 1:
            raise RequestError(f"{place} has {len(files)} GGUF files: name one of them")
        place = files[0] if files else place
    if place.suffix.lower() != ".gguf" or not place.is_file():
        return None
    if _PARTED.search(place.name):
        raise RequestError(f"{place} is one part of several: join them with llama.cpp's gguf-split")
    return place


def converted(file: Path, below: Path) -> Path:
    """The folder with the file's weights as float32, made where it is not there yet.

    Args:
        file: the GGUF file.
        below: where converted models are kept, by content.

    Raises:
        RequestError: the package `gguf` is missing, or the file is none that transformers reads.
    """
    target = below / f"gguf-{sha256(file)[:16]}"
    if target.is_dir():
        return target
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise RequestError(
            f"{file}: GGUF needs the extra `gguf`: pip install 'jdna[gguf]'"
        ) from None
    from jdna_cli.models.quiet import transformers

    quantization = _quantization(file)
    require_space(target, 10 * file.stat().st_size)
    bars = contextlib.redirect_stderr(io.StringIO())  # which transformers draws in any case
    with whole(target, named_by_content=True) as folder, _said_in_one_line(file), bars:
        own: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent,
            dtype="float32",
            quantization_config=transformers.GgufConfig(dequantize=True),
            **own,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **own)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        told = {"file": file.name, "quantization": quantization}
        (folder / BESIDE).write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def quantization_of(folder: Path) -> str | None:
    """How the weights were quantized that a converted folder was made from; None for any other."""
    try:
        told = json.loads((folder / BESIDE).read_text(encoding="utf-8"))["quantization"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(told)


def _quantization(file: Path) -> str:
    """The type of most of a file's values."""
    import gguf

    with _said_in_one_line(file):
        counts: dict[str, int] = {}
        for tensor in gguf.GGUFReader(file).tensors:
            name = str(tensor.tensor_type.name)
            counts[name] = counts.get(name, 0) + int(tensor.n_elements)
        return max(counts, key=lambda name: counts[name])


@contextlib.contextmanager
def _said_in_one_line(file: Path) -> Any:
    try:
        yield
    except RequestError:
        raise
    except OSError as error:
        if error.errno is not None and error.filename is None:
            raise  # a full disk, say
        raise RequestError(f"{file}: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:  # whatever a library makes of what may stand there
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(f"{file} is no GGUF model that can be read: {what}") from error
