"""Results of a run as a person or a program reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jdna_cli.amounts import weights
from jdna_cli.console import place, room, say, tell
from jdna_cli.models.formats import FORMATS
from jdna_cli.reports.query import short
from jdna_cli.results import LayerSparsity, Need, Outcome, Planned
from jdna_cli.runs.recording import RecordedRun
from jdna_cli.store.tables import Run

_COLUMNS = (
    "id",
    "kind",
    "status",
    "fingerprint",
    "parent",
    "other",
    "model",
    "task",
    "metric",
    "regime",
    "criterion",
    "pattern",
    "scope",
    "allocation",
    "prunable",
    "sparsity",
    "sparsity_reached",
    "bits",
    "bits_per_weight",
    "quantization",
    "calibration",
    "pruning_seed",
    "schedule",
    "teacher",
    "adapter",
    "dtype",
    "data_fraction",
    "options",
    "shots",
    "book",
    "context_words",
    "pairs",
    "mixture",
    "protocol",
    "seed",
    "started_at",
    "finished_at",
    "device",
    "examples",
    "remark",
    "error",
)


def run_as_json(run: Run) -> dict[str, Any]:
    """The columns of a run that a program needs."""
    values = {name: getattr(run, name) for name in _COLUMNS}
    # SQLite gives times back without their zone, which is UTC.
    return {
        k: v.replace(tzinfo=UTC).isoformat() if isinstance(v, datetime) else v
        for k, v in values.items()
    }


def as_json(done: RecordedRun) -> dict[str, Any]:
    """The one object that `--json` prints."""
    run = {**run_as_json(done.run), "cached": done.cached, "artifact": str(done.folder.resolve())}
    as_object: dict[str, Any] = {"run": run, "metrics": done.outcome.metrics}
    if done.run.kind == "prune":
        as_object["pruning"] = pruning_of(done.outcome)
    if done.run.kind == "interpolate":
        points = done.outcome.points
        as_object["points"] = [{"alpha": p.alpha, "loss": p.loss, "score": p.score} for p in points]
        as_object["barrier"] = as_object["metrics"]["barrier"]
    if done.run.kind == "scan":
        dense = done.outcome.result("loss")
        as_object["sensitivities"] = [
            {**asdict(one), "rise": one.loss - dense} for one in done.outcome.sensitivities
        ]
    return as_object


def pruning_of(outcome: Outcome) -> dict[str, Any]:
    """What was pruned, in all and per tensor."""
    return {
        "sparsity": outcome.sparsity,
        "pruned": outcome.pruned,
        "prunable": outcome.prunable,
        "layers": [
            {"name": x.name, "shape": list(x.shape), "sparsity": x.sparsity} for x in outcome.layers
        ],
        "collapsed": list(outcome.collapsed()),
    }


def show(done: RecordedRun, json_asked: bool, plot: Path | None = None) -> None:
    """Print a run's result to standard output."""
    for note in done.notes:
        say(note)
    if json_asked:
        print(json.dumps(as_json(done), allow_nan=False))
        return
    run, outcome = done.run, done.outcome
    again = " (answered from the database)" if done.cached else ""
    tell(f"run {run.id} · {title(run)}{again}")
    if run.kind == "prune":
        for line in pruning_lines(outcome):
            tell(line)
        tell(f"model: {place(done.folder)} ({_size(run, outcome)})")
    elif run.kind == "export":
        for line in export_lines(run, outcome):
            tell(line)
        tell(f"files: {place(done.folder)}")
    else:
        if run.kind == "interpolate":
            _print_points(done)
        if run.kind == "scan":
            _print_scan(outcome)
        metrics = outcome.metrics
        tell(" · ".join(f"{name} {format_number(value)}" for name, value in metrics.items()))
        if outcome.protocol:
            tell(f"measured by: {outcome.protocol}")
        if run.examples:
            tell(f"examples: {counts(run.examples)}")
        if outcome.layers:
            tell(f"zeros among prunable weights: {outcome.pruned:,} of {outcome.prunable:,}")
        tell(f"files: {place(done.folder)}")
    if plot is not None:
        tell(f"plot: {plot}")


