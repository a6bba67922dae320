"""What a pruning is to do, from a model's names and shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jdna_cli.errors import RequestError
from jdna_cli.models import model_files
from jdna_cli.pruning import prunable
from jdna_cli.sparsity import (
    criteria,
    safetensors_io,
)
from jdna_cli.sparsity.criteria import Criterion
from jdna_cli.sparsity.quantization import Grid
from jdna_cli.sparsity.safetensors_io import Entry
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

    @property
    def gradients(self) -> bool:
        """Whether the loss has to be differentiated."""
        return self.criterion.needs == "gradients"

    @property
    def blockwise(self) -> bool:
        """Whether a block is settled before the next one is looked at."""
        spec = self.spec
        within = spec.pattern is not None or spec.scope != "global"
        return spec.rounding == "gptq" or (
            self.criterion.needs in ("activations", "gram") and within
        )

    @cached_property
    def grid(self) -> Grid:
        """The values that a quantisation rounds to."""
        spec = self.spec
        assert spec.quantize is not None
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
    chosen = prunable.select(source.folder, list(stored), spec.include, spec.exclude)
    shapes = {tensor.name: stored[tensor.name].shape for tensor in chosen}
    _check_types(spec, {tensor.name: stored[tensor.name].dtype for tensor in chosen})
    if spec.pattern:
        m = parse_pattern(spec.pattern)[1]
        prunable.check_groups(shapes, chosen, m, "--pattern", "another M")
    if spec.group_size:
        prunable.check_groups(shapes, chosen, spec.group_size, "--group-size", "another size")
    return PrunePlan(spec, source, files, stored, criterion, {t.name: t.input_dim for t in chosen})


def _check_types(spec: PruneSpec, types: dict[str, str]) -> None:
    known = {"F32", "F16", "BF16", *(("F64",) if spec.quantize else ())}
    for name, own in types.items():
        if own not in known:
            raise RequestError(
                f"{name} is stored as {own}, which cannot be pruned or rounded: convert the model "
                "to float32, float16 or bfloat16 first"
            )


def _check_scope(spec: PruneSpec, criterion: criteria.Criterion) -> None:
    if (spec.pattern or spec.quantize) and spec.scope != "global":
        what = spec.pattern or "--quantize"
        raise RequestError(f"--scope: {what} competes within groups, it has no scope")
    if criterion.prune_layer and spec.sparsity is not None and spec.scope != criterion.scope:
        raise RequestError(
            f"--scope: {criterion.name} chooses while it changes a tensor, its scope is "
            f"{criterion.scope}, not {spec.scope}"
        )


def _check_calibration(spec: PruneSpec, criterion: criteria.Criterion) -> None:
    needed = criterion.calibrated or spec.rounding == "gptq"
    what = "--rounding gptq" if spec.rounding == "gptq" else f"criterion {criterion.name!r}"
    if needed and spec.calibration is None:
        raise RequestError(f"{what} needs calibration data: --calibration TASK or FILE")
    if not needed and spec.calibration is not None:
        raise RequestError(f"--calibration: {what} makes no use of calibration data")
