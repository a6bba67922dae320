"""Mixtures of experts: each expert's matrices are pruned, held and calibrated as any other."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from jdna_cli.models import experts
from tests import toys

EXPERTS = 4
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256,
         "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 2,
         "eos_token_id": 3}  # fmt: skip
OWN = {
    "mixtral": {"num_local_experts": EXPERTS},
    "qwen2_moe": {"num_experts": EXPERTS, "moe_intermediate_size": 24,
                  "shared_expert_intermediate_size": 24},
    "qwen3_moe": {"num_experts": EXPERTS, "moe_intermediate_size": 24, "head_dim": 16},
    "olmoe": {"num_experts": EXPERTS},
}  # fmt: skip


def built(family, folder):
    tokenizer = toys.tokenizer_for("llama")
    torch.manual_seed(0)
    sizes = {**SIZES, **OWN[family], "vocab_size": len(tokenizer), "initializer_range": 0.1}
    config = transformers.AutoConfig.for_model(family, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("experts") / "data", train=24, validation=8)


def of_experts(tensors):
    return {name: tensor for name, tensor in tensors.items() if ".experts." in name}


@pytest.mark.parametrize("family", OWN)
def test_parted_experts_say_and_write_what_the_fused_ones_do(family, tmp_path):
    model, folder = built(family, tmp_path / "model")
    ids = torch.randint(5, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        experts.part_(model)
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)
    assert not [name for name, p in model.named_parameters() if p.ndim == 3]
    model.save_pretrained(tmp_path / "again", state_dict=model.state_dict())
    one, two = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("family", "criterion"),
    [*((family, "magnitude") for family in OWN), ("mixtral", "wanda"), ("qwen2_moe", "sparsegpt")],
)
def test_each_experts_matrix_is_pruned_and_the_model_opens_again(
    jdna, data, tmp_path, family, criterion
):
    _, folder = built(family, tmp_path / "model")
    args = ["--pattern", "2:4", "--criterion", criterion, "--data-dir", data, "--json"]
    if criterion != "magnitude":
        args += ["--calibration", "arc_easy", "--calibration-samples", 4]
    run = jdna("prune", folder, *args).json["run"]
    found = load_file(jdna.home / str(run["id"]) / "model.safetensors")
    matrices = of_experts(found)
    assert len(matrices) == 2 * EXPERTS * 3
    for name, tensor in matrices.items():
        kept = (tensor.view(-1, 4) != 0).sum(1)
        assert kept.eq(2).all(), name
    opened = transformers.AutoModelForCausalLM.from_pretrained(jdna.home / str(run["id"]))
    fused = [p for name, p in opened.named_parameters() if p.ndim == 3]
    assert sum(int((p == 0).sum()) for p in fused) == sum(t.numel() for t in matrices.values()) / 2
    seen = ("--task", "arc_easy", "--data-dir", data, "--json")
    assert jdna("eval", f"run:{run['id']}", *seen).json["metrics"]["loss"] > 0


@pytest.mark.parametrize("regime", ["sparse", "dense-frozen"])
def test_fine_tuning_holds_what_was_pruned_of_each_expert(jdna, data, tmp_path, regime):
    _, folder = built("mixtral", tmp_path / "model")
    before = load_file(folder / "model.safetensors")
    run = jdna("finetune", folder, "--task", "rte", "--sparsity", 0.5, "--regime", regime,
               "--epochs", 1, "--lr", 1e-3, "--data-dir", data, "--json").json["run"]  # fmt: skip
    after = of_experts(load_file(jdna.home / str(run["id"]) / "model.safetensors"))
    pruned = of_experts(load_file(jdna.home / str(run["parent"]) / "model.safetensors"))
    assert after.keys() == pruned.keys() == of_experts(before).keys()
    moved = 0
    for name, tensor in after.items():
        held = pruned[name] == 0
        start = torch.zeros_like(tensor) if regime == "sparse" else before[name]
        assert torch.equal(tensor[held], start[held]), name
        moved += int((tensor != before[name])[~held].sum())
    assert moved


def test_an_expert_sees_the_tokens_that_are_routed_to_it(tmp_path):
    model, _ = built("mixtral", tmp_path / "model")
    experts.part_(model)
    layer = model.model.layers[0].mlp
    seen = {}
    for number, expert in enumerate(layer.experts):
        expert.w1.register_forward_pre_hook(
            lambda _, args, number=number: seen.__setitem__(number, args[0])
        )
    chosen = []
    layer.experts.register_forward_pre_hook(lambda _, args: chosen.append(args))
    with torch.no_grad():
        model(input_ids=torch.arange(5, 35)[None])
    ((states, index, _),) = chosen
    for number in range(EXPERTS):
        assert torch.equal(seen[number], states[(index == number).any(1)])


def test_an_expert_that_saw_too_few_is_told_and_pruned_by_magnitude_if_none(jdna, data, tmp_path):
    model, folder = built("mixtral", tmp_path / "model")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight[0] = 0.0
            layer.mlp.gate.weight[1:] = torch.randn(3, 32)
    model.save_pretrained(folder)
    done = jdna("prune", folder, "--sparsity", 0.5, "--criterion", "wanda", "--calibration",
                "arc_easy", "--calibration-samples", 1, "--data-dir", data)  # fmt: skip
    assert "saw fewer tokens than they have inputs" in " ".join((done.out + done.err).split())