def counts(examples: dict[str, dict[str, int]]) -> str:
    """How many examples were read of each split, and used where that is not all, in words."""
    return " · ".join(f"{split} {_of(one)}{one['read']:,}" for split, one in examples.items())


def _of(counted: dict[str, int]) -> str:
    return f"{counted['used']:,} of " if counted["used"] != counted["read"] else ""


def _size(run: Run, outcome: Outcome) -> str:
    """What was written is worth in bytes, and what its compact form would be, or is."""
    metrics = outcome.metrics
    if "bytes" not in metrics:
        return "zeros are stored like any value: as large as before"
    written, before = metrics["bytes"], metrics["dense_bytes"]
    compact = f"{run.bits_per_weight:.2f} bits per prunable weight"
    if written != before:
        return f"packed: {written:,.0f} bytes, were {before:,.0f}; {compact}"
    how = "values are" if run.quantization else "zeros are"
    return f"{how} stored like any value: as large as before; packed: {compact}"


def show_memory(needs: list[Need], json_asked: bool) -> None:
    """Print what memory a request would take, and where."""
    if json_asked:
        print(json.dumps({"memory": [asdict(need) for need in needs]}))
        return
    for need in needs:
        tell(f"{_gigabytes(need.bytes)}  {need.where}: {need.what}")
    places = dict.fromkeys(need.where for need in needs)
    totals = {where: sum(n.bytes for n in needs if n.where == where) for where in places}
    tell("in all: " + ", ".join(f"{_gigabytes(size)} of {where}".strip()
                                for where, size in totals.items()))  # fmt: skip


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e7 else f"{size / 1e6:,.1f} MB"


def show_plan(planned: list[Planned], needs: list[Need], json_asked: bool) -> None:
    """Print which tensors a pruning would touch, why not the others, and what memory it takes."""
    chosen = [tensor for tensor in planned if tensor.reason is None]
    count = sum(math.prod(tensor.shape) for tensor in chosen)
    if json_asked:
        rows = [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in planned]
        memory = [asdict(need) for need in needs]
        print(json.dumps({"prunable": count, "tensors": rows, "memory": memory}))
        return
    # People see what blocks share; a file, or another program, has a line for each tensor.
    whole = ((tensor.name, 1, tensor) for tensor in planned)
    for name, many, one in whole if room() is None else _folded(planned):
        what = f"prunable {one.loss or ''}" if one.reason is None else f"no: {one.reason}"
        times = f" × {many}" if many > 1 else ""
        tell(f"{name} {list(one.shape)}{times}  {what}".rstrip())
    tell(f"{count:,} prunable weights in {len(chosen)} of {len(planned)} tensors")
    show_memory(needs, json_asked=False)


def _folded(planned: list[Planned]) -> Iterator[tuple[str, int, Planned]]:
    """Tensors that are the same in all blocks as one: its name with all numbers, how many, one."""
    alike: dict[object, list[Planned]] = {}
    for tensor in planned:
        parts = tensor.name.split(".")
        form = tuple("" if part.isdecimal() else part for part in parts)
        alike.setdefault((form, tensor.shape, tensor.reason, tensor.loss), []).append(tensor)
    for group in alike.values():
        columns = list(zip(*(tensor.name.split(".") for tensor in group), strict=True))
        # A part of the name is one word, or numbers without a gap.
        values = [sorted({int(x) for x in own}) if own[0].isdecimal() else [0] for own in columns]
        whole = all(own[-1] - own[0] == len(own) - 1 for own in values)
        if whole and math.prod(map(len, values)) == len(group):
            name = ".".join(
                own[0] if len(numbers) == 1 else f"{numbers[0]}…{numbers[-1]}"
                for own, numbers in zip(columns, values, strict=True)
            )
            yield name, len(group), group[0]
        else:
            yield from ((tensor.name, 1, tensor) for tensor in group)


