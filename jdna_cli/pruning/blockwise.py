"""Pruning and rounding by activations: block after block, each knowing what its inputs have become.

As SparseGPT (Frantar and Alistarh 2023) and Wanda (Sun et al. 2023) do: the calibration samples run
up to a block, its matrices are settled, and the samples go on through the block as it is now. With
`--no-sequential` they go on through the block as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from jdna_cli.compute import devices
from jdna_cli.compute.devices import Placing
from jdna_cli.models.parameters import match_names, parameters_by_name
from jdna_cli.pruning import calibration
from jdna_cli.pruning.block_walk import Block, BlockTurn, BlockWalker, find
from jdna_cli.pruning.calibration import Activations, Samples
from jdna_cli.pruning.changes import Change, score_of
from jdna_cli.pruning.finished_blocks import FinishedBlocks
from jdna_cli.pruning.plan import PrunePlan, allotted
from jdna_cli.run_context import RunContext
from jdna_cli.sparsity import (
    allocation,
    compensation,
    masks,
    patterns,
    quantization,
    safetensors_io,
)
from jdna_cli.sparsity.criteria import Statistics, wanda
from jdna_cli.sparsity.masks import Mask
from jdna_cli.sparsity.parallel import each_on_one_thread

LONG = 600.0  # seconds that are worth a word
FEW_SAMPLES = 32  # what Wanda and SparseGPT lose little with


def _loaded(
    plan: PrunePlan, context: RunContext, *, gradients: bool
) -> tuple[nn.Module, torch.device, Samples]:
    """The model on the CPU, in evaluation mode, the device to compute on, and its samples."""
    samples = calibration.prepare(plan.spec, plan.source, context.data_dir, gradients=gradients)
    return (*_model_of(samples), samples)


def _model_of(samples: Samples) -> tuple[nn.Module, torch.device]:
    device = devices.accelerator("no").device
    # A large model is held in its files' own type, as the papers do; a CPU computes in float32.
    placing = Placing("float32" if device.type == "cpu" else "auto")
    model = samples.load(placing)
    model.eval()
    return model, device


def _parameters(plan: PrunePlan, model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """By name in the file: name in the model, and the parameter there."""
    own = parameters_by_name(model)
    names = match_names(model, plan.chosen)
    for name in plan.chosen:
        if name not in names:
            raise calibration.unreached(name)
    return {name: (there, own[there]) for name, there in names.items()}


def with_targets_of_outliers(plan: PrunePlan, context: RunContext) -> PrunePlan:
    """The plan with what each tensor is to lose by OWL: all of a block alike, by its outliers.

    Outliers are those of the model as it was, whatever becomes of it: Yin et al. 2024, section 3.2.
    """
    model, device, samples = _loaded(plan, context, gradients=False)
    names = {there: name for name, (there, _) in _parameters(plan, model).items()}
    blocks = find(model, list(names))
    outliers, sizes = [], []
    for i, (block, step) in enumerate(
        BlockWalker(model, blocks, samples.passes(model, device), device)
    ):
        seen = _seen(step, products=False, keep=True)
        scores = []
        for there in block.chosen:
            name = names[there]
            known = _on_cpu(_told(plan, seen, there, name, samples))
            weight = safetensors_io.read(plan.stored[name])
            scores.append(wanda.score(weight, known).abs_().flatten())
        mean = sum(float(x.double().sum()) for x in scores) / sum(x.numel() for x in scores)
        above = sum(int((x > allocation.OUTLIER * mean).sum()) for x in scores)
        sizes.append(sum(x.numel() for x in scores))
        outliers.append(above / sizes[-1])
        context.progress("outliers", i + 1, len(blocks), "")
    of_block = allocation.owl(outliers, sizes, plan.sparsity)
    shares = {
        names[there]: share
        for block, share in zip(blocks, of_block, strict=True)
        for there in block.chosen
    }
    shapes = {name: plan.stored[name].shape for name in plan.chosen}
    return replace(plan, targets=allotted(plan.spec, shapes, {n: shares[n] for n in shapes}))


def gathered(plan: PrunePlan, context: RunContext) -> dict[str, Statistics]:
    """What the criterion is told of every chosen tensor, of the model as it is."""
    model, device, samples = _loaded(plan, context, gradients=plan.gradients)
    own = _parameters(plan, model)
    told = context.progress
    if plan.gradients:
        model.to(device)
        chosen = {name: parameter for name, (_, parameter) in own.items()}
        return dict(calibration.gradients(model, chosen, samples, device, told))
    names = {there: name for name, (there, _) in own.items()}
    known: dict[str, Statistics] = {}
    blocks = find(model, list(names))
    for i, (block, step) in enumerate(
        BlockWalker(model, blocks, samples.passes(model, device), device)
    ):
        seen = _seen(step, products=plan.criterion.needs == "gram", keep=True)
        for there in block.chosen:
            known[names[there]] = _told(plan, seen, there, names[there], samples)
        told("calibrate", i + 1, len(blocks), "")
    return known


def _seen(step: BlockTurn, *, products: bool, keep: bool) -> Activations:
    """What the inputs of a block's matrices are."""
    seen = Activations(products=products)
    step.observe(seen.see, keep=keep)
    if seen.torn:
        seen = Activations(products=products)
        step.observe(lambda name, inputs: seen.see(name, inputs.view_as(inputs)), keep=keep)
    return seen


def _told(
    plan: PrunePlan, seen: Activations, there: str, name: str, samples: Samples
) -> Statistics:
    return seen.told(there, name, plan.chosen[name], plan.spec.pruning_seed, samples.count)


