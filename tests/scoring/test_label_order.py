"""Outputs of a classifier are labels by name; what nobody can know is not guessed."""

import json

import pytest
import torch
import transformers

NAMES = ("contradiction", "neutral", "entailment")
TASK = ("entailment", "neutral", "contradiction")


@pytest.fixture
def published(tmp_path, tokenizer):
    """A classifier with its answers as labels, so that its accuracy is 1, and its task."""
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, initializer_range=2.0, id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = [
        f"There is a {a} {b}"
        for a in ("dog", "saw", "owl", "pen")
        for b in "house gate page".split()
    ]
    rows = []
    for text in texts:
        with torch.no_grad():
            best = int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())
        rows.append({"text": text, "label": NAMES[best]})
    assert len({row["label"] for row in rows}) > 1
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "nli.toml").write_text(
        f'kind = "classification"\ntexts = ["text"]\nlabels = {json.dumps(TASK)}\n'
        f'[source]\nfiles = "{tmp_path}"\n'
    )
    return tmp_path / "model", tmp_path / "nli.toml"


def renamed(folder, names):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))


def test_the_same_names_in_another_order_are_matched(jdna, published):
    model, task = published
    assert jdna("eval", model, "--task", task, "--json").json["metrics"]["accuracy"] == 1.0


@pytest.mark.parametrize("names", [("C", "N", "E"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_other_names_are_refused_with_both_lists_unless_their_order_is_told(jdna, published, names):
    model, task = published
    renamed(model, names)
    found = jdna("eval", model, "--task", task, code=2)
    assert ", ".join(names) in found.err
    assert ", ".join(TASK) in found.err
    told = jdna("eval", model, "--task", task, "--label-order", "2,1,0", "--json").json
    assert told["metrics"]["accuracy"] == 1.0
    wrong = jdna("eval", model, "--task", task, "--label-order", "0,1,2", "--json").json
    assert wrong["metrics"]["accuracy"] < 1.0
    assert (
        "no order of the outputs"
        in jdna("eval", model, "--task", task, "--label-order", "0,1,1", code=2).err
    )


def test_a_new_task_gets_a_new_head_and_the_same_one_keeps_its_own(jdna, published):
    model, task = published
    still = ("--task", task, "--epochs", 1, "--lr", 1e-12, "--json")
    losses = {jdna("finetune", model, *still, "--seed", s).json["metrics"]["loss"] for s in (1, 2)}
    assert len(losses) == 2
    renamed(model, TASK)
    kept = {jdna("finetune", model, *still, "--seed", s).json["metrics"]["loss"] for s in (1, 2)}
    assert max(kept) - min(kept) < 1e-6
