"""A synthetic checkpoint, Llama-shaped and sharded, made without holding it in memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file


def shapes(hidden: int, layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama without grouped queries."""
    inner = hidden * 11 // 4
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(layers):
        own = f"model.layers.{i}"
        for name in "qkvo":
            found[f"{own}.self_attn.{name}_proj.weight"] = (hidden, hidden)
        for name in ("gate", "up"):
            found[f"{own}.mlp.{name}_proj.weight"] = (inner, hidden)
        found[f"{own}.mlp.down_proj.weight"] = (hidden, inner)
        for name in ("input", "post_attention"):
            found[f"{own}.{name}_layernorm.weight"] = (hidden,)
    return {**found, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def make(
    folder: Path,
    *,
    hidden: int,
    layers: int,
    shards: int,
    dtype: torch.dtype = torch.bfloat16,
    vocabulary: int = 256,
) -> Path:
    """Write the checkpoint; returns its folder."""
    folder.mkdir(parents=True)
    names = shapes(hidden, layers, vocabulary)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        torch_dtype=dtype,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device).manual_seed(0)
    where, size = {}, -(-len(names) // shards)
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = list(names)[shard * size : (shard + 1) * size]
        tensors = {
            n: torch.randn(names[n], generator=draw, device=device) * 0.02 + (len(names[n]) == 1)
            for n in own
        }
        tensors = {n: tensor.to("cpu", dtype) for n, tensor in tensors.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    return folder
