"""Pruning and quantization: from a spec and a model to a folder and plain numbers.

Where the weights alone decide, tensors stream from file to file, one at a time. Where activations
do, blocks are treated one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jdna_cli.files import require_space, whole
from jdna_cli.models import model_files
from jdna_cli.pipelines.run_files import write_records
from jdna_cli.pruning import prunable, streaming
from jdna_cli.pruning.changes import Change
from jdna_cli.pruning.output import Beside, OutputFolder
from jdna_cli.pruning.plan import PrunePlan, plan_of
from jdna_cli.results import LayerSparsity, Measurement, Outcome, Planned
from jdna_cli.run_context import RunContext
from jdna_cli.sparsity import (
    allocation,
    masks,
    packing,
)
from jdna_cli.specs import ModelSource, PruneSpec

ALLOCATION = "allocation.toml"


def check_prune(spec: PruneSpec, source: ModelSource, data_dir: Path | None) -> PrunePlan:
    """`plan`, and whether the calibration data will do; nothing is computed.

    Raises:
        RequestError: says what is wrong.
    """
    found = plan_of(spec, source)
    if spec.calibration is not None:
        from jdna_cli.pruning import calibration

        gradients = found.criterion.needs == "gradients"
        calibration.prepare(spec, source, data_dir, gradients=gradients)
    return found


def planned(found: PrunePlan) -> list[Planned]:
    """Every tensor of the model's file, and why those that would not be pruned would not."""
    reasons = prunable.reasons(found.source.folder, list(found.stored))
    asked = "left out by --include or --exclude"
    return [
        Planned(
            name,
            entry.shape,
            None if name in found.chosen else reasons[name] or asked,
            found.targets[name].words if name in found.targets else None,
        )
        for name, entry in sorted(found.stored.items())
    ]


def prune(spec: PruneSpec, source: ModelSource, context: RunContext) -> Outcome:
    """Write `source` with the chosen weights set to zero, or rounded; all else as it was."""
    from jdna_cli.compute import devices
    from jdna_cli.pipelines import model_card

    context.phase("reading")
    found = check_prune(spec, source, context.data_dir)
    require_space(context.folder, model_files.size(found.files))
    if found.by_outliers:
        from jdna_cli.pruning import blockwise

        found = blockwise.with_targets_of_outliers(found, context)
    # What an earlier pruning took away stays away, wherever this one looks.
    earlier = {} if source.mask is None else masks.load(source.mask)
    layers: dict[str, LayerSparsity] = {}
    notes: list[str] = []
    packed_bits = removed = 0
    with whole(context.folder, context.confirm) as target:
        with OutputFolder(found, target) as folder, Beside(found, target, earlier) as beside:
            for change in _changes(found, context, notes, folder):
                entry = found.stored[change.name]
                kept = beside.add(change)
                removed += 0 if kept is None else kept.total - kept.kept
                if change.quantized is not None:
                    packed_bits += packing.rounded_bits(change.quantized, kept, entry.numel)
                elif change.mask is not None:
                    packed_bits += packing.sparse_bits(change.mask, 8 * entry.bytes_each)
                layers[change.name] = LayerSparsity(
                    change.name, entry.shape, change.left, entry.numel
                )
                folder.put(change, kept)
                if not found.blockwise:
                    context.progress("prune", len(layers), len(found.chosen), "")
        model_files.copy_companions(source.folder, target)
        outcome = Outcome(
            measurements=(*folder.sizes(), *_removed(found, removed)),
            layers=tuple(layers[name] for name in found.chosen),
            bits=spec.quantize or 8 * min(found.stored[n].bytes_each for n in found.chosen),
            bits_per_weight=packed_bits / sum(x.total for x in layers.values()),
            device=devices.name(devices.accelerator("no").device) if found.calibrated else "cpu",
            remark="; ".join(notes) or None,
            notes=tuple(notes),
        )
        if spec.allocation is not None:
            head = f"allocation {Path(spec.allocation).name}: what each tensor lost"
            (target / ALLOCATION).write_text(allocation.write(found.targets, head))
        write_records(target, spec, outcome)
        model_card.write(target, spec, outcome, source, None)
    return outcome


def _removed(plan: PrunePlan, count: int) -> tuple[Measurement, ...]:
    """How many of a rounded model's zeros were chosen to be, now or before."""
    if plan.grid is None or not count:
        return ()
    return (Measurement("model", "removed", count),)


def _changes(
    plan: PrunePlan, context: RunContext, notes: list[str], folder: OutputFolder
) -> Iterator[Change]:
    """What becomes of each chosen tensor, one after the other."""
    spec = plan.spec
    if plan.blockwise or plan.criterion.calibrated:
        from jdna_cli.pruning import blockwise
    if plan.blockwise and (plan.chosen_by_block or not spec.removes):
        return blockwise.changes(plan, context, notes, {})
    if not spec.removes:
        return streaming.rounded(plan)
    in_pieces = plan.criterion.parts == "same" and not spec.packed and plan.grid is None
    if in_pieces and spec.sparsity is not None and spec.scope == "global":
        return streaming.masked_in_pieces(plan, folder)
    statistics = blockwise.gathered(plan, context) if plan.criterion.calibrated else {}
    found = streaming.masked(plan, statistics)
    if not plan.blockwise:
        return found
    chosen = {change.name: change.mask for change in found if change.mask is not None}
    return blockwise.changes(plan, context, notes, chosen)
