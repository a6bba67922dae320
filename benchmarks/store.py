"""Runs that many processes record at once, a second: SQLite, and PostgreSQL where it is installed.

A run here is what a fine-tuning of a 12-layer model records: a row, 30 metrics, 72 tensors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import server
from benchmarks.measuring import table

WRITERS = (1, 2, 4, 8, 16, 32)
RUNS = 200  # of all writers together

_CODE = """
import json, sys, time
from pathlib import Path
from jdna_cli.results import LayerSparsity, Measurement, Outcome
from jdna_cli.specs import PruneSpec
from jdna_cli.store.ledger import Ledger, NewRun
home, url, count, number = Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]), sys.argv[4]
ledger = Ledger(home, url)
outcome = Outcome(
    tuple(Measurement("validation", f"m{i}", i, i) for i in range(30)),
    tuple(LayerSparsity(f"layer.{i}.weight", (1024, 1024), 1 << 19, 1 << 20) for i in range(72)),
)
print("ready", flush=True)
sys.stdin.readline()
longest = 0.0
for i in range(count):
    began = time.perf_counter()
    run = ledger.start(NewRun(PruneSpec(model="m", sparsity=0.5), f"{number}-{i}"), {}, None)
    ledger.finish(run, outcome)
    longest = max(longest, time.perf_counter() - began)
print(json.dumps(longest))
"""


def rate(home: Path, url: str | None, writers: int) -> tuple[float, float]:
    """Runs a second, and the longest that one took, when `writers` processes record at once."""
    each = max(1, RUNS // writers)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _CODE, str(home), url or "", str(each), str(i)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(writers)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    longest = [float(json.loads(process.communicate()[0])) for process in started]
    return writers * each / (time.perf_counter() - began), max(longest)


def report() -> str:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        small = {w: rate(Path(place) / f"home-{w}", None, w) for w in WRITERS}
        large: dict[int, tuple[float, float]] = {}
        if server.programs() is not None:
            with server.started(safe=True) as database:
                large = {w: rate(Path(place) / "pg", database(), w) for w in WRITERS}
    for writers in WRITERS:
        cells = [f"{small[writers][0]:.0f}", f"{small[writers][1]:.2f}"]
        other = large.get(writers)
        cells += [f"{other[0]:.0f}", f"{other[1]:.2f}"] if other else ["", ""]
        rows.append([str(writers), *cells])
    columns = ["writers", "SQLite, runs/s", "longest, s", "PostgreSQL, runs/s", "longest, s"]
    return table("Runs recorded by many processes at once (103 rows each)", columns, rows)
