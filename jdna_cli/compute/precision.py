"""What `--mixed-precision auto` and `--dtype auto` stand for on this machine.

A CPU without instructions for bfloat16 multiplies such matrices a hundred times slower than
float32, and a large one several hundred times (pytorch#146508, #118499): what is faster is
measured, not looked up in a list of processors.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jdna_cli.specs import Precision

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "cuda", "mps"]

# Mixed precision casts on the way: it pays where products alone are faster by more than this.
WORTH = 1.25
SLOW = 1.5  # times slower than float32: worth a warning
# (rows, inputs, outputs): a small batch's product, and one as in training a small encoder.
_SIZES = ((64, 256, 256), (256, 384, 1536))
_HOPELESS = 4.0  # times slower at the small size: the large one need not be waited for
_REPEATS, _SECONDS = 5, 0.02

TYPES: dict[Precision, str] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Rates:
    """Rates of matrix products on the CPU, in GFLOP/s."""

    float32: float
    bfloat16: float
    float16: float

    def slowdown(self, dtype: str) -> float:
        """How many times slower than float32 products of `dtype` are; below 1: faster."""
        rate: float = getattr(self, dtype)
        return self.float32 / rate


def keeps_to_cpu() -> bool:
    """Whether accelerate was told to leave other devices alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def device() -> Device:
    """The kind of device that runs compute on."""
    import torch

    if keeps_to_cpu():
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def rates(threads: int = 1) -> Rates:
    """Measure, once per process, some milliseconds for each type.

    With one thread by default: what the cores besides do then hardly tells, so that the same
    machine decides the same each time.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        full = _rate(torch.float32, None)
        return Rates(full, _rate(torch.bfloat16, full), _rate(torch.float16, full))
    finally:
        torch.set_num_threads(before)


def _rate(dtype: torch.dtype, against: float | None) -> float:
    import torch

    rate = 0.0
    for rows, inputs, outputs in _SIZES:
        x, weight = torch.ones(rows, inputs, dtype=dtype), torch.ones(inputs, outputs, dtype=dtype)
        x @ weight  # kernels are made at the first call
        best, began = float("inf"), time.perf_counter()
        for _ in range(_REPEATS):
            start = time.perf_counter()
            x @ weight
            best = min(best, time.perf_counter() - start)
            if time.perf_counter() - began > _SECONDS:
                break
        rate = 2 * rows * inputs * outputs / best / 1e9
        if against is not None and rate * _HOPELESS < against:
            break
    return rate


def precision_on(device: Device, rates: Rates | None, bfloat16: bool) -> Precision:
    """The concrete precision of "auto".

    Args:
        device: where it is computed.
        rates: of the CPU, if that is where.
        bfloat16: whether the device has it, if it is another.
    """
    if device == "cpu":
        assert rates is not None
        return "bf16" if rates.bfloat16 > WORTH * rates.float32 else "no"
    if device == "mps":
        return "bf16" if bfloat16 else "no"
    return "bf16" if bfloat16 else "fp16"


def automatic() -> Precision:
    """What "auto" stands for here."""
    where = device()
    return precision_on(where, rates() if where == "cpu" else None, _has_bfloat16(where))


def _has_bfloat16(where: Device) -> bool:
    import torch

    if where == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return where == "mps" and bool(torch.backends.mps.is_macos_or_newer(14, 0))


def dtype_on(device: Device, stored: str, rates: Rates | None) -> str:
    """The type in which weights are held that are stored as `stored`: that, or float32.

    Float32 on a CPU that multiplies the other more slowly.
    """
    if device != "cpu" or stored not in TYPES.values():
        return stored
    assert rates is not None
    return stored if rates.slowdown(stored) <= 1 else "float32"


def warning(precision: str, dtype: str = "float32") -> str | None:
    """One line where what was asked for is computed several times slower than float32 here."""
    if device() != "cpu":
        return None
    asked = TYPES.get(precision, "float32")  # type: ignore[call-overload]
    for name, flag in ((asked, f"--mixed-precision {precision}"), (dtype, f"--dtype {dtype}")):
        if name not in ("bfloat16", "float16"):
            continue
        factor = rates().slowdown(name)
        if factor > SLOW:
            return (
                f"{flag}: this CPU multiplies {name} {factor:.0f} times slower than float32; "
                "auto takes the faster"
            )
    return None