def title(run: Run) -> str:
    """What a run did, in a line."""
    what = {
        "prune": "pruned" if run.pattern else "rounded",
        "finetune": "fine-tuned",
        "eval": "evaluated",
        "scan": "scanned",
        "export": "exported",
    }
    parts = [f"{what.get(run.kind, 'interpolated')} {short(run.model)}"]
    if run.task:
        parts.append(f"on {run.task}")
    if run.pattern:
        how = [run.criterion, run.scope, run.allocation]
        parts.append(
            f"at {weights(run.pattern, run.sparsity)} ({' '.join(word for word in how if word)})"
        )
    if run.quantization:
        parts.append(f"{'and rounded ' if run.pattern else ''}to {run.quantization}")
    if run.regime and run.kind == "finetune":
        parts.append(f"· {run.regime} · seed {run.seed}")
    parts += [f"· {text}" for text in (run.schedule, run.adapter, _taught(run)) if text]
    return " ".join(parts)


def _taught(run: Run) -> str:
    return f"taught by {short(run.teacher)}" if run.teacher and run.kind == "finetune" else ""


def export_lines(run: Run, outcome: Outcome) -> list[str]:
    """Whether another runtime gives the same, and how long it takes."""
    metrics, name = outcome.metrics, FORMATS[run.spec["format"]].runtime
    there, here = (
        " ".join(
            [f"{metrics[f'time/{who}latency_ms']:.2f} ms", "({:.2f} – {:.2f})".format(
                *(metrics[f"time/{who}latency_ms_{end}"] for end in ("p10", "p90")))]
        )
        for who in ("", "torch_")
    )  # fmt: skip
    ratio = metrics["time/torch_latency_ms"] / metrics["time/latency_ms"]
    return [
        f"outputs of {name} and torch: at most {metrics['time/kernel_difference']:.2g} apart",
        f"one text of {run.spec.get('length', 128)} tokens: {name} {there}, torch {here}: "
        f"{ratio:.2f} times as fast",
        f"{metrics['bytes']:,.0f} bytes, were {metrics['dense_bytes']:,.0f}",
    ]


def pruning_lines(outcome: Outcome) -> list[str]:
    """How many weights went, from where most and least, and which tensors lost all."""
    if not outcome.layers:
        return ["nothing was prunable"]
    lines = [
        f"zeros: {outcome.pruned:,} of {outcome.prunable:,} prunable weights "
        f"({outcome.sparsity:.4%}) in {len(outcome.layers)} tensors"
    ]
    if (removed := outcome.metrics.get("removed")) is not None:
        lines.append(
            f"of them {removed:,.0f} ({removed / outcome.prunable:.4%}) were pruned, "
            f"{outcome.pruned - removed:,.0f} became zero by rounding"
        )
    most = max(outcome.layers, key=lambda x: x.sparsity)
    least = min(outcome.layers, key=lambda x: x.sparsity)
    if most.sparsity > least.sparsity:
        lines.append(f"most: {_layer(most)} · least: {_layer(least)}")
    if collapsed := outcome.collapsed():
        lines.append(f"collapsed, at most 1 % of the weights left: {', '.join(collapsed)}")
    return lines


def _layer(layer: LayerSparsity) -> str:
    return f"{layer.name} {layer.sparsity:.1%}"


def _print_points(done: RecordedRun) -> None:
    highest = max(p.loss for p in done.outcome.points)
    print(f"{'alpha':>6} {'loss':>8} {done.run.metric or 'score':>9}")
    for p in done.outcome.points:
        bar = "█" * round(30 * p.loss / highest) if highest > 0 else ""
        print(f"{p.alpha:6.2f} {p.loss:8.4f} {p.score:9.4f}  {bar}")


def _print_scan(outcome: Outcome) -> None:
    """Blocks by kinds of matrices: how far the loss rose at each sparsity."""
    from jdna_cli.reports.rendering import tables
    from jdna_cli.reports.scans import grid

    for section in grid(outcome.sensitivities, outcome.result("loss")):
        print(tables.sections_as_text([section], "table"), end="")


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where that reads better."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"
