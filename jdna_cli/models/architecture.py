"""Which weights may be pruned: found from the architecture, never from a list of names.

The weight matrices of the backbone's linear layers. Not embeddings, norms, or biases; not the head
that a task puts on top; not a matrix that is tied to an embedding.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jdna_cli import __version__
from jdna_cli.compute.versions import version
from jdna_cli.errors import RequestError

MOST_LAYERS = 2000


@dataclass(frozen=True)
class Architecture:
    """What a configuration says of the backbone's tensors, by names without the prefix.

    `matrices` are prunable, with their input dimension, and have these `shapes`; `others` are not,
    and why. `refused` says why none may be pruned; `positions`, how many tokens the model has
    positions for, None where that is not limited.
    """

    model_type: str
    prefix: str
    matrices: dict[str, int]
    shapes: dict[str, list[int]]
    others: dict[str, str]
    refused: str | None
    positions: int | None


def shapes_differ(stored: Sequence[int], wanted: Sequence[int]) -> str:
    """What is wrong with a tensor of another shape, in words."""
    return f"is {list(stored)} in its file, and {list(wanted)} by its configuration"


def architecture(folder: Path) -> Architecture:
    """The architecture of the model in `folder`.

    It is told by the configuration alone, and remembered: building the model without weights takes
    transformers, whose import takes longer than planning a pruning.

    Raises:
        RequestError: it is unknown.
    """
    try:
        config = (folder / "config.json").read_bytes()
    except OSError as error:
        raise RequestError(f"{folder}/config.json cannot be read: {error.strerror}") from None
    versions = f"{__version__} {version('transformers')} {version('torch')}"
    # What this file makes of an architecture is part of the name.
    rules = Path(__file__).read_bytes()
    return _known(hashlib.sha256(versions.encode() + rules + config).hexdigest(), folder)


@functools.lru_cache(maxsize=64)
def _known(key: str, folder: Path) -> Architecture:
    file = _remembered() / f"{key}.json"
    try:
        return Architecture(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not seen before, or damaged: looked at again
        architecture_seen = _seen(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".part-{os.getpid()}")
        part.write_text(json.dumps(asdict(architecture_seen)), encoding="utf-8")
        part.replace(file)
    except OSError:  # a home that cannot be written: looked at anew each time
        pass
    return architecture_seen


def _remembered() -> Path:
    """Where architectures are remembered; may be deleted at any time."""
    own = os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path.home() / ".cache") / "jdna" / "architectures"


def _seen(folder: Path) -> Architecture:
    """What transformers builds of the configuration, without memory for its weights."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from jdna_cli.models import experts, model_files

    config = model_files.config_of(folder)
    model, prefix = _empty(config)
    experts.part_(model)
    kind = str(config.model_type)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices: dict[str, int] = {}
    shapes: dict[str, list[int]] = {}
    others: dict[str, str] = {}
    deep: dict[str, int] = {}  # weights of more than two dimensions: their number
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            full = experts.in_files(config, f"{name}.{own}".removeprefix("."))
            linear = isinstance(module, nn.Linear | Conv1D) and own == "weight"
            if linear and id(parameter) not in embedded:
                matrices[full] = 0 if isinstance(module, Conv1D) else 1
                shapes[full] = list(parameter.shape)
                continue
            others[full] = _reason(module, own, parameter, embedded)
            if len([size for size in parameter.shape if size > 1]) > 2 or (
                isinstance(module, nn.Conv1d) and module.kernel_size == (1,)
            ):
                deep[full] = parameter.numel()
    sizes = {experts.in_files(config, n): p.numel() for n, p in model.named_parameters()}
    refused = _refused(kind, deep, matrices, sizes)
    positions = _positions(config, model)
    return Architecture(kind, prefix, matrices, shapes, others, refused, positions)


def _positions(config: Any, model: Any) -> int | None:
    """The most tokens that a model has positions for."""
    from torch import nn

    inner = config.encoder if config.model_type == "encoder-decoder" else config
    positions = getattr(inner, "max_position_embeddings", None) or getattr(
        inner, "n_positions", None
    )
    if not isinstance(positions, int) or positions <= 0:
        return None
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and ("position" in name or name.endswith("wpe"))
    ]
    if hasattr(inner, "relative_attention_num_buckets") and not tables:
        return None
    for table in tables:
        if table.num_embeddings == positions and table.padding_idx is not None:
            # Positions are counted from the padding token's number on.
            return positions - int(table.padding_idx) - 1
    return positions


def _reason(module: Any, own: str, parameter: Any, embedded: set[int]) -> str:
    """Why a tensor is not prunable."""
    from torch import nn

    if own.endswith("bias"):
        return "bias"
    if id(parameter) in embedded:
        return "embedding, or tied to one"
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return "convolution"
    return "norm" if parameter.ndim == 1 else "not a linear layer"


def _refused(
    kind: str, deep: dict[str, int], matrices: dict[str, int], sizes: dict[str, int]
) -> str | None:
    """Why an architecture that keeps much of its weights elsewhere than in matrices is refused."""
    if not deep:
        return None
    first = next(iter(deep))
    if any("expert" in name for name in deep):
        return (
            f"architecture {kind!r}: {first} fuses several experts in one tensor, in the files too "
            "or in a way that is not known: it is not pruned"
        )
    plain = sum(sizes[name] for name in matrices)
    if 10 * sum(deep.values()) <= plain:
        return None
    return (
        f"architecture {kind!r}: {len(deep)} of its weights are convolutions or tensors of three "
        f"dimensions in place of matrices ({first} first), which jdna does not prune"
    )


def _empty(config: Any) -> tuple[Any, str]:
    """The backbone without memory for its weights, and its prefix in files."""
    import torch

    from jdna_cli.models.quiet import transformers

    # Of an encoder that was given a decoder, the encoder is the backbone, and the rest its head.
    inner = config.encoder if config.model_type == "encoder-decoder" else config
    layers = getattr(inner, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > MOST_LAYERS:
        raise RequestError(
            f"architecture {inner.model_type!r}: its configuration tells of {layers!r} layers"
        )
    with torch.device("meta"):
        try:
            model = transformers.AutoModel.from_config(inner, trust_remote_code=False)
        except Exception as error:  # whatever a library makes of what may stand there
            what = " ".join(str(error).split())[:120] or type(error).__name__
            raise RequestError(f"architecture {inner.model_type!r}: {what}") from error
    return model, "encoder." if inner is not config else f"{model.base_model_prefix}."
