"""Where a run computes, and in what precision."""

from __future__ import annotations

import accelerate
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from jdna_cli.errors import RequestError


def check_precision(precision: str) -> None:
    """Refuse a precision that this machine cannot compute in.

    Raises:
        RequestError: says what would do.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise RequestError("--mixed-precision: fp16 needs a GPU, use bf16 or no")


def accelerator(precision: str) -> Accelerator:
    """The accelerator of one run."""
    # Accelerate remembers the first precision of a process; runs differ in theirs.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def name(device: torch.device) -> str:
    """The device in words, as recorded with a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }
