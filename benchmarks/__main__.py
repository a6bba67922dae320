"""`python -m benchmarks [NAME …] [--keep FOLDER]`: run the benchmarks, print Markdown."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import platform
from pathlib import Path

import torch

from benchmarks import overview
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
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER",
        help="also write page and ratios there, by kind of machine, and draw all kinds anew",
    )  # fmt: skip
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
    if given.keep:
        overview.keep(given.keep, _kind(), "\n".join(lines))


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor()}, used as {_kind()}"


def _kind() -> str:
    """What the machine computes with, whatever else it could."""
    if torch.cuda.is_available():
        return "cuda"
    wide = torch.backends.cpu.get_cpu_capability().lower().replace("default", platform.machine())
    fast = precision.rates().slowdown("bfloat16") < 1
    return f"{wide}-bf16" if fast else str(wide)


def _rates() -> str:
    found = precision.rates(torch.get_num_threads())
    return ", ".join(f"{name} {getattr(found, name):.0f}" for name in precision.TYPES.values())


if __name__ == "__main__":
    main()
