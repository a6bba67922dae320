"""A folder that lacks something is refused in words that are true, and nothing is made up."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests import toys
from tests.conftest import QUICK

SHAPES = {
    "bert": "encoder.layer.0.attention.output.dense.weight",
    "gpt2": "h.0.mlp.c_fc.weight",
    "llama": "layers.0.mlp.gate_proj.weight",
    "t5": "encoder.block.0.layer.0.SelfAttention.q.weight",
}


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_without_its_tokenizer_a_model_is_not_given_an_empty_one(jdna, families, tmp_path, family):
    """Most classes of transformers make one that knows no word, and say nothing."""
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(families(family) / name, tmp_path / "bare")
    found = jdna("finetune", tmp_path / "bare", *QUICK, code=2)
    assert "bare has no usable tokenizer" in found.err
    assert jdna("runs", "list", "--json").json["runs"] == []


@pytest.mark.parametrize("family", SHAPES)
def test_a_matrix_of_another_shape_is_named_with_both(jdna, tiny, tmp_path, family):
    model = shutil.copytree(tiny(family), tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith(SHAPES[family]))
    whole = list(tensors[name].shape)
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    told = f"{list(tensors[name].shape)} in its file, and {whole} by its configuration"
    asked = [("prune", model, "--sparsity", 0.5), ("finetune", model, *QUICK)]
    if family != "bert":
        asked.append(("eval", model, "--task", "bigger"))
    for command in asked:
        found = jdna(*command, code=2)
        assert name.rpartition("block.")[2] in found.err
        assert told in found.err, command
