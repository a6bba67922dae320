"""A scan says what each matrix costs alone; what follows from it is an allocation."""

import json

import pytest
import torch
from safetensors.torch import load_file

from jdna_cli.errors import RequestError
from jdna_cli.models.blocks import OUTSIDE, order, place
from jdna_cli.reports import scans
from jdna_cli.sparsity import allocation
from tests import toys
from tests.conftest import QUICK


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("scan") / "data", train=32, validation=16)


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("bert.encoder.layer.11.attention.self.query.weight", "bert.encoder.layer.11",
         "attention.self.query"),
        ("model.layers.3.mlp.experts.17.w1.weight", "model.layers.3", "mlp.experts.*.w1"),
        ("decoder.block.2.layer.1.EncDecAttention.q.weight", "decoder.block.2",
         "layer.*.EncDecAttention.q"),
        ("h.0.attn.c_attn.weight", "h.0", "attn.c_attn"),
        ("bert.pooler.dense.weight", OUTSIDE, "bert.pooler.dense"),
    ],
)  # fmt: skip
def test_a_name_says_where_a_tensor_stands(name, block, kind):
    assert place(name) == (block, kind)


def test_blocks_are_called_by_what_differs():
    assert scans.short(["bert.encoder.layer.0", "bert.encoder.layer.1", OUTSIDE]) == (
        "layer.0", "layer.1", OUTSIDE,
    )  # fmt: skip
    apart = ("encoder.block.0", "decoder.block.0")
    assert scans.short(apart) == apart
    assert scans.short(["h.0"]) == ("h.0",)


def test_blocks_come_in_the_order_of_the_model():
    names = ["decoder.2", "encoder.10", OUTSIDE, "encoder.2", "decoder.0"]
    assert sorted(names, key=order) == [
        "decoder.0",
        "decoder.2",
        "encoder.2",
        "encoder.10",
        OUTSIDE,
    ]


@pytest.mark.parametrize(
    ("family", "task"),
    [("llama", "rte"), ("gpt2", "wikitext2"), ("bert", "rte"), ("t5", "rte")],
)
def test_each_loss_is_that_of_the_model_with_that_matrix_pruned_alone(
    jdna, families, data, family, task
):
    """Against prune --include and eval, two commands of their own."""
    where = ("--task", task, "--data-dir", data)
    source = families(family)
    if task != "wikitext2":  # a head has to be there
        jdna("finetune", source, *where, "--epochs", 1, "--max-length", 48)
        source = "run:1"
    found = jdna("scan", source, *where, "--sparsities", "0.4,0.8", "--json").json
    units = found["sensitivities"]
    assert {one["sparsity"] for one in units} == {0.4, 0.8}
    covered = [name for one in units if one["sparsity"] == 0.4 for name in one["tensors"]]
    plan = jdna("prune", source, "--sparsity", 0.4, "--dry-run", "--json").json
    assert sorted(covered) == sorted(
        t["name"] for t in plan["tensors"] if t["reason"] is None
    )  # each prunable tensor once
    for one in (units[0], units[-1]):
        only = [word for name in one["tensors"] for word in ("--include", name)]
        pruned = jdna("prune", source, "--sparsity", one["sparsity"], "--scope", "layer", *only,
                      "--json").json  # fmt: skip
        measured = jdna("eval", f"run:{pruned['run']['id']}", *where, "--json").json
        assert measured["metrics"]["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert one["rise"] == pytest.approx(one["loss"] - found["metrics"]["loss"])


def test_the_same_scan_is_answered_and_another_total_is_no_other_scan(jdna, families, data):
    asked = ("scan", families("llama"), "--task", "wikitext2", "--data-dir", data,
             "--criterion", "wanda", "--calibration", "rte", "--calibration-samples", 4,
             )  # fmt: skip
    first = jdna(*asked, "--json").json
    text = (jdna.home / "1" / "allocation.toml").read_text()
    again = jdna(*asked, "--total", 0.7, "--json").json
    assert again["run"]["cached"]
    assert (jdna.home / "1" / "allocation.toml").read_text() != text
    assert [u["loss"] for u in again["sensitivities"]] == [
        u["loss"] for u in first["sensitivities"]
    ]
    pruned = jdna("prune", families("llama"), "--sparsity", 0.7, "--allocation",
                  jdna.home / "1" / "allocation.toml", "--json").json  # fmt: skip
    assert pruned["pruning"]["sparsity"] == pytest.approx(0.7, abs=0.002)
    assert len({round(x["sparsity"], 3) for x in pruned["pruning"]["layers"]}) > 3
    assert jdna("runs", "verify").code == 0


def test_a_scan_on_another_split_is_one_too(jdna, families, data):
    jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, "--epochs", 1)
    found = jdna("scan", "run:1", "--task", "rte", "--split", "train", "--data-dir", data,
                 "--include", "*query*", "--json").json  # fmt: skip
    dense = found["metrics"]["train/loss"]
    assert all(one["rise"] == one["loss"] - dense for one in found["sensitivities"])
    assert (jdna.home / "2" / "allocation.toml").is_file()


