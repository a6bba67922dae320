"""`cost`: what sparsity buys: bytes as they were written, and time as it was measured.

Sizes are those of the weight files of `jdna prune` (with `--packed`: their compact form), times
those of `jdna eval --time`, beside the dense model's under the same conditions on the same device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.reports import Query, Row, plots
from jdna_cli.reports.catalogue import drop
from jdna_cli.reports.tables import Section

EMPTY = "nothing to report: `jdna prune --packed` measures bytes, `jdna eval --time` measures time"
NOTICEABLE = 1.05  # less than that is no gain

_METRICS = ("bytes", "dense_bytes", "latency_ms", "latency_ms_p10", "latency_ms_p90", "throughput",
            "throughput_sd", "peak_memory_bytes", "kernel_difference")  # fmt: skip

_RUNS = """
SELECT run.id, run.kind, run.model, run.task, run.metric, run.regime, run.criterion, run.pattern,
  run.scope, run.prunable, run.sparsity, run.quantization, run.teacher, run.bits_per_weight,
  run.dtype, run.device, run.spec, metric.split, metric.name, metric.value
FROM run JOIN metric ON metric.run = run.id
WHERE run.status = 'finished' AND run.kind IN ('prune', 'eval') AND metric.step IS NULL
  AND (metric.split IN ('time', 'model') OR metric.name = run.metric)
ORDER BY run.id
"""


def rows(query: Query) -> list[Row]:
    """One row for each run that measured bytes or time, with the ratio to its dense one."""
    found: dict[int, Row] = {}
    for record in query(_RUNS).records():
        split, name, value = (record.pop(key) for key in ("split", "name", "value"))
        spec = record.pop("spec")
        row = found.setdefault(
            record["id"], {**record, **dict.fromkeys(_METRICS), "score": None, "kernels": "dense"}
        )
        row["kernels"] = _kernels(spec)
        row[name if split in ("time", "model") else "score"] = value
    measured = [r for r in found.values() if r["bytes"] is not None or r["latency_ms"] is not None]
    dense = {_conditions(r): r for r in measured if r["latency_ms"] is not None and drop.plain(r)}
    for row in measured:
        base = dense.get(_conditions(row))
        known = base is not None and row["latency_ms"] is not None
        row["speed_up"] = base["latency_ms"] / row["latency_ms"] if base and known else None
    return measured


def _kernels(spec: Any) -> str:
    import json

    asked = json.loads(spec) if isinstance(spec, str) else spec
    return str(asked.get("kernels", "dense"))


def _conditions(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "task", "device", "dtype"))


def _what(row: Row) -> str:
    if row["quantization"]:
        return str(row["quantization"])
    if not row["pattern"]:
        return "dense"
    amount = f"{row['sparsity']:.0%}" if row["pattern"] == "unstructured" else row["pattern"]
    return f"{amount} {row['criterion']}"


def sections(rows: Sequence[Row]) -> list[Section]:
    """Sizes, then times."""
    sizes = [row for row in rows if row["bytes"] is not None]
    times = [row for row in rows if row["latency_ms"] is not None]
    return [*([_sizes(sizes)] if sizes else []), *([_times(times)] if times else [])]


def _sizes(rows: list[Row]) -> Section:
    table = [
        [
            f"run {row['id']}",
            drop.short(row["model"]),
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
            f"{drop.short(row['model'])} · {row['task']}",
            _what(row),
            row["kernels"],
            row["device"] or "",
            f"{row['latency_ms']:.2f} ({row['latency_ms_p10']:.2f} – {row['latency_ms_p90']:.2f})",
            f"{row['throughput']:.1f} ± {row['throughput_sd']:.1f}",
            "" if row["speed_up"] is None else f"{row['speed_up']:.2f}",
            "" if row["score"] is None else drop.score(row["metric"], row["score"]),
        ]
        for row in rows
    ]
    columns = ("run", "model · task", "what", "kernels", "device", "latency ms (10 – 90 %)",
               "examples/s", "speed-up", "score")  # fmt: skip
    return Section("Cost · time", columns, table, tuple(_verdict(rows)))


def _verdict(rows: list[Row]) -> list[str]:
    """What the figures say of zeros, in words."""
    notes = ["Median latency of one example; throughput in batches, ± standard deviation."]
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


def figure(rows: Sequence[Row], path: Path) -> None:
    """Score against latency, a line per model and task."""
    places: dict[str, list[Row]] = {}
    for row in rows:
        if row["latency_ms"] is not None and row["score"] is not None:
            label = f"{drop.short(row['model'])} · {row['task']} · {row['kernels']}"
            places.setdefault(label, []).append(row)
    if not places:
        raise RequestError("--plot: no evaluation was timed yet, `jdna eval --time` does")
    lines = []
    for label, own in places.items():
        ordered = sorted(own, key=lambda row: row["latency_ms"])
        x = tuple(row["latency_ms"] for row in ordered)
        y = tuple(100 * row["score"] for row in ordered)
        lines.append(plots.Line(label, x, y, (None,) * len(x)))
    panel = plots.Panel("Score and latency", "median latency of one example (ms)", tuple(lines))
    plots.panels([panel], "score (%)", None, "one point per timed evaluation", path)
