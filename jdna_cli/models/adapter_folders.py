"""A folder with an adapter, as peft writes it: merged into its base once, as safetensors.

Low-rank adapters alone (LoRA): W + s · B A for each matrix that has one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from jdna_cli.errors import RequestError
from jdna_cli.files import require_space, sha256, whole
from jdna_cli.models import model_files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model of its own."""
    return (folder / CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def base_of(folder: Path) -> str:
    """The model that an adapter names as its base.

    Raises:
        RequestError: it names none, or is of another kind than LoRA.
    """
    try:
        told: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder / CONFIG} cannot be read: {error}") from None
    kind = told.get("peft_type") if isinstance(told, dict) else None
    if kind != "LORA" or told.get("use_dora"):
        raise RequestError(f"{folder}: an adapter of kind {kind!r}; LoRA alone is merged")
    if told.get("modules_to_save"):
        raise RequestError(
            f"{folder}: the adapter has modules of its own ({', '.join(told['modules_to_save'])}): "
            "merge it with peft, and name the merged folder"
        )
    base = told.get("base_model_name_or_path")
    if not base:
        raise RequestError(f"{folder / CONFIG} names no base_model_name_or_path")
    beside = (folder / str(base)).resolve()
    return str(beside) if str(base).startswith(".") and beside.is_dir() else str(base)


def merged(folder: Path, base: Path, converted: Path) -> Path:
    """The folder of the base with the adapter merged, made where it is not there yet.

    Args:
        folder: of the adapter.
        base: of the model that it belongs to.
        converted: where merged models are kept, by content.

    Raises:
        RequestError: the adapter is of another base, or damaged.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{folder / WEIGHTS} cannot be read: {error}") from None
    files = model_files.weight_files(base)
    sums = [sha256(folder / CONFIG), sha256(folder / WEIGHTS), *map(sha256, files)]
    target = converted / hashlib.sha256("".join(sums).encode()).hexdigest()[:16]
    if target.is_dir():
        return target
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    pairs = _pairs(folder, tensors)
    require_space(target, 2 * model_files.size(files))
    with whole(target, named_by_content=True) as place:
        left = dict(pairs)
        for file in files:
            own = load_file(file)
            for name in list(own):
                module = name.removesuffix(".weight")
                match = next((m for m in left if _same(m, module)), None)
                if match is not None and name.endswith(".weight"):
                    own[name] = _added(folder, own[name], *left.pop(match), match, config)
            save_file(own, place / file.name, metadata={"format": "pt"})
        if left:
            raise RequestError(
                f"{folder}: an adapter of another base: {base.name} has no {next(iter(left))} "
                f"({len(left)} of {len(pairs)} matrices are missing)"
            )
        model_files.copy_companions(base, place)
        if (base / model_files.INDEX).is_file():
            (place / model_files.INDEX).write_bytes((base / model_files.INDEX).read_bytes())
    return target


def _pairs(folder: Path, tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each matrix, by the name of its module."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, found, part = name.removeprefix(_PREFIX).rpartition(".lora_")
        if not found or part not in ("A.weight", "B.weight"):
            raise RequestError(f"{folder / WEIGHTS}: {name!r} is not part of a LoRA of matrices")
        parts.setdefault(module, {})[part[0]] = tensor
    for module, own in parts.items():
        if set(own) != {"A", "B"}:
            raise RequestError(f"{folder / WEIGHTS}: {module} has only one of A and B")
    return {module: (own["A"], own["B"]) for module, own in parts.items()}


def _same(adapted: str, stored: str) -> bool:
    """Whether two names are one module: files differ in the prefix of the backbone."""
    return adapted == stored or adapted.endswith(f".{stored}") or stored.endswith(f".{adapted}")


def _added(
    folder: Path, weight: Tensor, a: Tensor, b: Tensor, module: str, config: dict[str, Any]
) -> Tensor:
    rank = a.shape[0]
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != rank:
        raise RequestError(f"{folder / WEIGHTS}: A and B of {module} are of different ranks")
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha", rank))
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    product = scale * (b.float() @ a.float())
    if config.get("fan_in_fan_out"):
        product = product.T
    if product.shape != weight.shape:
        raise RequestError(
            f"{folder}: an adapter of another base: {module} is {list(product.shape)} there, and "
            f"{list(weight.shape)} here"
        )
    return (weight.float() + product).to(weight.dtype).contiguous()


def _of_module(pattern: Any, module: str, default: Any) -> float:
    for name, value in (pattern or {}).items():
        if _same(module, name):
            return float(value)
    return float(default)
