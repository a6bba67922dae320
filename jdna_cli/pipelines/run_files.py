"""Where a run computes and what it leaves there."""

from __future__ import annotations

import json
from pathlib import Path

from jdna_cli.compute.versions import versions
from jdna_cli.results import Outcome
from jdna_cli.scoring.scorer import EvalResult
from jdna_cli.specs import Spec
from jdna_cli.tasks.datasets import Records


def write_predictions(target: Path, split: str, records: Records, result: EvalResult) -> None:
    """One JSON line per example, or window of a text: its name, and what the model made of it."""
    if not result.rows:
        return
    with (target / f"predictions-{split}.jsonl").open("w", encoding="utf-8") as file:
        for name, row in zip(result.names or records.ids, result.rows, strict=True):
            file.write(json.dumps({"id": name, **row}, ensure_ascii=False) + "\n")


def write_records(target: Path, spec: Spec, outcome: Outcome) -> None:
    """`spec.json` and `metrics.jsonl`, so that a folder tells what it is without the database."""
    asked = {"kind": spec.kind, **spec.model_dump(mode="json"), "versions": versions()}
    (target / "spec.json").write_text(json.dumps(asked, indent=2) + "\n")
    with (target / "metrics.jsonl").open("w") as file:
        for m in outcome.measurements:
            row = {"split": m.split, "name": m.name, "value": m.value, "step": m.step}
            file.write(json.dumps(row) + "\n")
        for one in outcome.sensitivities:
            file.write(json.dumps(vars(one)) + "\n")
        for p in outcome.points:
            row = {"alpha": p.alpha, "loss": p.loss, "score": p.score}
            file.write(json.dumps(row) + "\n")
