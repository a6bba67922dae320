"""`python -m benchmarks [NAME …] [--write FILE]`: run the benchmarks, print Markdown."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import platform
from pathlib import Path

import torch

from jdna_cli.compute import devices, precision
from jdna_cli.compute.versions import versions

NAMES = (
    "selection", "streaming", "training", "interpolation", "likelihood", "sweeping", "store",
    "reports", "startup",
)  # fmt: skip
MORE = (
    "advice",
    "criteria",
    "large",
    "kills",
    "peers",
)  # by name alone: they take a quarter of an hour, files or a GPU


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help=", ".join((*NAMES, *MORE))
    )
    parser.add_argument("--write", type=Path, help="also write the page to this file")
    given = parser.parse_args()
    device = devices.name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Benchmarks",
        "",
        f"{dt.date.today()}, {device}, Python {platform.python_version()}, {libraries}; "
        f"`make bench`. Ratios carry over better than times.",
        f"{_processor()}: {_rates()} GFLOP/s on all threads.",
        "",
    ]
    print("\n".join(lines))
    for name in given.names or NAMES:
        lines.append(importlib.import_module(f"benchmarks.{name}").report())
        print(lines[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join(lines))


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    wide = any("avx512_bf16" in line or "amx_bf16" in line for line in lines)
    kind = "with" if wide else "without"
    return f"{named[0] if named else platform.processor()} ({kind} instructions for bfloat16)"


def _rates() -> str:
    found = precision.rates(torch.get_num_threads())
    return ", ".join(f"{name} {getattr(found, name):.0f}" for name in precision.TYPES.values())


if __name__ == "__main__":
    main()
