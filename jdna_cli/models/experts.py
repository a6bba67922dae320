"""Mixtures of experts: fused in memory by transformers, a matrix for each expert here and in files.

Transformers joins the matrices of all experts of a layer into two tensors of three dimensions.
Here each expert is a module with linear layers of its own again, by the names that its files have,
so that it is pruned, masked and calibrated as any other matrix: its layers see the tokens that are
routed to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Expert(nn.Module):
    """One expert: down(act(gate(x)) · up(x))."""

    def __init__(self, names: tuple[str, str, str], act: Any, layers: tuple[nn.Linear, ...]):
        super().__init__()
        self._names, self._act = names, act
        for name, layer in zip(names, layers, strict=True):
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Of tokens (n, hidden), n may be 0."""
        gate, up, down = (self.get_submodule(name) for name in self._names)
        found: Tensor = down(self._act(gate(x)) * up(x))
        return found


class Experts(nn.ModuleList):
    """All experts of a layer, each with the tokens that are routed to it."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The weighted sum over each token's experts: (tokens, hidden).

        Args:
            hidden_states: (tokens, hidden).
            top_k_index: (tokens, k), numbers of experts.
            top_k_weights: (tokens, k).
        """
        found = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            token, place = torch.where(top_k_index == number)
            told = expert(hidden_states[token]) * top_k_weights[token, place, None]
            found.index_add_(0, token, told.to(found.dtype))
        return found


def part_(model: Any) -> None:
    """Part the fused experts of a model, in place; one layer at a time is in memory twice.

    What is fused otherwise than as gate, up and down without biases is left as it is.
    """
    for layer, module in list(model.named_modules()):
        if not _is_fused(module):
            continue
        names = _names(model, layer)
        if names is None:
            continue
        gate_up, down = module.gate_up_proj.detach(), module.down_proj.detach()
        width = gate_up.shape[1] // 2
        experts = Experts(
            Expert(names, module.act_fn, tuple(map(_linear, (g[:width], g[width:], d))))
            for g, d in zip(gate_up, down, strict=True)
        )
        experts.train(module.training)
        above, _, own = layer.rpartition(".")
        setattr(model.get_submodule(above), own, experts)


def _is_fused(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    plain = set(own) == {"gate_up_proj", "down_proj"} and all(p.ndim == 3 for p in own.values())
    usual = not any(getattr(module, flag, False) for flag in ("is_transposed", "has_bias"))
    same = plain and own["gate_up_proj"].shape[1] == 2 * own["down_proj"].shape[2]
    return same and usual and hasattr(module, "act_fn") and not hasattr(module, "limit")


def _linear(weight: Tensor) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def _names(model: Any, layer: str) -> tuple[str, str, str] | None:
    """What files call an expert's gate, up and down; None where they keep experts fused too."""
    found: dict[str, list[str]] = {}
    for one in _conversions(model.config):
        for target in one.target_patterns:
            if ".experts.*." in "".join(f".{p}" for p in one.source_patterns):
                found[target.rpartition(".")[2]] = [
                    p.partition("experts.*.")[2].removesuffix(".weight")
                    for p in one.source_patterns
                ]
    gate_up, down = found.get("gate_up_proj", []), found.get("down_proj", [])
    if len(gate_up) != 2 or len(down) != 1:
        return None
    return gate_up[0], gate_up[1], down[0]


def in_files(config: Any, name: str) -> str:
    """What files call a parameter of a mixture of experts; other models' are called alike."""
    if not any("experts" in p for one in _conversions(config) for p in one.source_patterns):
        return name
    for one in _conversions(config):
        if type(one).__name__ == "WeightRenaming":
            (source,), (target,) = one.source_patterns, one.target_patterns
            if source.replace(".", "").replace("_", "").isalnum():
                name = f".{name}".replace(target, source).removeprefix(".")
    return name


def _conversions(config: Any) -> list[Any]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    return get_checkpoint_conversion_mapping(config.model_type) or []
