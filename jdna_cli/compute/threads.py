"""Threads on the CPU: how many this process may really use, and how they wait for each other.

OpenMP reads its settings when torch is loaded, so `prepare` must come before that; nothing here
imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Turns of GNU's OpenMP loop before a waiting thread sleeps. It never sleeps by default, so that
# beside a busy process threads that wait take the cores from those that work. Measured beside two
# busy processes on two cores: docs/benchmarks/first-minutes.md.
SPIN = "5000"
BLOCK_MILLISECONDS = "1"  # the same for LLVM's and Intel's OpenMP, whose default is 200
_CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class Cores:
    """The cores that a process may use.

    `visible` are those that its affinity names; `quota` is the CPU time that its control group
    gives it, in cores, or None where it gives all.
    """

    visible: int
    quota: float | None

    @property
    def usable(self) -> int:
        """Threads that make sense: no more than cores, and than whole cores of the quota."""
        return self.visible if self.quota is None else max(1, min(self.visible, int(self.quota)))


def cores(root: Path = Path("/")) -> Cores:
    """What this process may use; `root` is where `proc` and `sys` are."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    visible = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Cores(visible, quota(root))


def quota(root: Path = Path("/")) -> float | None:
    """CPU time of this process's control group, in cores, the least of all that it is within."""
    found = [*_unified(root), *_first_version(root)]
    return min(found) if found else None


def prepare() -> None:
    """Settle how threads wait, and how many there are where a quota gives fewer than the cores.

    What the user has set stays as it is.
    """
    if not any(name in os.environ for name in _CHOSEN_BY_USER):
        os.environ.update(GOMP_SPINCOUNT=SPIN, KMP_BLOCKTIME=BLOCK_MILLISECONDS)
    found = cores()
    if found.usable < found.visible:
        os.environ.setdefault("OMP_NUM_THREADS", str(found.usable))


def waiting() -> str:
    """How threads wait for each other, in words."""
    for name in _CHOSEN_BY_USER:
        if name in os.environ and os.environ.get(name) not in (SPIN, BLOCK_MILLISECONDS):
            return f"{name}={os.environ[name]}"
    return "short spin" if "GOMP_SPINCOUNT" in os.environ else "spin"


def _unified(root: Path) -> Iterator[float]:
    """Quotas of control groups, version 2: `cpu.max` holds microseconds and their period."""
    for group in _groups(root, lambda number, names: number == "0" and not names):
        for folder in _ancestors(root / "sys/fs/cgroup", group):
            given, _, period = _read(folder / "cpu.max").partition(" ")
            if given.isdigit() and period.strip().isdigit():
                yield int(given) / int(period)


def _first_version(root: Path) -> Iterator[float]:
    """Quotas of control groups, version 1: two files; −1 is none."""
    for group in _groups(root, lambda number, names: "cpu" in names):
        for mount in ("cpu", "cpu,cpuacct", "cpuacct,cpu"):
            for folder in _ancestors(root / "sys/fs/cgroup" / mount, group):
                given = _read(folder / "cpu.cfs_quota_us")
                period = _read(folder / "cpu.cfs_period_us")
                if given.isdigit() and period.isdigit():
                    yield int(given) / int(period)


def _groups(root: Path, fits: Callable[[str, list[str]], bool]) -> Iterator[str]:
    """Names of the control groups of this process, of hierarchies that fit: number, controllers."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if fits(number, [name for name in names.split(",") if name]):
            yield group


def _ancestors(top: Path, group: str) -> Iterator[Path]:
    """The folder of a group and of all that it is within.

    In a container the group's own name may be the host's; then the top alone is there.
    """
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:count])


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no such control group: no quota
        return ""
