"""A line of eleven points: seconds per point against the bare forward passes."""

from __future__ import annotations

import copy

import torch

from benchmarks.measuring import beside_limit, seconds, table
from benchmarks.training import examples, minilm, scorer
from jdna_cli.compute import devices
from jdna_cli.pipelines.interpolate import _tensors
from jdna_cli.scoring.classification import predict
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.sparsity import connectivity


def report() -> str:
    features = scorer().encode(examples(128)).features
    accelerator = devices.accelerator("no")
    model = scorer().load(minilm(), new_head=True, seed=1).to(accelerator.device)
    other = scorer().load(minilm(), new_head=True, seed=2).to(accelerator.device)
    a = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
    b = {name: tensor.detach() for name, tensor in _tensors(other).items()}
    moving = _tensors(model)

    def move() -> None:
        with torch.no_grad():
            connectivity.move_(moving, a, b, 0.3)

    def reload() -> None:
        state = {name: torch.lerp(a[name], b[name], 0.3) for name in dict(model.named_parameters())}
        copy.deepcopy(model).load_state_dict(state, strict=False)

    forward = seconds(lambda: predict(model, features, EvalContext(64, accelerator)), 3)
    found = {"jdna: lerp in place": seconds(move), "deep copy and load_state_dict": seconds(reload)}
    moved = found["jdna: lerp in place"]
    beside_limit("a point of a line", "its forward passes", 1 + moved / forward, 1.05)
    rows = [["forward passes, 128 pairs", f"{1000 * forward:.0f}", "1.000"]]
    for name, spent in found.items():
        rows.append([name, f"{1000 * spent:.1f}", f"{1 + spent / forward:.3f}"])
    columns = ["", "ms per point", "point / bare forward passes"]
    return table("Moving along a line (22.7 M weights)", columns, rows)
