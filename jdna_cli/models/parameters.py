"""A model's parameters by the names that files give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from jdna_cli.errors import JdnaError
from jdna_cli.models.experts import in_files


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters by the names that the model's file uses."""
    return dict(model.named_parameters())


def match_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
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
        for form in (name, in_files(whole.config, name)):
            own.setdefault(form.removeprefix(prefixes[0]), name)
    names_here = {}
    for name in names:
        bare = [name, *(name.removeprefix(prefix) for prefix in prefixes)]
        place = next((own[form] for form in bare if form in own), None)
        if place is None and ".pooler." in f".{name}":
            continue
        if place is None:
            raise JdnaError(f"tensor {name!r} of the mask has no weight in the model")
        names_here[name] = place
    return names_here
