"""Low-rank adapters: a few weights train beside each matrix, and are added to it at the end.

W + s · B A, with A (rank, in) and B (out, rank): Hu et al. 2021 (arXiv 2106.09685), by the layers
of the library peft. Where a regime holds weights, the product counts under its mask, in training
as afterwards: a weight that was pruned stays exactly zero, and what is merged is what was trained.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.errors import RequestError
from jdna_cli.models import model_files
from jdna_cli.pruning import prunable
from jdna_cli.sparsity import safetensors_io
from jdna_cli.sparsity.masks import Mask
from jdna_cli.specs import FinetuneSpec

NAME = "default"  # that peft gives an only adapter


def targets(spec: FinetuneSpec, folder: Path) -> list[str]:
    """Names in the file of the matrices that get an adapter: all prunable ones, or those asked for.

    Raises:
        RequestError: peft is not there, or a pattern matches nothing.
    """
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError:
        raise RequestError("--lora needs the extra `lora`: pip install 'jdna[lora]'") from None
    stored = safetensors_io.entries(model_files.weight_files(folder))
    names = [tensor.name for tensor in prunable.select(folder, list(stored), (), ())]
    if not spec.lora_targets:
        return names
    chosen: list[str] = []
    for pattern in spec.lora_targets:
        found = [n for n in names if _matches(n.removesuffix(".weight"), pattern)]
        if not found:
            raise RequestError(
                f"--lora-targets: {pattern!r} matches none of the {len(names)} matrices, as "
                f"{names[0].removesuffix('.weight')}"
            )
        chosen += [name for name in found if name not in chosen]
    return chosen


def _matches(module: str, pattern: str) -> bool:
    """A shell pattern of the whole name, or of its end, as in `q_proj` or `attention.*`."""
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


class Adapters:
    """The adapters of one model in training."""

    def __init__(
        self,
        model: nn.Module,
        spec: FinetuneSpec,
        names: list[str],
        free: Mapping[str, Mask],
        head: list[str],
    ) -> None:
        """Put an adapter beside each matrix; from now on they alone train, and the head.

        Args:
            model: on its device; changed in place, until `merge`.
            spec: rank and alpha.
            names: parameters of the model that get one.
            free: of those whose regime holds some of their weights: which ones may change.
            head: parameters that train in full, because they were never trained before.
        """
        from peft import LoraConfig, inject_adapter_in_model

        assert spec.lora is not None
        assert spec.lora_alpha is not None
        modules = [name.removesuffix(".weight") for name in names]
        own = dict(model.named_modules())
        turned = isinstance(own[modules[0]], _conv1d())
        self._config = LoraConfig(
            r=spec.lora, lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]
            target_modules=list(modules), lora_dropout=0.0, bias="none", fan_in_fan_out=turned,
        )  # fmt: skip
        inject_adapter_in_model(self._config, model)
        self._model = model
        layers = dict(model.named_modules())
        self._layers: dict[str, Any] = {name: layers[name] for name in modules}
        self._free: dict[str, Tensor] = {}
        for name, module in zip(names, modules, strict=True):
            if name in free:
                layer = self._layers[module]
                kept = free[name].unpacked().to(layer.base_layer.weight.device)
                self._free[module] = kept
                layer.forward = functools.partial(_forward, layer, kept)
        parameters = dict(model.named_parameters())
        for name in head:
            parameters[name].requires_grad_(True)

    @property
    def trainable(self) -> int:
        """Numbers that train."""
        return sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    def save(self, folder: Path, base: str) -> None:
        """Write the adapters alone, as peft reads them; `base` names the model they belong to."""
        from safetensors.torch import save_file

        folder.mkdir()
        self._config.base_model_name_or_path = base
        self._config.save_pretrained(str(folder))
        tensors = {}
        for name, layer in self._layers.items():
            for part in ("lora_A", "lora_B"):
                weight = getattr(layer, part)[NAME].weight
                tensors[f"base_model.model.{name}.{part}.weight"] = weight.detach().cpu().clone()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def merge(self) -> None:
        """Add each product to its matrix, under its mask, and take the adapters out."""
        modules = dict(self._model.named_modules())
        with torch.no_grad():
            for name, layer in self._layers.items():
                base = layer.base_layer
                base.weight.copy_(_weight(layer, self._free.get(name)))
                parent, _, last = name.rpartition(".")
                setattr(modules[parent], last, base)


def _conv1d() -> type:
    from transformers.pytorch_utils import Conv1D

    found: type = Conv1D
    return found


def _weight(layer: Any, free: Tensor | None) -> Tensor:
    """W + s · B A, in the layout of W; where some weights are held, under their mask."""
    product: Tensor = layer.get_delta_weight(NAME)
    weight: Tensor = layer.base_layer.weight
    # Chosen, not multiplied: what is held keeps its bits, the sign of its zero too.
    return weight + product if free is None else torch.where(free, weight + product, weight)


def _forward(layer: Any, free: Tensor, inputs: Tensor) -> Tensor:
    """What the merged matrix would give."""
    weight, base = _weight(layer, free), layer.base_layer
    if isinstance(base, nn.Linear):
        return nn.functional.linear(inputs, weight, base.bias)
    # transformers' Conv1D: (in, out), as GPT-2 has it.
    outputs: Tensor = inputs @ weight + base.bias
    return outputs
