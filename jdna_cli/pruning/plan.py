"""What a pruning is to do, from a model's names and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jdna_cli.errors import RequestError
from jdna_cli.models import model_files
from jdna_cli.pruning import prunable
from jdna_cli.sparsity import allocation, criteria, safetensors_io
from jdna_cli.sparsity.criteria import Criterion
from jdna_cli.sparsity.quantization import Grid
from jdna_cli.sparsity.safetensors_io import Entry
from jdna_cli.sparsity.targets import Target
from jdna_cli.specs import ModelSource, PruneSpec, parse_pattern


@dataclass(frozen=True)
class PrunePlan:
    """A pruning that fits its model."""

    spec: PruneSpec
    source: ModelSource
    files: list[Path]
    stored: dict[str, Entry]  # every tensor of the files
    criterion: Criterion
    chosen: dict[str, int]  # names of the prunable ones, and their input dimension
    # What each of them is to lose; empty where scores compete over the whole model, or that is
    # known only when activations have been seen.
    targets: Mapping[str, Target] = field(default_factory=dict)

    @property
    def by_outliers(self) -> bool:
        """Whether what a tensor loses depends on the activations of its block."""
        return self.spec.allocation == allocation.OWL

    @property
    def sparsity(self) -> float:
        """Of all prunable weights together, as asked."""
        groups = parse_pattern(self.spec.pattern) if self.spec.pattern else (0, 0)
        return Target(self.spec.sparsity, groups).share

    @property
    def calibrated(self) -> bool:
        """Whether the model is run on calibration data."""
        return self.spec.calibration is not None

    @property
    def gradients(self) -> bool:
        """Whether the loss has to be differentiated."""
        return self.criterion.needs == "gradients"

    @property
    def chosen_by_block(self) -> bool:
        """Whether a block's weights are chosen when its inputs are known."""
        within = self.spec.pattern is not None or self.spec.scope != "global"
        return self.criterion.needs in ("activations", "gram") and within

    @property
    def blockwise(self) -> bool:
        """Whether a block is settled before the next one is looked at."""
        return self.spec.rounding == "gptq" or self.chosen_by_block

    @property
    def needs_products(self) -> bool:
        """Whether the products of a matrix's inputs with each other are needed."""
        return self.spec.rounding == "gptq" or self.criterion.needs == "gram"

    @cached_property
    def grid(self) -> Grid | None:
        """The values that weights are rounded to; None where they are not."""
        spec = self.spec
        if spec.quantize is None:
            return None
        return Grid(spec.quantize, spec.asymmetric, spec.granularity, spec.group_size)


def plan_of(spec: PruneSpec, source: ModelSource) -> PrunePlan:
    """What `spec` would touch in `source`, from names and shapes alone.

    Raises:
        RequestError: nothing, or the pattern, group or scope does not fit, or the criterion is
            unknown, or wants for calibration data or has no use for them.
    """
    files = model_files.weight_files(source.folder)
    stored = safetensors_io.entries(files)
    criterion = criteria.load(spec.criterion)
    _check_scope(spec, criterion)
    _check_calibration(spec, criterion)
    file = allocation.read(spec.allocation) if allocation.is_file(spec.allocation) else None
    chosen = prunable.select(source.folder, list(stored), spec.include, spec.exclude)
    shapes = {tensor.name: stored[tensor.name].shape for tensor in chosen}
    prunable.check_shapes(source, shapes)
    _check_types(spec, {tensor.name: stored[tensor.name].dtype for tensor in chosen})
    if spec.pattern:
        m = parse_pattern(spec.pattern)[1]
        prunable.check_groups(shapes, chosen, m, "--pattern", "another M")
    if spec.group_size:
        prunable.check_groups(shapes, chosen, spec.group_size, "--group-size", "another size")
    targets = _targets(spec, shapes, file)
    for name, target in targets.items():
        if m := target.groups[1]:
            own = [tensor for tensor in chosen if tensor.name == name]
            prunable.check_groups(shapes, own, m, f"--allocation, {name}", "another M")
    dims = {tensor.name: tensor.input_dim for tensor in chosen}
    return PrunePlan(spec, source, files, stored, criterion, dims, targets)


def _targets(
    spec: PruneSpec, shapes: Mapping[str, tuple[int, ...]], file: allocation.File | None
) -> dict[str, Target]:
    """What each tensor is to lose, as far as names and shapes say."""
    if not spec.removes or (spec.sparsity is not None and spec.scope == "global"):
        return {}
    pattern = parse_pattern(spec.pattern) if spec.pattern else None
    same = Target(spec.sparsity, pattern or (0, 0))
    if spec.allocation == allocation.OWL:
        return {}
    if file is not None:
        return file.targets(shapes, spec.sparsity, same if pattern else None)
    if spec.allocation == allocation.ERK:
        return allotted(spec, shapes, allocation.erk(shapes, same.share))
    return dict.fromkeys(shapes, same)


def allotted(
    spec: PruneSpec, shapes: Mapping[str, tuple[int, ...]], shares: Mapping[str, float]
) -> dict[str, Target]:
    """Targets of given sparsities: exact counts, or an N for each tensor where N:M was asked."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if spec.pattern:
        return allocation.groups(shares, sizes, *parse_pattern(spec.pattern))
    assert spec.sparsity is not None
    return allocation.exactly(shares, sizes, spec.sparsity)


def _check_types(spec: PruneSpec, types: dict[str, str]) -> None:
    known = {"F32", "F16", "BF16", *(() if spec.removes else ("F64",))}
    for name, own in types.items():
        if own not in known:
            raise RequestError(
                f"{name} is stored as {own}, which cannot be pruned or rounded: convert the model "
                "to float32, float16 or bfloat16 first"
            )


def _check_scope(spec: PruneSpec, criterion: criteria.Criterion) -> None:
    if spec.sparsity is None and spec.scope != "global":
        what = spec.pattern or "--quantize"
        raise RequestError(f"--scope: {what} competes within groups, it has no scope")
    if criterion.prune_layer and spec.sparsity is not None and spec.scope != criterion.scope:
        raise RequestError(
            f"--scope: {criterion.name} chooses while it changes a tensor, its scope is "
            f"{criterion.scope}, not {spec.scope}"
        )
    if spec.allocation is not None and spec.sparsity is not None and spec.scope == "global":
        raise RequestError(
            f"--scope: --allocation {spec.allocation} says how much each tensor loses: layer or row"
        )


def _check_calibration(spec: PruneSpec, criterion: criteria.Criterion) -> None:
    by_outliers = spec.allocation == allocation.OWL
    needed = criterion.calibrated or spec.rounding == "gptq" or by_outliers
    what = "--rounding gptq" if spec.rounding == "gptq" else f"criterion {criterion.name!r}"
    what = "--allocation owl" if by_outliers and not criterion.calibrated else what
    if needed and spec.calibration is None:
        raise RequestError(f"{what} needs calibration data: --calibration TASK or FILE")
    if not needed and spec.calibration is not None:
        raise RequestError(f"--calibration: {what} makes no use of calibration data")
