"""The model card of a run's folder (`README.md`): what was done to a model, and its scores."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from jdna_cli import __version__
from jdna_cli.results import Outcome
from jdna_cli.specs import FinetuneSpec, ModelSource, PruneSpec
from jdna_cli.tasks.task import Task

_HOW = {
    "sparse": "Pruned weights were held at exactly zero while the rest was fine-tuned.",
    "sparse-to-dense": "Pruned weights started at zero and were free to regrow.",
    "dense-frozen": "The weights that pruning would remove kept their pre-trained values bit for "
    "bit; the others were fine-tuned.",
    "reinit": "The small weights started from each other's values, shuffled within a tensor.",
    "large-frozen": "Only the small weights were fine-tuned.",
    "dense": "All weights were fine-tuned; nothing was pruned.",
    "quantized": "Every weight was held on its grid while it was fine-tuned; what was pruned, at "
    "zero.",
    "quantized-to-dense": "Rounded weights were fine-tuned freely.",
}


def write(
    target: Path,
    spec: PruneSpec | FinetuneSpec,
    outcome: Outcome,
    base: ModelSource,
    task: Task | None,
) -> None:
    """Write the card of a pruned or fine-tuned model.

    Args:
        target: the model's folder.
        spec: what was asked.
        outcome: what was measured.
        base: the model that it was made from.
        task: of a fine-tuning.
    """
    # What was fetched lies among the hub's snapshots; any other folder is nobody else's name.
    local = not any(part.startswith("models--") for part in base.folder.parts)
    # A path says something of a machine, and nothing to a reader.
    name = Path(base.name).name if local else base.name
    taken = _taken(spec)
    data = ModelCardData(
        library_name="transformers",
        tags=["jdna", *(["pruned"] if spec.sparsity or spec.pattern else []),
              *(["quantized"] if spec.quantize else [])],
        model_name=f"{name} {taken}".strip(),
        eval_results=_results(outcome, task) or None,
        base_model=None if local else base.name.partition("@")[0],
    )  # fmt: skip
    lines = [f"---\n{data.to_yaml()}\n---", f"# {name}, {taken or 'fine-tuned'}", ""]
    lines += [*_done(spec, outcome, name, task), ""]
    scores = [
        m for m in outcome.measurements if m.step is None and m.split not in ("model", "time")
    ]
    if scores:
        lines += ["| split | measured | value |", "|---|---|---|"]
        lines += [f"| {m.split} | {m.name} | {m.value:.6g} |" for m in scores]
        lines.append("")
    lines += ["`spec.json` has the whole request with its seeds and the versions of all that "
              "computed; `metrics.jsonl` has every number. Made by "
              f"jdna {__version__}."]  # fmt: skip
    (target / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _taken(spec: PruneSpec | FinetuneSpec) -> str:
    parts = [f"pruned to {spec.pattern}"] if spec.pattern else []
    parts += [f"pruned to {100 * spec.sparsity:g}% sparsity"] if spec.sparsity else []
    parts += [f"quantized to {spec.quantize} bits"] if spec.quantize else []
    return " and ".join(parts)


def _done(
    spec: PruneSpec | FinetuneSpec, outcome: Outcome, name: str, task: Task | None
) -> list[str]:
    lines = [f"- Made from: {name}."]
    if spec.pattern or spec.sparsity:
        scope = "within each group" if spec.pattern else f"scope {spec.scope}"
        lines.append(f"- Weights chosen by {spec.criterion} ({scope}).")
    if spec.allocation:
        lines.append(f"- Sparsity of each tensor by {Path(spec.allocation).name}.")
    if spec.calibration:
        lines.append(f"- Calibrated on {Path(spec.calibration).name}.")
    if outcome.layers:
        kept = sum(layer.kept for layer in outcome.layers)
        total = sum(layer.total for layer in outcome.layers)
        lines.append(f"- Zeros among prunable weights: {total - kept:,} of {total:,} "
                     f"({(total - kept) / total:.2%}).")  # fmt: skip
    if isinstance(spec, FinetuneSpec):
        assert task is not None
        lines.append(f"- Fine-tuned on {task.name}: {task.description}.".replace("..", "."))
        lines.append(f"- Regime {spec.regime}: {_HOW[spec.regime]}")
        size = spec.batch_size * spec.gradient_accumulation
        lines.append(
            f"- Seed {spec.seed}, {spec.epochs} epochs, learning rate {spec.lr:g}, batch {size}."
        )
    return lines


def _results(outcome: Outcome, task: Task | None) -> list[EvalResult]:
    if task is None:
        return []
    kinds = {"classification": "text-classification", "regression": "text-classification",
             "language-modelling": "text-generation", "arithmetic": "text-generation"}  # fmt: skip
    return [
        EvalResult(
            task_type=kinds.get(task.kind, task.kind),
            dataset_type=task.name,
            dataset_name=task.name,
            dataset_split=m.split,
            metric_type=m.name,
            metric_value=m.value,
        )
        for m in outcome.measurements
        if m.step is None and m.name in task.metrics
    ]
