"""What another runtime opens gives what the model gives."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests import toys

TEXTS = [("a dog sleeps", "an animal rests"), ("two stones", "it rains in the city tonight")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("export") / "data", train=24, validation=8)


def opened(folder, kind):
    """The file as its own runtime reads it, without any of jdna's code."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        return lambda inputs: session.run(None, inputs)[0]
    import openvino

    asked = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", asked)
    return lambda inputs: compiled(inputs)[0]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_the_file_gives_the_logits_of_the_fine_tuned_model(jdna, families, data, family, kind):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[kind])
    jdna("finetune", families(family), "--task", "rte", "--data-dir", data, "--epochs", 1,
         "--max-length", 48, "--sparsity", 0.5)  # fmt: skip
    found = jdna("export", "run:2", "--format", kind, "--length", 24, "--json").json
    assert found["run"]["kind"] == "export"
    assert (found["run"]["parent"], found["run"]["sparsity"]) == (2, 0.5)
    folder = jdna.home / "3"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    told = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    model = AutoModelForSequenceClassification.from_pretrained(jdna.home / "2").eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        expected = model(**told).logits
    call = opened(folder, kind)
    logits = torch.tensor(call({name: tensor.numpy() for name, tensor in told.items()}))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert found["metrics"]["time/kernel_difference"] <= 1e-4
    assert jdna("export", "run:2", "--format", kind, "--length", 24, "--json").json["run"]["cached"]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_decoder_is_exported_with_all_its_logits_and_reported(jdna, families, tmp_path, kind):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[kind])
    for way in ((), ("--sparsity", 0.5)):
        source = families("llama")
        if way:
            jdna("prune", source, *way)
            source = "run:2"
        out = tmp_path / ("pruned" if way else "dense")
        jdna("export", source, "--format", kind, "--length", 12, "--out", out)
    model = AutoModelForCausalLM.from_pretrained(jdna.home / "2").eval()
    ids = torch.randint(3, model.config.vocab_size, (2, 7))
    told = {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()}
    with torch.no_grad():
        expected = model(ids).logits
    logits = torch.tensor(opened(tmp_path / "pruned", kind)(told))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    rows = jdna("report", "tradeoff", "--format", "json").json
    exported = {row["id"]: row for row in rows if row["kind"] == "export"}
    assert exported[1]["speed_up"] == 1.0
    ratio = exported[1]["latency_ms"] / exported[3]["latency_ms"]
    assert exported[3]["speed_up"] == pytest.approx(ratio)
    assert "times as fast as the dense one" in jdna("report", "tradeoff").out or ratio >= 1.05
    refused = jdna("eval", "run:3", "--task", "wikitext2", code=2).err
    assert len(refused.strip().splitlines()) == 1


def test_what_cannot_be_exported_is_told_before_anything_is_written(jdna, families, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        missing = jdna("export", families("bert"), "--format", "onnx", code=2).err
    assert "--format onnx needs the extra `onnx`: pip install 'jdna[onnx]' (onnxruntime" in missing
    assert "no-such" in jdna("export", "no-such", "--format", "onnx", code=2).err
    pytest.importorskip("openvino")
    for family, more, message in (
        ("t5", (), "is an encoder-decoder, which is no one graph"),
        ("bert", ("--length", 100_000), "has positions for"),
        ("bert", ("--length", 1), "--length: Input should be greater than or equal to 4"),
    ):
        refused = jdna("export", families(family), "--format", "openvino", *more, code=2).err
        assert message in refused
        assert len(refused.strip().splitlines()) == 1
    assert not any((jdna.home / name).exists() for name in ("1", "2", "3"))
