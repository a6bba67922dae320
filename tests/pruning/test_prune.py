"""A pruned folder is the model it came from, but for exactly the weights that went."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune as torch_prune
from transformers.pytorch_utils import Conv1D

from jdna_cli.errors import RequestError
from jdna_cli.models import architecture, model_files
from jdna_cli.pruning import prunable
from jdna_cli.sparsity import masks
from tests.conftest import FAMILIES, QUICK


def zeros(folder, names):
    tensors = load_file(folder / "model.safetensors")
    return {name: int((tensors[name] == 0).sum()) for name in names}


def linear_names(model):
    """Every linear layer of a bare backbone, by an independent walk."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


@pytest.mark.slow
def test_half_of_minilm_goes_exactly_and_as_torch_says(jdna, minilm):
    found = jdna("prune", minilm, "--sparsity", 0.5, "--json").json
    folder, pruning = jdna.home / "1", found["pruning"]
    names = [layer["name"] for layer in pruning["layers"]]
    before, after = load_file(minilm / "model.safetensors"), load_file(folder / "model.safetensors")
    assert (
        pruning["pruned"] == round(0.5 * pruning["prunable"]) == sum(zeros(folder, names).values())
    )
    assert pruning["prunable"] == sum(before[name].numel() for name in names)
    for name in before.keys() - set(names):
        assert torch.equal(before[name], after[name])
    gone = torch.cat([before[n][after[n] == 0].abs() for n in names])
    stayed = torch.cat([before[n][after[n] != 0].abs() for n in names])
    assert stayed.min() >= gone.max()

    model = transformers.AutoModel.from_pretrained(minilm)
    assert set(names) == linear_names(model)
    modules = dict(model.named_modules())
    pairs = [(modules[name.removesuffix(".weight")], "weight") for name in sorted(names)]
    torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=0.5)
    for module, name in zip((m for m, _ in pairs), sorted(names), strict=True):
        assert torch.equal(module.weight, after[name])

    loaded, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert all(torch.equal(p, after[n]) for n, p in loaded.named_parameters())


