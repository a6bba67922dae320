"""Which weights may be pruned: found from the architecture, never from a list of names.

The weight matrices of the backbone's linear layers. Not embeddings, norms, or biases; not the head
that a task puts on top; not a matrix that is tied to an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from jdna_cli.errors import RequestError


@dataclass(frozen=True)
class Prunable:
    """One prunable tensor: its name in the file, and the dimension that runs along the input."""

    name: str
    input_dim: int


def backbone(config: Any) -> tuple[str, dict[str, int]]:
    """The backbone's prefix, and name (without it) and input dimension of every prunable matrix.

    Raises:
        RequestError: the architecture is unknown, or it keeps weights where none can be pruned.
    """
    model, prefix = _empty(config)
    embedded = _embedded(model)
    found = {}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3:
                raise RequestError(
                    f"architecture {config.model_type!r}: {name}.{own} fuses several experts in "
                    "one tensor, which cannot be pruned yet"
                )
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embedded:
            found[f"{name}.weight"] = 0 if isinstance(module, Conv1D) else 1
    return prefix, found


def reasons(config: Any, tensors: list[str]) -> dict[str, str | None]:
    """Why each of a file's tensors is not prunable; None where it is."""
    prefix, known = backbone(config)
    model, _ = _empty(config)
    embedded = _embedded(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, str | None] = {}
    for name in tensors:
        bare = name.removeprefix(prefix)
        parameter = parameters.get(bare)
        if bare in known:
            found[name] = None
        elif parameter is None:
            found[name] = "not of the backbone: a head, or unused"
        elif bare.endswith("bias"):
            found[name] = "bias"
        elif id(parameter) in embedded:
            found[name] = "embedding, or tied to one"
        else:
            found[name] = "norm" if parameter.ndim == 1 else "not a linear layer"
    return found


def _empty(config: Any) -> tuple[Any, str]:
    """The backbone without memory for its weights, and its prefix in files."""
    # Of an encoder that was given a decoder, the encoder is the backbone, and the rest its head.
    inner = config.encoder if config.model_type == "encoder-decoder" else config
    with torch.device("meta"):
        try:
            model = transformers.AutoModel.from_config(inner, trust_remote_code=False)
        except ValueError as error:
            raise RequestError(
                f"architecture {inner.model_type!r}: {str(error).splitlines()[0][:120]}"
            ) from None
    return model, "encoder." if inner is not config else f"{model.base_model_prefix}."


def _embedded(model: Any) -> set[int]:
    return {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}


def select(
    config: Any, tensors: list[str], include: tuple[str, ...], exclude: tuple[str, ...]
) -> list[Prunable]:
    """The prunable ones among a file's tensors, in the order of their names.

    Args:
        config: the model's configuration.
        tensors: names in the file, with or without the backbone's prefix.
        include: shell patterns; where given, only tensors that match one are prunable.
        exclude: shell patterns; tensors that match one are not.

    Raises:
        RequestError: nothing is left.
    """
    prefix, known = backbone(config)
    found = []
    for name in sorted(tensors, key=lambda n: n.removeprefix(prefix)):
        bare = name.removeprefix(prefix)
        if bare not in known:
            continue
        names = (name, bare)
        if include and not any(fnmatchcase(n, p) for n in names for p in include):
            continue
        if any(fnmatchcase(n, p) for n in names for p in exclude):
            continue
        found.append(Prunable(name, known[bare]))
    if not found:
        chosen = f" with --include {' '.join(include)} --exclude {' '.join(exclude)}"
        raise RequestError(
            f"no prunable weights in this {config.model_type} model"
            + (chosen if include or exclude else "")
        )
    return found


def check_groups(
    shapes: dict[str, tuple[int, ...]], prunable: list[Prunable], m: int, flag: str, other: str
) -> None:
    """Refuse groups of M where a tensor's input width is not a multiple of M.

    Raises:
        RequestError: names the first such tensor and its width.
    """
    for tensor in prunable:
        width = shapes[tensor.name][tensor.input_dim]
        if width % m:
            raise RequestError(
                f"{flag}: {tensor.name} has {width} inputs, which groups of {m} do not divide; "
                f"leave it out with --exclude '{tensor.name}' or choose {other}"
            )
