"""Adapters train in place of the weights, and are merged under the mask that the regime holds."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from jdna_cli.sparsity import masks
from tests import toys

LORA = ("--lora", 4, "--lr", 5e-3, "--epochs", 2, "--max-length", 48)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("lora") / "data", train=48, validation=16)


def tensors(folder):
    return load_file(folder / "model.safetensors")


def bare(name):
    return name.removeprefix("bert.").removeprefix("transformer.").removeprefix("model.")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_zeros_stay_zeros_and_nothing_but_matrices_and_the_head_moves(jdna, families, data, family):
    found = jdna("finetune", families(family), "--task", "rte", "--data-dir", data, *LORA,
                 "--sparsity", 0.4, "--json").json  # fmt: skip
    assert found["run"]["adapter"] == "lora, rank 4, alpha 8"
    before, after = tensors(jdna.home / "1"), tensors(jdna.home / "2")
    start = {bare(name): tensor for name, tensor in before.items()}
    mask = {bare(n): m for n, m in masks.load(jdna.home / "2" / "mask.safetensors").items()}
    moved = 0
    for name, tensor in after.items():
        if (first := start.get(bare(name))) is None or first.shape != tensor.shape:
            continue
        kept = mask.get(bare(name))
        if kept is None:
            assert torch.equal(tensor, first), name  # norms, embeddings, biases
            continue
        stays = kept.unpacked()
        assert int(torch.count_nonzero(tensor)) <= kept.kept
        assert (tensor[~stays] == 0).all()
        delta = tensor - first
        moved += int(torch.count_nonzero(delta))
    assert moved > 0
    pruned = {x["name"]: x["sparsity"] for x in jdna("runs", "show", 2, "--json").json["layers"]}
    assert sum(pruned.values()) > 0
    assert found["run"]["sparsity_reached"] == pytest.approx(0.4, abs=1e-3)


def test_without_a_mask_what_is_merged_is_of_the_rank_asked(jdna, families, data):
    jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, *LORA, "--lora-targets",
         "query", "--lora-targets", "attention.output.dense")  # fmt: skip
    before = {bare(n): t for n, t in tensors(families("bert")).items()}
    for name, tensor in tensors(jdna.home / "1").items():
        if bare(name) not in before or tensor.ndim < 2:
            continue
        delta = tensor - before[bare(name)]
        adapted = "query" in name or "attention.output.dense" in name
        rank = int(torch.linalg.matrix_rank(delta.double(), rtol=1e-4)) if adapted else 0
        assert rank == (4 if adapted else 0), name
        assert adapted or torch.equal(tensor, before[bare(name)])


@pytest.mark.parametrize(
    ("regime", "held"),
    [("dense-frozen", "small"), ("large-frozen", "large"), ("sparse-to-dense", "nothing")],
)
def test_each_regime_holds_what_it_says(jdna, families, data, regime, held):
    jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, *LORA, "--sparsity",
         0.5, "--regime", regime)  # fmt: skip
    first = {bare(n): t for n, t in tensors(families("bert")).items()}
    after = tensors(jdna.home / "2")
    for name, kept in masks.load(jdna.home / "2" / "mask.safetensors").items():
        stays, own = kept.unpacked(), after[name]
        if held == "nothing":
            assert int(torch.count_nonzero(own)) > kept.kept  # regrown
            continue
        frozen = ~stays if held == "small" else stays
        assert torch.equal(own[frozen], first[bare(name)][frozen])
        assert not torch.equal(own[~frozen], first[bare(name)][~frozen])


def test_what_was_measured_in_training_is_what_the_merged_model_gives(jdna, families, data):
    where = ("--task", "rte", "--data-dir", data)
    tuned = jdna("finetune", families("llama"), *where, *LORA, "--sparsity", 0.5, "--json").json
    again = jdna("eval", "run:2", *where, "--json").json
    assert again["metrics"]["loss"] == pytest.approx(tuned["metrics"]["loss"], abs=1e-6)
    assert again["metrics"]["accuracy"] == tuned["metrics"]["accuracy"]
    assert again["run"]["adapter"] == tuned["run"]["adapter"]
    assert jdna("runs", "verify").code == 0


def test_a_resumed_training_of_adapters_ends_in_the_same_bits(jdna, families, data, monkeypatch):
    from jdna_cli.training import loop

    asked = ("finetune", families("bert"), "--task", "rte", "--data-dir", data, *LORA, "--sparsity",
             0.5, "--checkpoint-every", 2)  # fmt: skip
    jdna(*asked)
    whole = tensors(jdna.home / "2")
    step = loop.Training._step

    def dies(self, number):
        if number == 4:
            raise KeyboardInterrupt
        step(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "_step", dies)
        jdna(*asked, "--force", code=130)
    kept = next((jdna.home / "3").parent.rglob("checkpoint-4/tensors.safetensors"))
    names = [n for n in load_file(kept) if n.startswith("model.")]
    assert all("lora_" in name or "classifier" in name for name in names)  # no matrix of the model
    jdna(*asked, "--force", "--resume")
    number = max(int(p.name) for p in jdna.home.iterdir() if p.name.isdigit())
    resumed = tensors(jdna.home / str(number))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_kept_adapters_are_peft_s_and_name_a_model_again(jdna, families, data, tmp_path):
    where = ("--task", "wikitext2", "--data-dir", data)
    source = families("llama")
    tuned = jdna("finetune", source, *where, *LORA, "--lora-keep", "--json").json
    folder = jdna.home / "1" / "adapter"
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(source)
    theirs = peft.PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
    ours = tensors(jdna.home / "1")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)
    measured = jdna("eval", folder, *where, "--max-length", 48, "--json").json
    assert measured["metrics"]["loss"] == pytest.approx(tuned["metrics"]["loss"], abs=1e-5)
    # Of another base it is refused, in one line.
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    told = json.loads((other / "adapter_config.json").read_text())
    told["base_model_name_or_path"] = str(families("bert"))
    (other / "adapter_config.json").write_text(json.dumps(told))
    assert "an adapter of another base" in jdna("eval", other, *where, code=2).err
    wide = {n: torch.zeros(t.shape[0], t.shape[1] + ("lora_A" in n)) for n, t in
            load_file(folder / "adapter_model.safetensors").items()}  # fmt: skip
    told["base_model_name_or_path"] = str(source)
    (other / "adapter_config.json").write_text(json.dumps(told))
    save_file(wide, other / "adapter_model.safetensors")
    assert "an adapter of another base" in jdna("eval", other, *where, code=2).err
    told["peft_type"] = "IA3"
    (other / "adapter_config.json").write_text(json.dumps(told))
    assert "LoRA alone is merged" in jdna("eval", other, *where, code=2).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lora", 0), "--lora: Input should be greater than or equal to 1"),
        (("--lora", 4, "--lora-targets", "nothing"), "matches none of the"),
        (("--lora-alpha", 8), "goes with --lora RANK alone"),
        (("--lora", 4, "--dynamics"), "not with --lora"),
        (("--lora", 4, "--sparsity", 0.5, "--schedule", "iterative"), "not with --lora"),
        (("--lora", 4, "--quantize", 4), "leave --lora out"),
    ],
)
def test_adapters_that_make_no_sense_are_refused_in_one_line(jdna, families, data, words, said):
    refused = jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, *words,
                   code=2)  # fmt: skip
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_adapters_stand_beside_full_fine_tuning(jdna, families, data):
    recipe = ("--task", "rte", "--data-dir", data, "--epochs", 1, "--max-length", 48)
    for way in ((), ("--lora", 4)):
        for pruned in ((), ("--sparsity", 0.5)):
            jdna("finetune", families("bert"), *recipe, *way, *pruned)
    rows = jdna("report", "--json").json["rows"]
    assert {row["adapter"] for row in rows} == {None, "lora, rank 4, alpha 8"}
    assert all(row["mean_relative_drop"] is not None for row in rows)
    table = jdna("report", "regimes").out
    assert "sparse · lora, rank 4, alpha 8" in table
    assert len([line for line in table.splitlines() if line.startswith("sparse ")]) == 2
    need = jdna("finetune", families("bert"), *recipe, "--lora", 4, "--dry-run", "--json").json
    full = jdna("finetune", families("bert"), *recipe, "--dry-run", "--json").json
    sizes = [{n["what"]: n["bytes"] for n in told["memory"]} for told in (need, full)]
    assert sizes[0]["moments of AdamW"] < sizes[1]["moments of AdamW"]
