"""Every family of models, and every kind of task on every form of them, through all commands."""

import json
import shutil

import pytest

from jdna_cli.tasks import lookup
from jdna_cli.tasks.metrics import LOWER_IS_BETTER
from tests import toys

FITTING = {
    "encoder": ("classification", "regression", "multiple-choice", "arithmetic"),
    "decoder": tuple(toys.KINDS),
    "encoder-decoder": tuple(kind for kind in toys.KINDS if kind != "language-modelling"),
}
# What a model that knows nothing would reach: one class of two, one option of five, one equation of
# two, one colour of six, no common words, all words of the text equally likely.
GUESSING = {
    "classification": 0.6,
    "regression": 0.3,
    "multiple-choice": 0.4,
    "arithmetic": 0.6,
    "question-answering": 0.4,
    "translation": 0.1,
    "language-modelling": 100.0,
}


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("toys") / "data", train=144)


# Each kind of task on each form of model, and each family through what tells it apart;
# tests/scoring/test_batch_invariance.py has every family with every kind.
KINDS_OF = {
    "bert": ("regression", "arithmetic"),
    "roberta": ("classification",),
    "deberta": ("multiple-choice",),
    "gpt2": ("regression", "language-modelling"),
    "llama": ("multiple-choice", "question-answering"),
    "mistral": ("classification", "arithmetic"),
    "qwen": ("translation",),
    "t5": ("arithmetic", "question-answering"),
    "bart": ("regression", "multiple-choice", "translation"),
    "mbart": ("classification",),
}


# By `make test-all`: one of those that write is tried by each form of model in any case.
LONGEST = {("bart", "translation"), ("bart", "regression"), ("bart", "multiple-choice"),
           ("bert", "arithmetic"), ("t5", "question-answering"), ("t5", "arithmetic"),
           ("mistral", "classification"), ("mbart", "classification"),
           ("deberta", "multiple-choice"), ("gpt2", "regression"),
           ("qwen", "translation")}  # fmt: skip


def test_each_kind_is_tried_on_each_form_of_model():
    tried = {(kind, toys.form(family)) for family, kinds in KINDS_OF.items() for kind in kinds}
    assert set(KINDS_OF) == set(toys.FAMILIES)
    assert tried == {(kind, form) for form, kinds in FITTING.items() for kind in kinds}


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family, kind, marks=pytest.mark.long if (family, kind) in LONGEST else ())
        for family, kinds in KINDS_OF.items()
        for kind in kinds
    ],
)
def test_a_cell_from_pruning_to_the_report(jdna, families, toy_data, family, kind):
    task = lookup.get(toys.KINDS[kind])
    where = ("--task", task.name, "--data-dir", toy_data)
    epochs = 10 if kind == "translation" else 6
    recipe = ("--lr", 5e-3, "--batch-size", 8, "--epochs", epochs, "--max-length", 64)
    args = (families(family), *where, *recipe, "--checkpoint-every", 0, "--json")
    dense = jdna("finetune", *args).json
    score = dense["metrics"][task.metric]
    lower = task.metric in LOWER_IS_BETTER
    assert (score < GUESSING[kind]) if lower else (score > GUESSING[kind])

    pruned = jdna("finetune", *args, "--sparsity", 0.5).json
    assert pruned["run"]["id"] == 3
    zeros = jdna("runs", "show", 2, "--json").json["layers"]
    total = sum(_size(layer["shape"]) for layer in zeros)
    gone = sum(round(layer["sparsity"] * _size(layer["shape"])) for layer in zeros)
    assert gone == round(0.5 * total)
    assert pruned["run"]["sparsity_reached"] == pytest.approx(0.5, abs=0.5 / total)

    again = jdna("eval", "run:1", *where, "--json").json
    for name in ("loss", task.metric):
        assert again["metrics"][name] == pytest.approx(dense["metrics"][name], rel=1e-5)

    line = jdna("interpolate", "run:1", "run:3", *where, "--points", 2, "--json").json
    for end, run in ((0, dense), (-1, pruned)):
        assert line["points"][end]["loss"] == pytest.approx(run["metrics"]["loss"], rel=1e-5)
        assert line["points"][end]["score"] == pytest.approx(run["metrics"][task.metric], rel=1e-5)

    (cell,) = [
        row for row in json.loads(jdna("report", "--format", "json").out) if row["sparsity"] == 0.5
    ]
    assert cell["task"] == task.name
    worse = pruned["metrics"][task.metric]
    assert cell["mean_relative"] == pytest.approx(score / worse if lower else worse / score)


def _size(shape):
    return shape[0] * shape[1]


def test_a_package_that_a_tokenizer_needs_is_named(jdna, tmp_path, families):
    folder = shutil.copytree(families("bert"), tmp_path / "japanese")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    found = jdna("finetune", folder, "--task", "living", code=2)
    assert len(found.err.strip().splitlines()) == 1
    assert "needs a package that is not here" in found.err
    assert "fugashi" in found.err


def test_a_tokenizer_that_ends_no_text_is_refused_where_the_end_is_read(jdna, tmp_path, families):
    folder = shutil.copytree(families("t5"), tmp_path / "t5")
    for file in folder.glob("*token*"):
        file.unlink()
    toys.tokenizer_for("llama").save_pretrained(folder)
    found = jdna("finetune", folder, "--task", "living", code=2)
    assert "t5 classifies by the token that ends a text" in found.err
    assert len(found.err.strip().splitlines()) == 1
