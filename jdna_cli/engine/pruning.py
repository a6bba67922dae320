"""Pruning and quantisation: planned from a model's names and shapes, and written.

Where the weights alone decide, tensors stream from file to file, one at a time. Where activations
do, blocks are treated one after the other (`blockwise`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import torch

from jdna_cli.engine import models, prunable
from jdna_cli.engine.changes import Change, Plan, score_of
from jdna_cli.engine.files import require_space, whole
from jdna_cli.engine.packed import Folder
from jdna_cli.engine.place import Place, write_records
from jdna_cli.errors import RequestError
from jdna_cli.results import LayerSparsity, Outcome, Planned
from jdna_cli.sparsity import criteria, masks, packing, patterns, quantization, selection, streams
from jdna_cli.sparsity.ahead import ahead
from jdna_cli.sparsity.criteria import Statistics
from jdna_cli.specs import ModelSource, PruneSpec, parse_pattern

LARGE = 1 << 24  # weights; of a larger model parts alone are read to know about where the cutoff is
STRETCH, STRETCHES = 64, 1 << 14
PIECE = 1 << 20  # weights; a multiple of 8, so that bits of masks can be joined


def plan(spec: PruneSpec, source: ModelSource) -> Plan:
    """What `spec` would touch in `source`, from names and shapes alone.

    Raises:
        RequestError: nothing, or the pattern, group or scope does not fit, or the criterion is
            unknown, or wants for calibration data or has no use for them.
    """
    files = models.weight_files(source.folder)
    stored = streams.entries(files)
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
    return Plan(spec, source, files, stored, criterion, {t.name: t.input_dim for t in chosen})


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


def check_prune(spec: PruneSpec, source: ModelSource, data_dir: Path | None) -> Plan:
    """`plan`, and whether the calibration data will do; nothing is computed.

    Raises:
        RequestError: says what is wrong.
    """
    found = plan(spec, source)
    if spec.calibration is not None:
        from jdna_cli.engine import calibration

        gradients = found.criterion.needs == "gradients"
        calibration.prepare(spec, source, data_dir, gradients=gradients)
    return found


def plan_prune(spec: PruneSpec, source: ModelSource, data_dir: Path | None) -> list[Planned]:
    """Every tensor of the model's file, and why those that would not be pruned would not."""
    found = check_prune(spec, source, data_dir)
    reasons = prunable.reasons(source.folder, list(found.stored))
    asked = "left out by --include or --exclude"
    return [
        Planned(name, entry.shape, None if name in found.chosen else reasons[name] or asked)
        for name, entry in sorted(found.stored.items())
    ]


def prune(spec: PruneSpec, source: ModelSource, place: Place) -> Outcome:
    """Write `source` with the chosen weights set to zero, or rounded; all else as it was."""
    from jdna_cli.engine import card, devices

    place.surroundings.phase("reading")
    found = check_prune(spec, source, place.data_dir)
    require_space(place.folder, models.size(found.files))
    # What an earlier pruning took away stays away, wherever this one looks.
    earlier = {} if source.mask is None or spec.quantize else masks.load(source.mask)
    layers: dict[str, LayerSparsity] = {}
    notes: list[str] = []
    packed_bits = 0
    with whole(place.folder) as target:
        with Folder(found, target) as folder, _beside(found, target, earlier) as beside:
            for change in _changes(found, place, notes, folder):
                entry = found.stored[change.name]
                if change.quantized is not None:
                    own = change.quantized
                    quantization.add(beside, change.name, own)
                    packed_bits += packing.codes_bits(entry.numel, own.grid, own.scales, own.zeros)
                elif change.mask is not None:
                    before = earlier.pop(change.name, None)
                    kept = change.mask if before is None else masks.both(change.mask, before)
                    masks.add(beside, change.name, kept)
                    packed_bits += packing.sparse_bits(change.mask, 8 * entry.bytes_each)
                layers[change.name] = LayerSparsity(
                    change.name, entry.shape, change.left, entry.numel
                )
                folder.put(change)
                if not found.blockwise:
                    place.surroundings.progress("prune", len(layers), len(found.chosen), "")
            for name, mask in earlier.items():
                masks.add(beside, name, mask)
        models.copy_companions(source.folder, target)
        computed = found.blockwise or found.criterion.calibrated
        outcome = Outcome(
            measurements=folder.sizes(),
            layers=tuple(layers[name] for name in found.chosen),
            bits=spec.quantize or 8 * min(found.stored[n].bytes_each for n in found.chosen),
            bits_per_weight=packed_bits / sum(x.total for x in layers.values()),
            device=devices.name(devices.accelerator("no").device) if computed else "cpu",
            remark="; ".join(notes) or None,
            notes=tuple(notes),
        )
        write_records(target, spec, outcome)
        card.write(target, spec, outcome, source, None)
    return outcome


