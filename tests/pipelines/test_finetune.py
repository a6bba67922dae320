"""Fine-tuning: the recipe is what it says, regimes hold, a resumed run is the uninterrupted one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from jdna_cli.compute import devices
from jdna_cli.errors import InterruptedRunError
from jdna_cli.run_context import RunContext
from jdna_cli.scoring import batches, setup
from jdna_cli.sparsity import masks
from jdna_cli.sparsity.regimes import REGIMES, Constraint
from jdna_cli.specs import FinetuneSpec, ModelSource
from jdna_cli.tasks import datasets, lookup
from jdna_cli.training import checkpoints
from jdna_cli.training.loop import Training, learning_rate
from tests import toys
from tests.conftest import QUICK, impatience

LIVING = lookup.get("living")


def weights(folder):
    return load_file(folder / "model.safetensors")


def bits(tensor):
    return tensor.view(torch.int32)


def pretrained(folder, trained):
    """The pre-trained tensors under the names that a fine-tuned model's file uses."""
    return {f"bert.{n}": t for n, t in weights(folder).items() if f"bert.{n}" in trained}


@pytest.mark.parametrize("regime", [n for n, r in REGIMES.items() if r.needs == "weights"])
def test_each_regime_on_the_command_line_does_to_the_weights_what_it_says(jdna, bert, regime):
    args = ("--regime", regime, "--sparsity", 0.5, "--weight-decay", 0.01, *QUICK)
    found = jdna("finetune", bert, *args, "--json").json
    run = found["run"]
    assert run["parent"] == 1
    assert run["id"] == 2
    after, before = weights(jdna.home / "2"), {}
    before = pretrained(bert, after)
    for name, mask in masks.load(jdna.home / "2" / "mask.safetensors").items():
        kept = mask.unpacked()
        small, now, then = ~kept, after[name], before[name]
        if regime == "sparse":
            assert bool((bits(now)[small] == 0).all())
        if regime == "dense-frozen":
            assert torch.equal(bits(now)[small], bits(then)[small])
        if regime == "large-frozen":
            assert torch.equal(bits(now)[kept], bits(then)[kept])
            assert bool((now[small] != then[small]).any())
        else:
            assert bool((now[kept] != then[kept]).any())
        if regime in ("sparse-to-dense", "reinit"):
            assert bool((now[small] != 0).any())
    if regime == "sparse":
        assert run["sparsity_reached"] == 0.5
    if regime == "sparse-to-dense":
        assert run["sparsity_reached"] < 0.5
    assert {"loss", "accuracy", "best_accuracy", "best_epoch"} <= found["metrics"].keys()


def test_fine_tuning_a_pruned_run_is_the_same_cell_as_pruning_on_the_way(jdna, bert):
    jdna("prune", bert, "--sparsity", 0.5)
    first = jdna("finetune", "run:1", *QUICK, "--json").json
    assert first["run"]["regime"] == "sparse"
    assert first["run"]["parent"] == 1
    second = jdna("finetune", bert, "--sparsity", 0.5, *QUICK, "--json").json
    assert second["run"]["cached"]
    assert second["run"]["id"] == first["run"]["id"]
    frozen = jdna("finetune", "run:1", "--regime", "dense-frozen", *QUICK, "--json").json
    assert frozen["run"]["sparsity_reached"] < 0.01


def test_a_fine_tuned_sparse_model_keeps_its_mask_when_trained_on(jdna, bert):
    jdna("finetune", bert, "--sparsity", 0.5, *QUICK)
    again = jdna("finetune", "run:2", "--seed", 5, *QUICK, "--json").json
    assert again["run"]["regime"] == "sparse"
    assert again["run"]["sparsity_reached"] == 0.5
    assert again["run"]["criterion"] == "magnitude"


def spec_for(folder, **changes):
    fields = {"model": str(folder), "task": "living", "epochs": 2, "lr": 1e-3, "batch_size": 8}
    return FinetuneSpec(**{**fields, **changes})


def training_for(folder, spec, count=90):
    source = ModelSource("m", folder, "m")
    scorer = setup.scorer_for(spec, LIVING, source)
    encoded = scorer.encode(datasets.load(LIVING, "train", None).chosen(range(count)))
    accelerator = devices.accelerator("no")
    torch.manual_seed(spec.seed)
    model = scorer.load(source, new_head=True, seed=spec.seed)
    model.to(accelerator.device)
    constraint = Constraint(dict(model.named_parameters()), {}, REGIMES["dense"])
    return Training(model, encoded, scorer, spec, constraint, accelerator), encoded, model