def changes(
    plan: PrunePlan, context: RunContext, notes: list[str], chosen: Mapping[str, Mask]
) -> Iterator[Change]:
    """What becomes of each chosen tensor, block by block; finished blocks are not settled again.

    Args:
        plan: the pruning.
        context: where data and finished blocks are, and who is told how far it is.
        notes: gets what was done otherwise than usual: a damping that had to be raised.
        chosen: what is kept, where that was chosen before any block is looked at.
    """
    model, device, samples = _loaded(plan, context, gradients=False)
    names = {there: name for name, (there, _) in _parameters(plan, model).items()}
    blocks = find(model, list(names))
    moves = plan.criterion.prune_layer is not None or plan.grid is not None
    original = None if moves else lambda name: safetensors_io.read(plan.stored[name])
    finished = FinishedBlocks(context.work, context.fingerprint, plan.grid, original)
    began = time.monotonic()
    for i, (block, step) in enumerate(
        BlockWalker(model, blocks, samples.passes(model, device), device)
    ):
        known = finished.load(i)
        if known is not None:
            own, told = known
            if not plan.spec.sequential:
                step.observe(lambda name, inputs: None, keep=True)
        else:
            own, told = _of_block(plan, block, step, names, samples, device, chosen)
            finished.save(i, own, told)
        places = {names[there]: there for there in block.chosen}
        for change in own:
            assert change.tensor is not None
            step.put(places[change.name], change.tensor)
            yield change
        notes += told
        note = _long(plan, (time.monotonic() - began) * len(blocks)) if i == 0 else ""
        context.progress("prune", i + 1, len(blocks), note)


def _long(plan: PrunePlan, seconds: float) -> str:
    """What to say of a calibration that will take long, and how it would take less."""
    samples = plan.spec.calibration_samples
    if seconds < LONG or samples < 2 * FEW_SAMPLES:
        return ""
    return (
        f"{samples} × {plan.spec.calibration_length} tokens take about {seconds / 60:.0f} minutes, "
        f"--calibration-samples {FEW_SAMPLES} about {seconds / 60 * FEW_SAMPLES / samples:.0f}"
    )


def _of_block(
    plan: PrunePlan,
    block: Block,
    step: BlockTurn,
    names: dict[str, str],
    samples: Samples,
    device: torch.device,
    chosen: Mapping[str, Mask],
) -> tuple[list[Change], list[str]]:
    """What becomes of one block's matrices, all by the block as it was, and what to say of it."""
    seen = _seen(step, products=plan.needs_products, keep=not plan.spec.sequential)
    own = {names[there]: _told(plan, seen, there, names[there], samples) for there in block.chosen}
    few = [
        x.tokens for name, x in own.items() if ".experts." in name and x.tokens < _width(plan, name)
    ]

    def settle(name: str) -> tuple[Change, list[str]]:
        told: list[str] = []
        return settled(plan, name, own[name], device, told, chosen.get(name)), told

    by_column = device.type == "cpu" and plan.needs_products
    done = each_on_one_thread(settle, own) if by_column else [settle(name) for name in own]
    found, notes = [change for change, _ in done], [note for _, told in done for note in told]
    if few:
        notes.append(
            f"{block.name}: {len(few)} matrices of experts saw fewer tokens than they have inputs, "
            f"{min(few)} the fewest: more --calibration-samples would reach them"
        )
    return found, notes


def _width(plan: PrunePlan, name: str) -> int:
    return plan.stored[name].shape[plan.chosen[name]]


def settled(
    plan: PrunePlan,
    name: str,
    statistics: Statistics,
    device: torch.device,
    notes: list[str],
    chosen: Mask | None = None,
) -> Change:
    """One tensor pruned, rounded, or both, by its statistics; its file's values are the start."""
    spec, input_dim, grid = plan.spec, plan.chosen[name], plan.grid
    weight = safetensors_io.read(plan.stored[name])

    def turned(tensor: Tensor) -> Tensor:
        return tensor if input_dim == 1 else tensor.T.contiguous()

    if plan.criterion.prune_layer is not None:
        own = turned(weight).to(device)
        pruned = plan.criterion.prune_layer(own, statistics, plan.targets[name], grid)
        _note(notes, name, pruned.damping)
        found = pruned.weight if pruned.quantized is None else pruned.quantized.decoded()
        mask = masks.pack(turned(pruned.kept))
        return Change(name, turned(found).cpu().to(weight.dtype), mask, pruned.quantized)
    kept = chosen
    if kept is None and spec.removes:
        score = score_of(plan.criterion, weight, _on_cpu(statistics))
        kept = patterns.alone(
            patterns.Scored(name, score, input_dim), plan.targets[name], spec.scope
        )
    if kept is not None:
        masks.clear_(weight, kept)
    if grid is None:
        return Change(name, weight, kept)
    own = turned(weight).to(device)
    if spec.rounding == "nearest":
        done = quantization.nearest(own, grid, name)
    else:
        assert statistics.gram is not None
        factor = compensation.factor(statistics.gram, name)
        _note(notes, name, factor.damping)
        done = quantization.compensated(own, factor, grid, name)
    return Change(name, turned(done.decoded()).cpu(), kept, done)


def _note(notes: list[str], name: str, damping: float) -> None:
    if damping > compensation.DAMPING:
        notes.append(f"{name}: damping raised to {damping:g} of the mean diagonal")


def _on_cpu(statistics: Statistics) -> Statistics:
    norm, gram = statistics.input_norm, statistics.gram
    return replace(
        statistics,
        input_norm=None if norm is None else norm.cpu(),
        gram=None if gram is None else gram.cpu(),
    )