@pytest.mark.slow
def test_four_of_eight_leaves_four_zeros_in_each_group(jdna, minilm):
    found = jdna("prune", minilm, "--pattern", "4:8", "--json").json
    after = load_file(jdna.home / "1" / "model.safetensors")
    for layer in found["pruning"]["layers"]:
        groups = (after[layer["name"]] == 0).reshape(-1, 8)
        assert bool((groups.sum(1) == 4).all())
        assert layer["sparsity"] == 0.5
    assert found["run"]["sparsity_reached"] == 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loses_backbone_matrices_and_nothing_else(jdna, tiny, family):
    source = tiny(family)
    found = jdna("prune", source, "--sparsity", 0.5, "--json").json
    names = {layer["name"] for layer in found["pruning"]["layers"]}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(source))
    prefix = f"{model.base_model_prefix}."
    before = load_file(source / "model.safetensors")
    bare = {name.removeprefix(prefix) for name in names}
    # A published masked language model has no pooler: what is not in the file cannot be pruned.
    assert bare == {n for n in linear_names(model) if "pooler" not in n or family == "bert"}
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed <= names
    assert sum(int((after[n] == 0).sum()) for n in names) == found["pruning"]["pruned"]
    kind = getattr(
        transformers, json.loads((source / "config.json").read_text())["architectures"][0]
    )
    loaded, report = kind.from_pretrained(jdna.home / "1", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.config.model_type == model.config.model_type


def test_n_of_m_runs_along_the_input_also_where_it_is_stored_first(jdna, tiny):
    jdna("prune", tiny("gpt2"), "--pattern", "1:4")
    after = load_file(jdna.home / "1" / "model.safetensors")
    weight = after["transformer.h.0.attn.c_attn.weight"]  # (in, out)
    groups = (weight != 0).T.reshape(-1, 4)
    assert bool((groups.sum(1) == 1).all())


def test_sparsity_zero_changes_no_byte(jdna, bert):
    jdna("prune", bert, "--sparsity", 0)
    before = load_file(bert / "model.safetensors")
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert all(torch.equal(before[n].view(torch.int32), after[n].view(torch.int32)) for n in before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_file_stays_one_and_ties_do_not_change_the_count(jdna, bert, dtype):
    tensors = load_file(bert / "model.safetensors")
    coarse = {n: (t * 20).round().div(20).to(dtype) for n, t in tensors.items()}
    save_file(coarse, bert / "model.safetensors", metadata={"format": "pt"})
    found = jdna("prune", bert, "--sparsity", 0.9, "--json").json
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert {t.dtype for t in after.values()} == {dtype}
    assert found["run"]["bits"] == 16
    already = sum(int((coarse[x["name"]] == 0).sum()) for x in found["pruning"]["layers"])
    asked = round(0.9 * found["pruning"]["prunable"])
    assert found["pruning"]["pruned"] == asked
    zero = sum(int((after[x["name"]] == 0).sum()) for x in found["pruning"]["layers"])
    assert zero == max(asked, already)


def test_a_sharded_model_is_pruned_as_the_whole_one(jdna, bert, tmp_path):
    model = transformers.AutoModel.from_pretrained(bert)
    shards = tmp_path / "shards"
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(model_files.weight_files(shards)) > 2
    jdna("prune", bert, "--sparsity", 0.37)
    jdna("prune", shards, "--sparsity", 0.37)
    whole = transformers.AutoModel.from_pretrained(jdna.home / "1").state_dict()
    parts = transformers.AutoModel.from_pretrained(jdna.home / "2").state_dict()
    assert all(torch.equal(whole[n], parts[n]) for n in whole)


def test_the_mask_file_says_where_the_zeros_are(jdna, bert):
    found = jdna("prune", bert, "--sparsity", 0.3, "--scope", "row", "--json").json
    stored = masks.load(jdna.home / "1" / "mask.safetensors")
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert list(stored) == [layer["name"] for layer in found["pruning"]["layers"]]
    for name, mask in stored.items():
        assert torch.equal(mask.unpacked(), after[name] != 0)
        assert np.allclose(
            (after[name] == 0).float().mean(1), round(0.3 * mask.shape[1]) / mask.shape[1]
        )


def test_include_and_exclude_choose_tensors(jdna, bert):
    found = jdna(
        "prune", bert, "--sparsity", 0.5, "--include", "*attention*", "--exclude", "*.1.*", "--json"
    ).json  # fmt: skip
    names = [layer["name"] for layer in found["pruning"]["layers"]]
    assert len(names) == 4
    assert all("layer.0.attention" in name for name in names)
    assert found["run"]["prunable"] == "+*attention* -*.1.*"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_says_what_would_go_and_why_the_rest_stays(jdna, tiny, family):
    asked = ("prune", tiny(family), "--sparsity", 0.5)
    plan = jdna(*asked, "--dry-run", "--json").json
    assert jdna("runs", "list", "--json").json == {"runs": []}
    found = jdna(*asked, "--json").json["pruning"]
    chosen = [t["name"] for t in plan["tensors"] if t["reason"] is None]
    assert sorted(chosen) == sorted(layer["name"] for layer in found["layers"])
    assert plan["prunable"] == found["prunable"]
    stored = load_file(tiny(family) / "model.safetensors")
    assert {t["name"] for t in plan["tensors"]} == stored.keys()
    for tensor in plan["tensors"]:
        if tensor["name"].endswith("bias"):
            assert tensor["reason"] in ("bias", "not of the backbone: a head, or unused")
    words = {t["reason"] for t in plan["tensors"]}
    assert "embedding, or tied to one" in words
    left_out = jdna(*asked, "--exclude", chosen[0], "--dry-run").out
    assert f"{chosen[0]} " in left_out
    assert "no: left out by --include or --exclude" in left_out


def test_a_dry_run_shows_what_all_blocks_share_in_one_line(jdna, tiny, monkeypatch):
    lines = jdna("prune", tiny("bert"), "--sparsity", 0.5, "--dry-run").out.splitlines()
    key = "attention.self.key.weight [32, 32]"
    assert f"encoder.layer.0…1.{key} × 2  prunable" in lines
    apart = jdna("prune", tiny("bert"), "--sparsity", 0.5, "--exclude", "*0.attention*",
                 "--dry-run").out.splitlines()  # fmt: skip
    assert f"encoder.layer.0.{key}  no: left out by --include or --exclude" in apart
    assert f"encoder.layer.1.{key}  prunable" in apart
    monkeypatch.delenv("COLUMNS")  # no terminal
    plan = jdna("prune", tiny("bert"), "--sparsity", 0.5, "--dry-run").out.splitlines()
    assert f"encoder.layer.0.{key}  prunable" in plan
    assert f"encoder.layer.1.{key}  prunable" in plan


def test_a_sparsity_is_named_as_it_was_asked_for(jdna, tiny):
    for asked, said in ((0.125, "12.5%"), (0.12, "12%"), (0.29, "29%")):
        told = jdna("prune", tiny("bert"), "--sparsity", asked).out
        assert f"at {said} (magnitude global)" in told


def test_collapse_is_reported(jdna, bert):
    tensors = load_file(bert / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] *= 1e-6
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})
    found = jdna("prune", bert, "--sparsity", 0.5, "--json").json
    assert found["pruning"]["collapsed"] == [name]
    assert f"collapsed, at most 1 % of the weights left: {name}" in jdna("runs", "show", 1).out