def quiet(tmp_path, stop=lambda: 0):
    return RunContext(tmp_path / "out", None, tmp_path / "work", stop=stop)


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.1}, {"max_grad_norm": 0.5}])
def test_dense_training_is_a_plain_loop_of_the_same_recipe(tiny, tmp_path, changes):
    spec = spec_for(tiny("bert"), **changes)
    training, encoded, model = training_for(tiny("bert"), spec)
    training.run(quiet(tmp_path), lambda *_: [])

    torch.manual_seed(spec.seed)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny("bert"), num_labels=2, dtype=torch.float32
    )
    decayed = [p for p in plain.parameters() if p.ndim >= 2]
    rest = [p for p in plain.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": rest}]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, weight_decay=0.0)
    order = [
        indices
        for epoch in range(spec.epochs)
        for indices in batches.training_order(encoded.lengths, 8, spec.seed, epoch)
    ]
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, -(-len(order) * 6 // 100), len(order)
    )
    plain.train()
    for indices in order:
        inputs, labels = encoded.features.batch(indices), encoded.labels[indices]
        plain(**inputs, labels=labels).loss.backward()
        if spec.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    theirs = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-4, atol=1e-5)


def test_accumulated_batches_are_one_large_batch(tiny, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny("bert"))
    still = tmp_path / "still"
    shutil.copytree(tiny("bert"), still)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(still)
    large, _, one = training_for(still, spec_for(still, batch_size=90, epochs=3))
    small, _, other = training_for(
        still, spec_for(still, batch_size=8, gradient_accumulation=12, epochs=3)
    )
    assert large.total == small.total == 3
    large.run(quiet(tmp_path), lambda *_: [])
    small.run(quiet(tmp_path), lambda *_: [])
    theirs = dict(other.named_parameters())
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-3, atol=2e-5)


