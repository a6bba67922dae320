"""A GGUF file is a model like any other; what its quantization took away is said."""

import json

import numpy as np
import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer

from jdna_cli.models import gguf_files

gguf = pytest.importorskip("gguf")

TEXT = ("the dog is red", "a cat was blue and green", "the fox has a hen", "what is a bird?") * 8


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A Llama as a GGUF file of 8 bits, and the values that it has."""
    words = ByteLevelBPETokenizer()
    words.train_from_iterator(TEXT, 320, special_tokens=["<|end|>"], show_progress=False)
    known = words.get_vocab()
    config = transformers.LlamaConfig(
        vocab_size=len(known), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    file = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    names = [name for name, _ in sorted(known.items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types([3, *[1] * (len(names) - 1)])
    merges = json.loads(words.to_str())["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    values = {}
    for name, tensor in model.state_dict().items():
        there = _name(name)
        if there is None:
            continue
        array = tensor.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rows = array.reshape(heads, 2, array.shape[0] // heads // 2, array.shape[1])
            array = rows.swapaxes(1, 2).reshape(array.shape)
        if array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(there, packed, raw_dtype=kind)
            values[name] = gguf.quants.dequantize(packed, kind)
        else:
            writer.add_tensor(there, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, values


def _name(name):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
             "output_norm.weight", "lm_head.weight": "output.weight"}  # fmt: skip
    if name in fixed:
        return fixed[name]
    inner = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{inner[rest.removesuffix('.weight')]}.weight"


def test_it_is_pruned_measured_and_opened_again(jdna, written):
    file, values = written
    done = jdna("prune", file, "--sparsity", 0.5, "--json")
    assert "toy.gguf: its weights were Q8_0, and are float32 now" in done.err
    assert "\r" not in done.err
    assert done.json["run"]["model"].endswith("toy.gguf (Q8_0)")
    assert done.json["pruning"]["pruned"] == round(0.5 * done.json["pruning"]["prunable"])
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        jdna.home / "1", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    own = dict(model.named_parameters())
    for name, array in values.items():
        if name in own and "proj" in name and not name.endswith(("q_proj.weight", "k_proj.weight")):
            kept = own[name].detach() != 0
            assert torch.equal(own[name].detach()[kept], torch.from_numpy(array)[kept]), name
    assert gguf_files.quantization_of(jdna.home / "1") == "Q8_0"
    again = jdna("prune", file.parent, "--sparsity", 0.5, "--json").json
    assert again["run"]["cached"]  # the folder that holds it alone is the same model


def test_odd_files_are_one_line(jdna, written, tmp_path):
    file, _ = written
    content = file.read_bytes()
    for name, data in {
        "empty.gguf": b"",
        "words.gguf": b"GGUF? no",
        "short.gguf": content[: len(content) // 3],
        "x-00001-of-00002.gguf": content,
    }.items():
        (tmp_path / name).write_bytes(data)
        told = jdna("prune", tmp_path / name, "--sparsity", 0.5, code=2).err
        assert len(told.strip().splitlines()) == 1, told
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).write_bytes(content)
    assert "2 GGUF files" in jdna("prune", tmp_path / "two", "--sparsity", 0.5, code=2).err