def test_the_same_command_is_answered_from_the_database(jdna, bert):
    first = jdna("prune", bert, "--sparsity", 0.5, "--json").json
    again = jdna("prune", bert, "--sparsity", 0.5, "--json").json
    assert not first["run"]["cached"]
    assert again["run"]["cached"]
    assert {**again["run"], "cached": False} == first["run"]
    assert again["pruning"] == first["pruning"]
    assert jdna("prune", bert, "--sparsity", 0.5, "--force", "--json").json["run"]["id"] == 2
    with (bert / "model.safetensors").open("r+b") as file:
        file.seek(-2, 2)
        byte = file.read(1)
        file.seek(-2, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert jdna("prune", bert, "--sparsity", 0.5, "--json").json["run"]["id"] == 3


def test_out_names_the_folder(jdna, bert, tmp_path):
    found = jdna("prune", bert, "--sparsity", 0.5, "--out", tmp_path / "pruned", "--json").json
    assert found["run"]["artifact"] == str(tmp_path / "pruned")
    assert (tmp_path / "pruned" / "model.safetensors").is_file()
    again = jdna("prune", "run:1", "--sparsity", 0.8, "--json").json
    assert again["run"]["parent"] == 1
    # A folder that a run wrote is that run's model, however it is named.
    tuned = jdna("finetune", tmp_path / "pruned", *QUICK, "--json").json["run"]
    assert (tuned["parent"], tuned["regime"], tuned["sparsity"]) == (1, "sparse", 0.5)
    jdna("prune", bert, "--sparsity", 0.6, "--out", tmp_path / "pruned", code=2)
    stranger = ("finetune", tmp_path / "pruned", *QUICK, "--home", tmp_path / "elsewhere")
    assert "does not know" in jdna(*stranger, code=2).err


def test_experts_that_are_fused_in_the_files_are_refused(tokenizer, tmp_path):
    config = transformers.GraniteMoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with pytest.raises(Exception, match="fuses several experts") as caught:
        prunable.reasons(tmp_path, [])
    assert caught.value.exit_code == 2


def test_every_step_of_a_chain_is_told_held_and_counted(jdna, bert):
    attention = jdna("prune", bert, "--sparsity", 0.3, "--include", "*attention*", "--json").json
    both = jdna("prune", "run:1", "--sparsity", 0.7, "--exclude", "*attention*", "--json").json
    alone = jdna("prune", bert, "--sparsity", 0.7, "--exclude", "*attention*", "--json").json
    numbers = [found["run"]["id"] for found in (attention, both, alone)]
    rows = jdna("db", "query", "SELECT id, prunable FROM run ORDER BY id", "--format", "json").json
    told = {row["id"]: row["prunable"] for row in rows}
    assert told[numbers[1]] == "-*attention* after [0.3 magnitude global +*attention*]"
    assert told[numbers[2]] == "-*attention*"
    # A fine-tuning holds the zeros of both steps.
    tuned = jdna("finetune", "run:2", *QUICK, "--json").json["run"]
    before = load_file(Path(both["run"]["artifact"]) / "model.safetensors")
    after = load_file(Path(tuned["artifact"]) / "model.safetensors")
    pruned = {x["name"] for found in (attention, both) for x in found["pruning"]["layers"]}
    zeros = 0
    for name, weight in after.items():
        start = before.get(name, before.get(name.removeprefix("bert.")))
        if start is not None and name.removeprefix("bert.") in pruned:
            zeros += int((start == 0).sum())
            assert bool((weight[start == 0] == 0).all()), name
    assert zeros == attention["pruning"]["pruned"] + both["pruning"]["pruned"]
    drops = jdna("db", "query", "SELECT prunable FROM performance", "--format", "json").json
    assert [row["prunable"] for row in drops] == [told[numbers[1]]]


def test_zeros_are_counted_in_the_file(jdna, bert):
    jdna("prune", bert, "--sparsity", 0.5)
    again = jdna("prune", "run:1", "--sparsity", 0.3, "--criterion", "random", "--json").json
    written = load_file(Path(again["run"]["artifact"]) / "model.safetensors")
    for layer in again["pruning"]["layers"]:
        share = float((written[layer["name"]] == 0).double().mean())
        assert layer["sparsity"] == pytest.approx(share, abs=1e-12)
    assert again["pruning"]["sparsity"] > 0.5
    assert again["run"]["sparsity_reached"] == pytest.approx(again["pruning"]["sparsity"])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.XLNetConfig(d_model=32, n_layer=1, n_head=2, d_inner=64), "three dimensions"),
        (transformers.SqueezeBertConfig(
            hidden_size=32, embedding_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=64), "convolutions"),
    ],
    ids=["xlnet", "squeezebert"],
)  # fmt: skip
def test_what_is_no_matrix_is_refused_for_what_it_is(config, reason, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=reason):
        prunable.reasons(tmp_path, [])


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (transformers.BertConfig(max_position_embeddings=64), 64),
        (transformers.RobertaConfig(max_position_embeddings=66, pad_token_id=1), 64),
        (transformers.MPNetConfig(max_position_embeddings=66, pad_token_id=1), 64),
        (transformers.LongformerConfig(max_position_embeddings=66, pad_token_id=1), 64),
        (transformers.GPT2Config(n_positions=64), 64),
        (transformers.T5Config(), None),
        (transformers.XLNetConfig(d_model=32, n_layer=1, n_head=2, d_inner=64), None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_positions_are_those_of_the_model(config, positions, tmp_path):
    config.save_pretrained(tmp_path)
    assert architecture.architecture(tmp_path).positions == positions


def test_an_architecture_is_remembered_by_its_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    first = architecture.architecture(tmp_path)
    (file,) = (tmp_path / "cache" / "jdna" / "architectures").iterdir()
    architecture._known.cache_clear()
    assert architecture.architecture(tmp_path) == first
    file.write_text("damaged")
    architecture._known.cache_clear()
    assert architecture.architecture(tmp_path) == first
    transformers.BertConfig(num_hidden_layers=2).save_pretrained(tmp_path)
    assert len(architecture.architecture(tmp_path).matrices) > len(first.matrices)


def test_types_that_cannot_be_pruned_are_told_by_the_dry_run(jdna, bert):
    file = bert / "model.safetensors"
    tensors = load_file(file)
    name = "encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, file, metadata={"format": "pt"})
    for way in (("--sparsity", 0.5), ("--quantize", 4)):
        found = jdna("prune", bert, *way, "--dry-run", code=2)
        assert f"{name} is stored as F8_E4M3" in found.err


def test_a_whole_file_goes_before_an_index_as_everywhere(jdna, bert):
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    found = jdna("prune", bert, "--sparsity", 0.5)
    assert "model.safetensors is read; the index beside it, and what it names, is not" in found.err
    (bert / "model.safetensors").rename(bert / "model-00009-of-00009.safetensors")
    found = jdna("prune", bert, "--sparsity", 0.5, code=2)
    assert "names model-00001-of-00002.safetensors, which is not there" in found.err