def test_the_rate_is_that_of_transformers():
    spec = spec_for("m", lr=0.3, warmup=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 5, 50)
    for step in range(50):
        assert learning_rate(spec, step, 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_batches_hold_each_example_once_and_are_of_similar_length():
    torch.manual_seed(0)
    lengths = torch.randint(5, 120, (1003,)).tolist()
    orders = [batches.training_order(lengths, 16, 41, epoch) for epoch in range(2)]
    for order in orders:
        assert sorted(i for batch in order for i in batch) == list(range(1003))
        assert len(order) == -(-1003 // 16)
    assert orders[0] != orders[1]
    assert orders[0] == batches.training_order(lengths, 16, 41, 0)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in orders[0])
    assert padded < 1.1 * sum(lengths)


@pytest.mark.parametrize(
    ("kind", "regime"),
    [
        *((kind, "sparse") for kind in ("head", "new decoder", "likelihood", "answers")),
        ("head", "dense"),
        ("likelihood", "dense"),
        pytest.param("new decoder", "dense", marks=pytest.mark.long),
        pytest.param("answers", "dense", marks=pytest.mark.long),
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_bits(
    jdna, bert, families, tmp_path, monkeypatch, regime, kind
):
    pruned = () if regime == "dense" else ("--sparsity", 0.5)
    model, task = {
        "head": (bert, "living"),
        "new decoder": (families("bert"), "mawps"),
        "likelihood": (families("llama"), "arc_easy"),
        "answers": (families("t5"), "nq_open"),
    }[kind]
    data = toys.write(tmp_path / "data", train=96, validation=8)
    args = ("finetune", model, *pruned, *QUICK, "--batch-size", 8, "--task", task)
    args = (*args, "--data-dir", data)
    jdna(*args)
    number = 1 if regime == "dense" else 2
    whole = weights(jdna.home / str(number))
    whole_curve = jdna("db", "query", f"SELECT * FROM metric WHERE run = {number}", "--json").json

    with impatience(monkeypatch):
        stopped = jdna(*args, "--force", code=130)
    assert "interrupted at step 7 of 24" in stopped.err
    shown = jdna("runs", "show", number + 1, "--json").json
    assert shown["run"]["status"] == "interrupted"
    resumed = jdna(*args, "--resume", "--force", "--json")
    assert resumed.json["run"]["id"] == number + 1
    assert "resumed at step 7 of 24" in resumed.err
    again = weights(jdna.home / str(number + 1))
    assert whole.keys() == again.keys()
    assert all(torch.equal(bits(whole[n]), bits(again[n])) for n in whole)
    curve = jdna("db", "query", f"SELECT * FROM metric WHERE run = {number + 1}", "--json").json

    def numbers(found):
        return [row[2:] for row in found["rows"] if row[3] != "examples_per_second"]

    assert numbers(whole_curve) == numbers(curve)


@pytest.mark.slow
def test_a_killed_process_leaves_what_resume_finishes(jdna, bert, tmp_path):
    args = ["finetune", str(bert), "--sparsity", "0.5", *map(str, QUICK), "--batch-size", "4"]
    jdna(*args)
    whole = weights(jdna.home / "2")
    home = tmp_path / "killed"
    environment = {**os.environ, "JDNA_HOME": str(home)}
    slow = [*args, "--checkpoint-every", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jdna_cli", *slow], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not checkpoints.steps(home / ".work-2") and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    found = jdna("runs", "list", "--home", home, "--json").json["runs"]
    assert [run["id"] for run in found] == [1, 2]
    resumed = jdna(*slow, "--resume", "--home", home, "--json").json
    assert resumed["run"]["id"] == 2
    assert not resumed["run"]["cached"]
    again = weights(home / "2")
    assert all(torch.equal(bits(whole[n]), bits(again[n])) for n in whole)
    left = {path.name for path in home.glob(".*")}
    assert left == {".database", ".owners"}
    assert not list((home / ".owners").iterdir())
    status = jdna("db", "query", "SELECT status FROM run", "--home", home, "--json").json["rows"]
    assert status == [["finished"], ["finished"]]


@pytest.mark.long
def test_two_processes_fine_tune_into_one_database(jdna, bert):
    environment = {**os.environ, "JDNA_HOME": str(jdna.home)}
    command = [sys.executable, "-m", "jdna_cli", "finetune", str(bert), "--sparsity", "0.5"]
    running = [
        subprocess.Popen(
            [*command, *map(str, QUICK), "--seed", str(seed), "--json"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=250)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    rows = jdna("db", "query", "SELECT run_id, seed, score FROM performance", "--json").json["rows"]
    assert sorted(rows) == sorted(
        [r["run"]["id"], r["run"]["seed"], r["metrics"]["accuracy"]] for r in told
    )


def test_a_damaged_checkpoint_is_passed_over(tiny, tmp_path):
    stopping = iter([0] * 4 + [2])
    training, _, _ = training_for(tiny("bert"), spec_for(tiny("bert"), checkpoint_every=2))
    with pytest.raises(InterruptedRunError):
        training.run(quiet(tmp_path, lambda: next(stopping)), lambda *_: [])
    assert checkpoints.steps(tmp_path / "work") == [5, 4]
    for name in ("tensors.safetensors", "state.json", "manifest.json"):
        for damage in ("missing", "truncated", "flipped"):
            work = tmp_path / f"{name}-{damage}"
            shutil.copytree(tmp_path / "work", work)
            file = work / "checkpoint-5" / name
            content = bytearray(file.read_bytes())
            file.unlink()
            if damage == "truncated":
                file.write_bytes(content[:-3])
            elif damage == "flipped":
                content[len(content) // 2] ^= 1
                file.write_bytes(content)
            found, notes = checkpoints.newest(work, "")
            assert found is not None
            assert found.step == 4
            assert "step 5 is damaged" in notes[0]
    found, notes = checkpoints.newest(tmp_path / "work", "of another seed")
    assert found is None
    assert all("is another request's" in note for note in notes)


def test_a_loss_that_is_not_finite_fails_the_run_at_its_step(jdna, bert):
    found = jdna("finetune", bert, *QUICK, "--lr", 1e18, "--json", code=1)
    assert "is not finite at step" in found.err
    assert found.json["error"]["exit_code"] == 1
    run = jdna("runs", "show", 1, "--json").json
    assert run["run"]["status"] == "failed"
    assert "not finite at step" in run["run"]["error"]
    assert run["metrics"] == {}


def test_curves_and_results_are_recorded(jdna, bert):
    jdna("finetune", bert, *QUICK)
    query = "SELECT split, name, step FROM metric WHERE run = 1"
    rows = {tuple(row) for row in jdna("db", "query", query, "--json").json["rows"]}
    assert {("validation", "accuracy", s) for s in (6, 12, None)} <= rows
    assert {("train", "loss", s) for s in (6, 12, None)} <= rows
    assert ("validation", "best_accuracy", None) in rows
    folder = jdna.home / "1"
    assert {f.name for f in folder.iterdir()} >= {
        "model.safetensors", "config.json", "tokenizer.json", "spec.json", "metrics.jsonl",
        "predictions-validation.jsonl",
    }  # fmt: skip
    answers = [json.loads(x) for x in (folder / "predictions-validation.jsonl").open()]
    right = sum(row["label"] == row["prediction"] for row in answers) / len(answers)
    score = jdna("db", "query", "SELECT score FROM performance", "--json").json["rows"][0][0]
    assert right == pytest.approx(score)
    mode = (folder / "model.safetensors").stat().st_mode & 0o777
    assert mode == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
def test_other_families_are_fine_tuned_sparse(jdna, tiny, family):
    found = jdna("finetune", tiny(family), "--sparsity", 0.5, *QUICK, "--json").json
    assert found["run"]["sparsity_reached"] == 0.5
    again = jdna("eval", "run:2", "--task", "living", "--json").json
    assert again["metrics"]["accuracy"] == found["metrics"]["accuracy"]


@pytest.mark.gpu
def test_on_a_gpu_regimes_hold_and_eval_agrees(jdna, bert):
    for regime in ("sparse", "dense-frozen"):
        found = jdna(
            "finetune", bert, "--regime", regime, "--sparsity", 0.5, "--mixed-precision", "bf16",
            *QUICK, "--json",
        ).json  # fmt: skip
        again = jdna("eval", f"run:{found['run']['id']}", "--task", "living", "--json").json
        assert again["metrics"]["accuracy"] == pytest.approx(found["metrics"]["accuracy"], abs=0.02)
    assert jdna("runs", "show", 2, "--json").json["run"]["sparsity_reached"] == 0.5
