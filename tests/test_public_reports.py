"""What was reported of neighbouring tools, tried here; docs/correctness.md has the list."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from jdna_cli.models import model_files
from jdna_cli.scoring.setup import prepare, scorer_for
from jdna_cli.specs import EvalSpec, ModelSource
from jdna_cli.tasks import lookup
from tests import toys


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("data"), train=16, validation=8)


def zeros(folder):
    stored = load_file(folder / "model.safetensors")
    return {name: int((tensor == 0).sum()) for name, tensor in stored.items()}


def edited(folder, target, change):
    """A copy of a model whose tensors were changed."""
    copy = shutil.copytree(folder, target)
    stored = load_file(copy / "model.safetensors")
    changed = {name: change(name, tensor).contiguous() for name, tensor in stored.items()}
    save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_pruning_again_counts_all_weights_and_takes_no_more_than_asked(jdna, families):
    once = jdna("prune", families("bert"), "--sparsity", 0.37, "--json").json["run"]["id"]
    same = jdna("prune", f"run:{once}", "--sparsity", 0.37, "--json").json["run"]["id"]
    more = jdna("prune", f"run:{once}", "--sparsity", 0.71, "--json").json["run"]["id"]
    at_once = jdna("prune", families("bert"), "--sparsity", 0.71, "--json").json["run"]["id"]
    there = {i: zeros(jdna.home / str(i)) for i in (once, same, more, at_once)}
    assert there[once] == there[same]
    assert there[more] == there[at_once]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_few_samples_have_an_inverse(jdna, families, data, family, samples):
    source = ("--calibration", "rte" if family == "bert" else "wikitext2", "--data-dir", data)
    counts = ("--calibration-samples", samples, "--calibration-length", 2)
    for way in (("--criterion", "sparsegpt", "--sparsity", 0.5),
                ("--quantize", 4, "--rounding", "gptq")):  # fmt: skip
        run = jdna("prune", families(family), *way, *source, *counts, "--json").json["run"]
        stored = load_file(jdna.home / str(run["id"]) / "model.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_dead_rows_and_columns_stay_dead_and_nothing_else_is_lost(jdna, families, data, tmp_path):
    def change(name, tensor):
        if "layers.0." in name and tensor.ndim == 2:
            tensor[:, 3] = tensor[5, :] = 0
        return tensor

    folder = edited(families("llama"), tmp_path / "dead", change)
    source = ("--calibration", "wikitext2", "--calibration-samples", 4, "--data-dir", data)
    for way in (("--criterion", "sparsegpt", "--sparsity", 0.5),
                ("--criterion", "wanda", "--pattern", "2:4"),
                ("--quantize", 4, "--rounding", "gptq")):  # fmt: skip
        line = ("prune", folder, *way, *source, "--calibration-length", 16, "--json")
        run = jdna(*line).json["run"]
        for name, tensor in load_file(jdna.home / str(run["id"]) / "model.safetensors").items():
            assert torch.isfinite(tensor).all()
            if "layers.0." in name and tensor.ndim == 2:
                assert not tensor[:, 3].any()
                assert not tensor[5].any()


def test_weights_that_vanish_when_squared_and_equal_ones_are_counted_exactly(
    jdna, families, tmp_path
):
    small = edited(families("bert"), tmp_path / "small", lambda name, tensor: tensor * 1e-30)
    assert jdna("prune", small, "--sparsity", 0.5, "--json").json["pruning"]["sparsity"] == 0.5
    equal = edited(
        families("bert"), tmp_path / "equal",
        lambda name, tensor: torch.full_like(tensor, 0.5) if tensor.ndim == 2 else tensor,
    )  # fmt: skip
    found = jdna("prune", equal, "--sparsity", 0.3, "--json").json["pruning"]
    assert found["pruned"] == round(0.3 * found["prunable"])


def test_a_conversation_begins_once(families, data, tmp_path):
    folder = shutil.copytree(families("llama"), tmp_path / "chat")
    tokenizer = model_files.tokenizer_of(folder)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
        "assistant "
    )
    tokenizer.save_pretrained(folder)
    for chat in (True, False):
        spec = EvalSpec(model="m", task="arc_easy", split="validation", chat=chat)
        scorer = scorer_for(spec, lookup.get("arc_easy"), ModelSource("m", folder, "m"))
        part = prepare(scorer, "validation", data)
        for own in part.encoded.pairs:
            assert all(pair.prompt.count(tokenizer.bos_token_id) <= 1 for pair in own)
    assert scorer.tokens.tokenizer.bos_token_id is not None


def test_tied_embeddings_stay_tied_in_what_is_written(jdna, data, tmp_path):
    tokenizer = toys.tokenizer_for("llama")
    config = toys.config_for("llama", len(tokenizer))
    config.tie_word_embeddings = True
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    tokenizer.save_pretrained(tmp_path / "tied")
    recipe = ("--task", "mawps", "--data-dir", data, "--epochs", 1, "--max-length", 32)
    run = jdna("finetune", tmp_path / "tied", *recipe, "--sparsity", 0.5, "--json").json["run"]
    folder = jdna.home / str(run["id"])
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_empty_texts_are_texts(jdna, families, tmp_path, family):
    folder = tmp_path / "data" / "rte"
    folder.mkdir(parents=True)
    rows = [{"idx": i, "sentence1": "", "sentence2": "" if i % 2 else "the dog", "label": i % 2}
            for i in range(8)]  # fmt: skip
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--task", "rte", "--data-dir", tmp_path / "data", "--epochs", 1, "--batch-size", 4)
    assert jdna("finetune", families(family), *asked, "--json").json["metrics"]["loss"] > 0


def test_what_a_conversation_says_is_no_mark_of_it(families, tmp_path):
    """A text that spells the end of a turn does not end it."""
    folder = shutil.copytree(families("llama"), tmp_path / "chat")
    tokenizer = model_files.tokenizer_of(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ eos_token }} {% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    place = tmp_path / "data" / "arc_easy"
    place.mkdir(parents=True)
    choices = {"label": ["A", "B"], "text": ["dog </s> cat", "red"]}
    row = {"question": "what </s> is <s> red ?", "choices": choices, "answerKey": "B"}
    (place / "validation.jsonl").write_text(json.dumps(row) + "\n")
    spec = EvalSpec(model="m", task="arc_easy", split="validation", chat=True)
    scorer = scorer_for(spec, lookup.get("arc_easy"), ModelSource("m", folder, "m"))
    (pairs,) = prepare(scorer, "validation", tmp_path / "data").encoded.pairs
    for pair in pairs:
        assert pair.prompt.count(tokenizer.eos_token_id) == 1
        assert tokenizer.eos_token_id not in pair.target
        assert tokenizer.bos_token_id not in pair.prompt[1:]
