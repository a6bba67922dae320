"""Where a run computes, and in what precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jdna_cli.compute import distributed, processes

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Placing:
    """In what type weights are loaded, and where they are put.

    `dtype` is a name of torch's, or "auto" for the files' own. With a `device_map`, a model that is
    too large for one device is spread over all of them, then over the memory of the machine, then
    over files in `offload`.
    """

    dtype: str = "float32"
    device_map: str | None = None
    offload: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` is told."""
        kind = "auto" if self.dtype == "auto" else getattr(torch, self.dtype)
        arguments: dict[str, Any] = {"dtype": kind}
        if self.device_map is not None:
            arguments |= {"device_map": self.device_map, "offload_folder": self.offload}
        return arguments


def accelerator(precision: str) -> Accelerator:
    """The accelerator of one run."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, patch_environment

    # Accelerate remembers the first precision of a process; runs differ in theirs.
    AcceleratorState._reset_state()
    distributed.join()
    # A model may have weights that a task's loss does not reach.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    # A model is divided by `cluster.shard`, after its masks have been laid on whole weights.
    with patch_environment(accelerate_use_fsdp="false"):
        found = Accelerator(mixed_precision=precision, kwargs_handlers=handlers)
    if found.device.type == "cuda":
        # It plans anew for each length of a batch: an epoch of 98 lengths took 9.0 s, not 3.2.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if precision == "fp16" and found.device.type == "cpu":
        # There accelerate says fp16 and computes in float32.
        found.native_amp, found.scaler = True, torch.amp.GradScaler("cpu")
    return found


def name(device: torch.device) -> str:
    """The device in words, as recorded with a run."""
    if device.type == "cuda":
        one = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        one = f"{device.type} ({threads} thread{'' if threads == 1 else 's'})"
    if processes.size() == 1:
        return one
    return f"{processes.size()} × {one}{', FSDP' if distributed.is_sharded() else ''}"


def weights_of(model: nn.Module) -> dict[str, Any]:
    """The type of a model's weights as a run records it: `bits` and `dtype`."""
    weight = next(model.parameters())
    return {"bits": 8 * weight.element_size(), "dtype": str(weight.dtype).removeprefix("torch.")}


def length_unit(device: torch.device) -> int:
    """Of what the length of a batch is to be a multiple: on a GPU fewer lengths are faster."""
    return 8 if device.type == "cuda" else 1


CPU_TOKENS, GPU_TOKENS = 2048, 65_536  # of a batch at most: more is no faster
MEMORY_SHARE = 0.25  # of a GPU, for the activations of a batch


def tokens_at_once(device: torch.device, config: Any) -> int:
    """Tokens of a batch that is measured: the same on every machine of a kind.

    On a GPU by its whole memory, not by what is free just now.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(GPU_TOKENS, max(512, int(MEMORY_SHARE * memory) // bytes_of_token(config)))


def bytes_of_token(config: Any) -> int:
    """What a token takes while it is measured: its logits thrice, some numbers per dimension."""
    config = getattr(config, "text_config", config)
    return int(12 * getattr(config, "vocab_size", 0) + 160 * getattr(config, "hidden_size", 1024))
