"""Pruning: which weights of a model go, planned from its names and shapes, and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from jdna_cli.engine import models, prunable
from jdna_cli.engine.files import require_space, whole
from jdna_cli.engine.place import Place, write_records
from jdna_cli.errors import RequestError
from jdna_cli.results import LayerSparsity, Outcome, Planned
from jdna_cli.sparsity import criteria, masks, patterns
from jdna_cli.sparsity.masks import Mask
from jdna_cli.specs import ModelSource, PruneSpec, parse_pattern


def check_prune(spec: PruneSpec, source: ModelSource) -> list[prunable.Prunable]:
    """The tensors that `spec` would prune in `source`, from names and shapes alone.

    Raises:
        RequestError: there are none, the pattern fits one of them not, or the criterion is unknown.
    """
    shapes, config = _described(source)
    criteria.load(spec.criterion)
    if spec.pattern and spec.scope != "global":
        raise RequestError(f"--scope: {spec.pattern} competes within groups, it has no scope")
    chosen = prunable.select(config, list(shapes), spec.include, spec.exclude)
    if spec.pattern:
        prunable.check_pattern(shapes, chosen, parse_pattern(spec.pattern)[1])
    return chosen


def plan_prune(spec: PruneSpec, source: ModelSource) -> list[Planned]:
    """Every tensor of the model's file, and why those that would not be pruned would not."""
    chosen = {tensor.name for tensor in check_prune(spec, source)}
    shapes, config = _described(source)
    reasons = prunable.reasons(config, list(shapes))
    asked = "left out by --include or --exclude"
    return [
        Planned(name, shape, None if name in chosen else reasons[name] or asked)
        for name, shape in sorted(shapes.items())
    ]


def _described(source: ModelSource) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Shapes of all tensors of a model's files, and its configuration."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in models.weight_files(source.folder):
        with safe_open(file, framework="pt") as handle:
            shapes |= {n: tuple(handle.get_slice(n).get_shape()) for n in handle.keys()}  # noqa: SIM118
    return shapes, models.config_of(source.folder)


def prune(spec: PruneSpec, source: ModelSource, place: Place) -> Outcome:
    """Write `source` with the chosen weights set to zero; every other byte of it as it was."""
    chosen = check_prune(spec, source)
    files = models.weight_files(source.folder)
    require_space(place.folder, models.size(files))
    with ExitStack() as stack:
        handles = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        where = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
        found = choose_masks(spec, chosen, where)
        with whole(place.folder) as target:
            for file, handle in zip(files, handles, strict=True):
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
                for name in tensors.keys() & found.keys():
                    tensors[name] = tensors[name].clone(memory_format=torch.contiguous_format)
                    masks.clear_(tensors[name], found[name])
                save_file(tensors, target / file.name, metadata=handle.metadata())
            bits = 8 * min(where[p.name].get_tensor(p.name).element_size() for p in chosen)
            models.copy_companions(source.folder, target)
            if (index := source.folder / models.INDEX).is_file():
                (target / models.INDEX).write_bytes(index.read_bytes())
            masks.save(found, target / "mask.safetensors")
            layers = tuple(_layer(name, mask) for name, mask in found.items())
            outcome = Outcome(layers=layers, bits=bits, device="cpu")
            write_records(target, spec, outcome)
    return outcome


def choose_masks(
    spec: PruneSpec, chosen: list[prunable.Prunable], where: dict[str, Any]
) -> dict[str, Mask]:
    """Score the chosen tensors by the criterion, and turn scores into masks by the pattern."""
    criterion = criteria.load(spec.criterion)

    def scored() -> Iterator[patterns.Scored]:
        for tensor in chosen:
            weight: Tensor = where[tensor.name].get_tensor(tensor.name)
            score = criterion.score(weight, criteria.Statistics(tensor.name))
            yield patterns.Scored(tensor.name, score, tensor.input_dim)

    if spec.pattern:
        return patterns.n_of_m(scored, *parse_pattern(spec.pattern))
    assert spec.sparsity is not None
    return patterns.unstructured(scored, spec.sparsity, spec.scope)


def _layer(name: str, mask: Mask) -> LayerSparsity:
    return LayerSparsity(name, mask.shape, mask.kept, mask.total)
