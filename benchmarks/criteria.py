"""All criteria on MiniLM and a real task at equal sparsity: how far outputs move, what is learnt.

The error is that of the last hidden states on examples of the validation split, before training:
‖pruned − dense‖ / ‖dense‖ over all tokens. The score is that after fine-tuning, in the `sparse`
regime, beside the dense model's. Takes about a quarter of an hour; needs JDNA_DATA with the task.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.measuring import table
from jdna_cli.cli.demonstration import model_folder
from jdna_cli.runs import finetune, prune
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.sparsity import criteria
from jdna_cli.store.ledger import Ledger
from jdna_cli.tasks import datasets
from jdna_cli.tasks.lookup import get

TASK = os.environ.get("JDNA_BENCH_TASK", "sst2")
SEEDS = (41, 42)
RECIPE: dict[str, Any] = {
    "task": TASK, "epochs": 2, "lr": 2e-4, "batch_size": 32, "max_train_samples": 1200,
    "mixed_precision": "auto", "max_length": 64, "checkpoint_every": 0,
}  # fmt: skip
# MiniLM's pooler was not trained.
EXCLUDE = ("*pooler*",)


def hidden(folder: Path, texts: list[str]) -> torch.Tensor:
    """Last hidden states of all tokens (tokens, width), float32."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        found = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts
        ]
    return torch.cat(found)


def report() -> str:
    data = Path(os.environ["JDNA_DATA"])
    split = get(TASK).evaluation_splits[0]
    texts = [example.texts[0] for example in datasets.load(get(TASK), split, data).examples[:200]]
    with tempfile.TemporaryDirectory() as place:
        ledger = Ledger(Path(place) / "home")
        workspace = OpenWorkspace(ledger, data)
        model = model_folder(ledger.home)
        exact = hidden(model, texts)
        dense = [_score(workspace, {"model": str(model), "seed": seed}) for seed in SEEDS]
        rows = [["dense", "", "", _mean(dense), ""]]
        for level in ({"sparsity": 0.5}, {"pattern": "4:8"}):
            for name in criteria.names():
                asked = {"criterion": name, "exclude": EXCLUDE, **level}
                if criteria.load(name).calibrated:
                    asked |= {"calibration": TASK}
                done = prune.prune(workspace, {"model": str(model), **asked})
                near = hidden(done.folder, texts)
                error = float((near - exact).norm() / exact.norm())
                scores = [
                    _score(workspace, {"model": str(model), "seed": s, **asked}) for s in SEEDS
                ]
                drops = [1 - s / d for s, d in zip(scores, dense, strict=True)]
                rows.append(
                    [
                        name,
                        f"{level.get('pattern', '50 %')} {done.run.scope or ''}".strip(),
                        f"{error:.3f}",
                        _mean(scores),
                        _mean(drops),
                    ]
                )
                print(rows[-1], flush=True)
        ledger.close()
    title = f"Criteria on MiniLM and {TASK}, calibrated on 128 of its examples, {len(SEEDS)} seeds"
    columns = ["criterion", "level", "error of hidden states", "score, %", "drop, %"]
    return table(title, columns, rows)


def _score(workspace: OpenWorkspace, asked: dict[str, Any]) -> float:
    done = finetune.finetune(workspace, {**RECIPE, **asked})
    metric = get(TASK).metric
    return next(m.value for m in done.outcome.measurements if m.name == metric and m.step is None)


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return f"{100 * mean:.1f} ({', '.join(f'{100 * v:.1f}' for v in values)})"
