"""`tradeoff`: what sparsity buys (E14): bytes as written, time as measured, and the Pareto front.

Sizes are those of the weight files of `jdna prune` (with `--packed`: their compact form), times
those of `jdna eval --time`, beside the dense model's under the same conditions on the same device;
and what other runtimes make of a model by `jdna export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jdna_cli import amounts
from jdna_cli.reports import cells
from jdna_cli.reports.query import Row, Source
from jdna_cli.reports.rendering.figures import Figure, Line, Panel
from jdna_cli.reports.rendering.tables import Section

HEADING = "What sparsity buys"
EMPTY = "nothing to report: `jdna prune --packed` measures bytes, `jdna eval --time` measures time"
NOTICEABLE = 1.05  # less than that is no gain

_METRICS = ("bytes", "dense_bytes", "latency_ms", "latency_ms_p10", "latency_ms_p90", "throughput",
            "throughput_sd", "peak_memory_bytes", "kernel_difference", "torch_latency_ms",
           "torch_latency_ms_p10", "torch_latency_ms_p90")  # fmt: skip

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.metric, run.regime, run.criterion, run.pattern,
  run.scope, run.prunable, run.sparsity, run.quantization, run.teacher, run.bits,
  run.bits_per_weight, run.allocation,
  run.dtype, run.device, run.spec, metric.split, metric.name, metric.value
FROM run JOIN metric ON metric.run = run.id
WHERE run.status = 'finished' AND run.kind IN ('prune', 'eval', 'export') AND metric.step IS NULL
  AND (metric.split IN ('time', 'model') OR metric.name = run.metric)"""


def rows(source: Source) -> list[Row]:
    """One row for each run that measured bytes or time, with the ratio to its dense one."""
    found: dict[int, Row] = {}
    for record in source.records(_RUNS, "ORDER BY run.id"):
        split, name, value = (record.pop(key) for key in ("split", "name", "value"))
        spec = record.pop("spec")
        row = found.setdefault(
            record["id"], {**record, **dict.fromkeys(_METRICS), "score": None, "kernels": "dense"}
        )
        row["kernels"], row["tokens"] = _kernels(spec)
        row[name if split in ("time", "model") else "score"] = value
    measured = [r for r in found.values() if r["bytes"] is not None or r["latency_ms"] is not None]
    dense = {_conditions(r): r for r in measured if r["latency_ms"] is not None and cells.plain(r)}
    for row in measured:
        base = dense.get(_conditions(row))
        known = base is not None and row["latency_ms"] is not None
        row["speed_up"] = base["latency_ms"] / row["latency_ms"] if base and known else None
        row["weight_bits"] = row["bits_per_weight"] or row["bits"]
    for name, cost in (("time", "latency_ms"), ("bytes", "weight_bits")):
        _mark_front(measured, f"front_{name}", cost)
    return measured


def _mark_front(rows: list[Row], name: str, cost: str) -> None:
    """Mark the Pareto front: where no other of the same task scores as much for less, or more."""
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        row[name] = None
        if row["latency_ms"] is not None and row["score"] is not None and row[cost] is not None:
            places.setdefault(_conditions(row), []).append(row)
    for own in places.values():
        for row in own:
            mine = (row["score"], -row[cost])
            row[name] = not any(
                other["score"] >= mine[0] and -other[cost] >= mine[1]
                and (other["score"], -other[cost]) != mine
                for other in own
            )  # fmt: skip


def _kernels(spec: Any) -> tuple[str, int | None]:
    """What multiplies, or the format of an export; and tokens of the text that was timed."""
    import json

    asked = json.loads(spec) if isinstance(spec, str) else spec
    if "format" in asked:
        return str(asked["format"]), int(asked.get("length", 128))
    return str(asked.get("kernels", "dense")), None


def _conditions(row: Row) -> tuple[Any, ...]:
    own = ("kernels", "tokens") if row["kind"] == "export" else ()
    return tuple(row[name] for name in ("kind", "model", "task", "device", "dtype", *own))


def _what(row: Row) -> str:
    words = (
        [amounts.weights(row["pattern"], row["sparsity"]), row["criterion"], row["allocation"]]
        if row["pattern"]
        else []
    )
    parts = [" ".join(word for word in words if word), row["quantization"]]
    return ", ".join(part for part in parts if part) or "dense"


def sections(rows: Sequence[Row]) -> list[Section]:
    """Sizes, the smallest first, then times, then what other runtimes make of it."""
    pruned = [row for row in rows if row["kind"] == "prune"]
    packed = [row for row in pruned if row["bytes"] not in (None, row["dense_bytes"])]
    sizes = sorted(packed, key=lambda row: (row["model"], row["bytes"], row["id"]))
    times = [row for row in rows if row["kind"] == "eval"]
    exports = [row for row in rows if row["kind"] == "export"]
    made = ((_sizes, sizes), (_times, times), (_exports, exports))
    return [section(own) for section, own in made if own]


