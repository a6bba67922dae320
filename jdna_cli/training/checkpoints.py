"""Checkpoints: whole, verified, and enough to go on bit for bit. Safetensors and JSON only."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jdna_cli.compute import distributed
from jdna_cli.files import sha256, whole

KEEP = 2  # the newest may be damaged: the one before it is kept


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the plain state that goes with them."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` below `folder`, keep the newest two, drop the rest."""
    # One of this step that is damaged, or another's.
    shutil.rmtree(folder / f"checkpoint-{checkpoint.step}", ignore_errors=True)
    with whole(folder / f"checkpoint-{checkpoint.step}") as target:
        save_file(checkpoint.tensors, target / "tensors.safetensors")
        (target / "state.json").write_text(json.dumps(checkpoint.state))
        sums = {file.name: sha256(file) for file in sorted(target.iterdir())}
        (target / "manifest.json").write_text(json.dumps(sums))
    for old in steps(folder)[KEEP:]:
        shutil.rmtree(folder / f"checkpoint-{old}")


def steps(folder: Path) -> list[int]:
    """Steps of all checkpoints below `folder`, newest first."""
    if not folder.is_dir():
        return []
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.iterdir())
    return sorted((int(found[1]) for found in names if found), reverse=True)


def newest(folder: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a request, and notes on those that are none.

    Args:
        folder: of a run's checkpoints.
        fingerprint: of the request; another's checkpoint is not gone on from.
    """
    notes = []
    for step in steps(folder):
        path = folder / f"checkpoint-{step}"
        if damage := _damage(path):
            notes.append(f"checkpoint of step {step} is damaged ({damage}), using the one before")
            continue
        state = json.loads((path / "state.json").read_text())
        if state.get("fingerprint", fingerprint) != fingerprint:
            notes.append(f"checkpoint of step {step} is another request's, it is not taken")
            continue
        return Checkpoint(step, load_file(path / "tensors.safetensors"), state), notes
    return None, notes


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the generators that training draws from."""
    random_state = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        random_state["random.cuda"] = torch.cuda.get_rng_state(device)
    return random_state


def restore_random_state(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Set the generators to what `random_state` returned."""
    if (state := distributed.own_of(tensors, "random.cpu")) is not None:
        torch.set_rng_state(state)
    if device.type == "cuda" and (state := distributed.own_of(tensors, "random.cuda")) is not None:
        torch.cuda.set_rng_state(state, device)


def _damage(path: Path) -> str | None:
    try:
        sums = json.loads((path / "manifest.json").read_text())
        if set(sums) != {"tensors.safetensors", "state.json"}:
            return "manifest.json"
        return next((name for name, told in sums.items() if sha256(path / name) != told), None)
    except (OSError, ValueError, TypeError) as error:
        return str(error)
