"""What a mended mistake changed is never answered from, nor compared with, runs of before."""

import pytest

from jdna_cli.runs import rules
from jdna_cli.tasks import lookup
from tests import toys


@pytest.mark.parametrize("kind", toys.KINDS)
@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_only_what_is_written_or_chosen_by_likelihood_has_a_new_rule(families, family, kind):
    task = lookup.get(toys.KINDS[kind])
    plain = kind in ("classification", "regression")
    headed = kind == "multiple-choice" and family == "bert"
    assert rules.of(task, families(family)) == (1 if plain or headed else rules.LATEST)
    assert (rules.named(1), rules.named(2)) == ({}, {"rule": "2"})


def test_a_run_of_before_is_neither_an_answer_nor_a_reference(
    jdna, families, tmp_path, monkeypatch
):
    data = toys.write(tmp_path / "data", train=8, validation=6)
    args = ("eval", families("llama"), "--task", "arc_easy", "--data-dir", data, "--json")
    with monkeypatch.context() as before:
        before.setattr(rules, "LATEST", 1)
        old = jdna(*args).json["run"]
    new = jdna(*args).json["run"]
    assert (new["cached"], new["id"]) == (False, 2)
    assert jdna(*args).json["run"]["id"] == 2
    rows = jdna("db", "query", "SELECT id, rule, recipe FROM run", "--format", "json").json
    assert [row["rule"] for row in rows] == [1, 2]
    assert rows[0]["recipe"] != rows[1]["recipe"]
    cells = jdna("db", "query", "SELECT run_id, dense_run_id FROM performance ORDER BY run_id",
                 "--format", "json").json  # fmt: skip
    assert [(row["run_id"], row["dense_run_id"]) for row in cells] == [
        (old["id"], old["id"]), (new["id"], new["id"])
    ]  # fmt: skip


def test_there_is_no_line_between_models_that_read_otherwise(jdna, families, tmp_path):
    import json
    import shutil

    data = toys.write(tmp_path / "data", train=8, validation=6)
    other = shutil.copytree(families("gpt2"), tmp_path / "other")
    raw = json.loads((other / "tokenizer.json").read_text())
    words = raw["model"]["vocab"]
    words["dog"], words["cat"] = words["cat"], words["dog"]
    (other / "tokenizer.json").write_text(json.dumps(raw))
    where = ("--task", "wikitext2", "--data-dir", data, "--max-length", 32)
    found = jdna("interpolate", families("gpt2"), other, *where, code=2)
    assert "different tokenizers" in found.err
    deeper = shutil.copytree(families("gpt2"), tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps({**config, "activation_function": "relu"}))
    found = jdna("interpolate", families("gpt2"), deeper, *where, code=2)
    assert "activation_function is 'gelu_new' and 'relu'" in found.err