def _sizes(rows: list[Row]) -> Section:
    table = [
        [
            f"run {row['id']}",
            row["_name"],
            _what(row),
            f"{row['dense_bytes']:,.0f}",
            f"{row['bytes']:,.0f}",
            f"{100 * row['bytes'] / row['dense_bytes']:.1f}%",
            "" if row["bits_per_weight"] is None else f"{row['bits_per_weight']:.2f}",
        ]
        for row in rows
    ]
    columns = ("run", "model", "what", "bytes before", "bytes written", "ratio", "bits per weight")
    notes = (
        "Bytes of the weight files as written, all tensors included; without --packed zeros take "
        "as many bytes as any value. Bits per weight: of the prunable ones in the compact form.",
    )
    return Section("Cost · size on disk", columns, table, notes)


def _times(rows: list[Row]) -> Section:
    table = [
        [
            f"run {row['id']}",
            f"{row['_name']} · {row['task']}",
            _what(row),
            row["kernels"],
            row["device"] or "",
            f"{row['latency_ms']:.2f} ({row['latency_ms_p10']:.2f} – {row['latency_ms_p90']:.2f})",
            f"{row['throughput']:.1f} ± {row['throughput_sd']:.1f}",
            "" if row["speed_up"] is None else f"{row['speed_up']:.2f}",
            "" if row["score"] is None else cells.score(row["metric"], row["score"]),
            ", ".join(kind for kind in ("time", "bytes") if row[f"front_{kind}"]),
        ]
        for row in rows
    ]
    columns = ("run", "model · task", "what", "kernels", "device", "latency ms (10 – 90 %)",
               "examples/s", "speed-up", "score", "Pareto front")  # fmt: skip
    return Section("Cost · time", columns, table, tuple(_verdict(rows)))


def _exports(rows: list[Row]) -> Section:
    table = [
        [
            f"run {row['id']}",
            row["_name"],
            _what(row),
            row["kernels"],
            f"{row['bytes']:,.0f}",
            str(row["tokens"]),
            f"{row['latency_ms']:.2f} ({row['latency_ms_p10']:.2f} – {row['latency_ms_p90']:.2f})",
            f"{row['torch_latency_ms']:.2f}",
            f"{row['torch_latency_ms'] / row['latency_ms']:.2f}",
            "" if row["speed_up"] is None else f"{row['speed_up']:.2f}",
            f"{row['kernel_difference']:.1g}",
        ]
        for row in rows
    ]
    columns = ("run", "model", "what", "format", "bytes", "tokens", "latency ms (10 – 90 %)",
               "torch ms", "to torch", "to dense", "outputs apart")  # fmt: skip
    notes = [
        "Median latency of one text there and in torch, measured in turns. To torch: how many "
        "times as fast as torch; to dense: as the dense model in the same runtime."
    ]
    sparse = [row["speed_up"] for row in rows if row["pattern"] and row["speed_up"] is not None]
    if sparse and max(sparse) < NOTICEABLE:
        notes.append(
            f"No gain from zeros: the best of {len(sparse)} pruned models is {max(sparse):.2f} "
            "times as fast as the dense one in the same runtime."
        )
    return Section("Cost · other runtimes", columns, table, tuple(notes))


def _verdict(rows: list[Row]) -> list[str]:
    """What the figures say of zeros, in words."""
    notes = [
        "Median latency of one example; throughput in batches, ± standard deviation. Pareto front: "
        "no other of the same task and device scores as much in less time, or in fewer bytes."
    ]
    compared = [
        r for r in rows if r["speed_up"] is not None and (r["pattern"] or r["quantization"])
    ]
    without = [r for r in compared if r["kernels"] == "dense"]
    if without:
        best = max(r["speed_up"] for r in without)
        if best < NOTICEABLE:
            notes.append(
                f"No gain in time: with dense kernels the best of {len(without)} is {best:.2f} "
                "times the dense model's speed. Zeros and rounded values are multiplied like any."
            )
        else:
            notes.append(
                f"With dense kernels the best of {len(without)} is {best:.2f} times the dense "
                "model's speed; compare with the spread of the latencies."
            )
    return notes


def figure(rows: Sequence[Row]) -> Figure:
    """Score against latency, a line per model and task."""
    places: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == "eval" and row["latency_ms"] is not None and row["score"] is not None:
            label = f"{row['_name']} · {row['task']} · {row['kernels']}"
            places.setdefault(label, []).append(row)
    lines = []
    for label, own in places.items():
        ordered = sorted(own, key=lambda row: row["latency_ms"])
        x = tuple(row["latency_ms"] for row in ordered)
        y = tuple(100 * row["score"] for row in ordered)
        lines.append(Line(label, x, y, (None,) * len(x)))
    panels = (
        [Panel("Score and latency", "median latency of one example (ms)", tuple(lines))]
        if lines
        else []
    )
    return Figure(
        tuple(panels), "score (%)", None, "one point per timed evaluation", "What sparsity buys"
    )