def _beside(found: Plan, target: Path, earlier: dict[str, masks.Mask]) -> streams.Writer:
    """The file that tells what was done: masks, those of earlier prunings too, or grids."""
    if found.spec.quantize is not None:
        return quantization.writer(target / "grid.safetensors", found.chosen, found.grid)
    shapes = {name: found.stored[name].shape for name in [*found.chosen, *earlier]}
    return masks.writer(target / "mask.safetensors", shapes)


def _changes(found: Plan, place: Place, notes: list[str], folder: Folder) -> Iterator[Change]:
    """What becomes of each chosen tensor, one after the other."""
    spec = found.spec
    if found.blockwise or found.criterion.calibrated:
        from jdna_cli.engine import blockwise
    if found.blockwise:
        return blockwise.changes(found, place, notes)
    if spec.quantize is not None:
        return _rounded(found)
    in_pieces = found.criterion.parts == "same" and not spec.packed
    if in_pieces and spec.sparsity is not None and spec.scope == "global":
        return _masked_in_pieces(found, folder)
    statistics = blockwise.gathered(found, place) if found.criterion.calibrated else {}
    return _masked(found, statistics)


def _rounded(found: Plan) -> Iterator[Change]:
    def one(own: tuple[str, int]) -> Change:
        name, input_dim = own
        weight = streams.read(found.stored[name])
        turned = weight if input_dim == 1 else weight.T.contiguous()
        done = quantization.nearest(turned, found.grid, name)
        decoded = done.decoded()
        return Change(name, decoded if input_dim == 1 else decoded.T.contiguous(), None, done)

    return ahead(one, found.chosen.items())


def _masked(found: Plan, statistics: dict[str, Statistics]) -> Iterator[Change]:
    """Score the chosen tensors by the criterion, mask them by the pattern, and set to zero."""
    spec = found.spec
    total = sum(found.stored[name].numel for name in found.chosen)

    def scored(name: str, input_dim: int) -> patterns.Scored:
        weight = streams.read(found.stored[name])
        known = statistics.get(name) or Statistics(name, input_dim, spec.pruning_seed)
        return patterns.Scored(name, score_of(found.criterion, weight, known), input_dim, weight)

    def source() -> Iterator[patterns.Item]:
        return (functools.partial(scored, *own) for own in found.chosen.items())

    def finish(x: patterns.Scored, mask: masks.Mask) -> Change:
        assert x.weight is not None
        masks.clear_(x.weight, mask)
        return Change(x.name, x.weight, mask)

    if spec.pattern:
        return patterns.each_n_of_m(source, *parse_pattern(spec.pattern), finish)
    assert spec.sparsity is not None
    sample = _sample(found, total) if found.criterion.parts else None
    return patterns.each_unstructured(source, spec.sparsity, spec.scope, finish, total, sample)


def _sample(found: Plan, total: int) -> selection.Source | None:
    """Stretches of the tensors of a large model, to know about where the cutoff is."""
    if total <= LARGE:
        return None

    def part(name: str) -> tuple[str, torch.Tensor]:
        stretch = streams.read_part(found.stored[name], total // STRETCHES, STRETCH)
        known = Statistics(name, seed=found.spec.pruning_seed)
        return name, score_of(found.criterion, stretch, known)

    return lambda: (functools.partial(part, name) for name in found.chosen)


def _masked_in_pieces(found: Plan, folder: Folder) -> Iterator[Change]:
    """As `_masked`, of scores that a piece of a tensor has by itself: in the memory of pieces."""
    spec = found.spec
    own = [(n, piece) for n in found.chosen for piece in streams.pieces(found.stored[n], PIECE)]
    total = sum(piece.numel for _, piece in own)

    def scored(name: str, piece: streams.Entry) -> patterns.Scored:
        weight = streams.read(piece)
        offset = (piece.start - found.stored[name].start) // piece.bytes_each
        known = Statistics(name, seed=spec.pruning_seed, offset=offset)
        return patterns.Scored(name, score_of(found.criterion, weight, known), 0, weight)

    def source() -> Iterator[patterns.Item]:
        return (functools.partial(scored, *one) for one in own)

    def finish(x: patterns.Scored, mask: masks.Mask) -> tuple[torch.Tensor, masks.Mask, int]:
        assert x.weight is not None
        masks.clear_(x.weight, mask)
        return x.weight, mask, int(torch.count_nonzero(x.weight))

    assert spec.sparsity is not None
    done = patterns.each_unstructured(
        source, spec.sparsity, spec.scope, finish, total, _sample(found, total)
    )
    parts: list[masks.Mask] = []
    left = 0
    for (name, piece), (weight, mask, nonzero) in zip(own, done, strict=True):
        folder.put_piece(piece, weight)
        parts.append(mask)
        left += nonzero
        entry = found.stored[name]
        if piece.end == entry.end:
            yield Change(name, None, masks.joined(parts, entry.shape), counted=left)
            parts, left = [], 0
