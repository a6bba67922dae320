"""Pruning a checkpoint that need not fit into memory, against copying its files with fsync.

Each way runs in a process of its own, whose resident memory is read at its peak, beyond what it was
when everything was imported and the files had been looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import checkpoint
from benchmarks.measuring import beside_limit, seconds, table

GIGABYTES = float(os.environ.get("JDNA_BENCH_GB", "4"))

_CODE = """
import json, sys, time
from pathlib import Path
from jdna_cli.pipelines import prune as pruning
from jdna_cli.run_context import RunContext
from jdna_cli.specs import ModelSource, PruneSpec
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
folder, target = Path(sys.argv[1]), Path(sys.argv[2])
spec = PruneSpec(model=str(folder), **json.loads(sys.argv[3]))
source = ModelSource("m", folder, "m")
place = RunContext(target, None, target)
pruning.plan_of(spec, source)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = peak()
began = time.perf_counter()
found = pruning.prune(spec, source, place)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "mb": (peak() - before) / 1024, "pruned": found.pruned,
                  "prunable": found.prunable}))
"""

AIMS = {
    "magnitude 50 %, global": 2,
    "magnitude 50 %, row": 3,
    "magnitude 2:4": 2,
    "magnitude 50 %, packed": 3,
    "4 bits, group 128": 4,
}
WAYS = {
    "magnitude 50 %, global": {"sparsity": 0.5},
    "magnitude 50 %, row": {"sparsity": 0.5, "scope": "row"},
    "magnitude 2:4": {"pattern": "2:4"},
    "random 50 %, global": {"sparsity": 0.5, "criterion": "random"},
    "magnitude 50 %, packed": {"sparsity": 0.5, "packed": True},
    "4 bits, group 128": {"quantize": 4, "group_size": 128},
}


def copied(folder: Path, target: Path) -> float:
    """Seconds to copy the weight files and flush them to the disk."""
    target.mkdir()
    began = time.perf_counter()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as source, (target / file.name).open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
    spent = time.perf_counter() - began
    shutil.rmtree(target)
    return spent


def report() -> str:
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        layers = max(1, round(GIGABYTES * 1e9 / 2 / (4 + 3 * 11 / 4) / 2048**2))
        folder = checkpoint.make(top / "model", hidden=2048, layers=layers, shards=layers // 3 + 1)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        largest = max(torch.Size(s).numel() for s in checkpoint.shapes(2048, 1, 256).values()) * 2
        os.sync()  # what is still on its way to the disk is nobody's
        copies = [copied(folder, top / "copy") for _ in range(2)]
        base = min(copies)
        rows = [["copy with fsync", f"{base:.1f}", "1.00", "", ""]]
        for name, asked in WAYS.items():
            command = [sys.executable, "-c", _CODE, folder, top / "out", json.dumps(asked)]
            os.sync()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            shutil.rmtree(top / "out")
            beside_limit(f"{name}, from file to file", "a copy with fsync",
                         found["seconds"] / base, AIMS.get(name))  # fmt: skip
            rows.append(
                [
                    name,
                    f"{found['seconds']:.1f}",
                    f"{found['seconds'] / base:.2f}",
                    f"{found['mb']:.0f}",
                    f"{found['mb'] * 2**20 / largest:.1f}",
                ]
            )
        title = (
            f"A Llama-shaped checkpoint of {size / 1e9:.2f} GB (bfloat16, "
            f"{len(list(folder.glob('*.safetensors')))} shards; largest tensor "
            f"{largest / 2**20:.0f} MB)"
        )
    columns = ["way", "s", "times the copy", "peak MB", "times the largest tensor"]
    return "\n".join([table(title, columns, rows), whole_command()])


def whole_command() -> str:
    """A model that fits into memory, from the command line to the record in the database."""
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        folder = checkpoint.make(
            top / "model", hidden=1024, layers=8, shards=1, dtype=torch.float32
        )  # fmt: skip
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        base = min(copied(folder, top / "copy") for _ in range(3))
        command = [sys.executable, "-m", "jdna_cli", "prune", str(folder), "--sparsity", "0.5",
                   "--home", str(top / "home"), "--force"]  # fmt: skip

        def run() -> None:
            subprocess.run(command, check=True, capture_output=True)

        spent = seconds(run, 3)
    beside_limit(f"the command, {size / 4e6:.0f} M weights", "a copy with fsync", spent / base, 3)
    rows = [["copy with fsync", f"{base:.2f}", "1.00"],
            ["`jdna prune --sparsity 0.5`", f"{spent:.2f}", f"{spent / base:.2f}"]]  # fmt: skip
    title = f"A whole command, {size / 1e9:.2f} GB in float32"
    return table(title, ["way", "s", "times the copy"], rows)