def test_reports_show_scans_and_layers_and_layers_can_be_fed_back(jdna, bert, tmp_path):
    jdna("finetune", bert, *QUICK, "--max-length", 24)
    jdna("scan", "run:1", "--task", "living", "--plot", tmp_path / "heat.svg")
    assert "attention.self.query" in (tmp_path / "heat.svg").read_text()
    table = jdna("report", "scan", "--plot", tmp_path / "again.svg").out
    assert "each pruned to 70% alone" in table
    jdna("prune", "run:1", "--sparsity", 0.6, "--allocation", "erk")
    rows = jdna("report", "layers", "--json").json["rows"]
    assert sum(row["share_of_loss"] for row in rows) == pytest.approx(1)
    stored = load_file(jdna.home / "3" / "model.safetensors")
    for row in rows:
        assert row["kept"] == int(torch.count_nonzero(stored[row["tensor"]]))
    fed = tmp_path / "layers.csv"
    fed.write_text(jdna("report", "layers", "--run", 3, "--format", "csv").out)
    again = jdna("prune", "run:1", "--sparsity", 0.6, "--allocation", fed, "--json").json
    kept = {x["name"]: x["sparsity"] for x in again["pruning"]["layers"]}
    assert kept == {row["tensor"]: row["sparsity"] for row in rows}
    assert "run 9" in jdna("report", "layers", "--run", 9, code=2).err
    for row in json.loads(jdna("report", "scan", "--format", "json").out):
        assert row["rise"] == pytest.approx(row["loss"] - row["dense_loss"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sparsities", "half"), "give them as 0.25,0.5,0.75"),
        (("--sparsities", "0.5,1"), "less than 1"),
        (("--total", 0), "greater than 0"),
        (("--criterion", "wanda"), "needs calibration data"),
        (("--out", "/nowhere/a.toml"), "there is no folder"),
        (("--include", "nothing"), "no prunable weights"),
    ],
)
def test_a_scan_that_makes_no_sense_is_refused_in_one_line(jdna, families, data, words, said):
    refused = jdna("scan", families("llama"), "--task", "wikitext2", "--data-dir", data, *words,
                   code=2)  # fmt: skip
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_the_allocation_is_the_least_sum_of_rises():
    """Against a search over a fine grid, for three units of different sizes."""
    sizes = {"a": 100, "b": 200, "c": 400}
    heights = {"a": 0.5, "b": 0.9, "c": 1.6}
    rises = {n: {s: h * s**3 for s in (0.3, 0.6)} for n, h in heights.items()}
    found = allocation.by_sensitivity(rises, sizes, 0.5)
    assert sum(found[n] * sizes[n] for n in sizes) == pytest.approx(0.5 * 700)

    def cost(shares):
        return sum(heights[n] * s**3 for n, s in shares.items())

    best = min(
        cost({"a": a / 200, "b": b / 200, "c": c})
        for a in range(191)
        for b in range(191)
        if 84 <= a <= 116 and 84 <= b <= 116 and 0.42 <= (c := (350 - a / 2 - b) / 400) <= 0.58
    )
    assert cost(found) <= best + 1e-6
    assert 0.42 <= found["a"] < found["b"] < found["c"] <= 0.58
    with pytest.raises(RequestError, match="too far above"):
        allocation.by_sensitivity(rises, sizes, 0.9)


def test_where_nothing_rises_all_lose_alike():
    sizes = {"a": 10, "b": 20}
    flat = allocation.by_sensitivity({n: {0.5: -0.1} for n in sizes}, sizes, 0.4)
    assert flat == dict.fromkeys(sizes, 0.4)
