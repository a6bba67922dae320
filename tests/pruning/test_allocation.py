"""An allocation decides how much each tensor loses; which of its weights, the criterion."""

import pytest
import torch
from safetensors.torch import load_file

from jdna_cli.pipelines import prune
from jdna_cli.pruning import block_walk
from jdna_cli.run_context import RunContext
from jdna_cli.sparsity import allocation, masks
from tests import toys
from tests.pruning.test_calibration import asked, inputs_of, loaded

FEW = ("--calibration", "rte", "--calibration-samples", 8)
BY_DATA = {"wanda": "row", "sparsegpt": "layer", "gradient": "layer"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("allocation") / "data", train=32, validation=8)


def zeros(folder, layers):
    stored = load_file(folder / "model.safetensors")
    return {x["name"]: int((stored[x["name"]] == 0).sum()) for x in layers}


@pytest.mark.parametrize("criterion", ["magnitude", "random", "wanda", "sparsegpt", "gradient"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_criterion_takes_from_each_tensor_what_it_is_allotted(
    jdna, families, data, criterion, family
):
    few = FEW if criterion in BY_DATA else ()
    found = jdna("prune", families(family), "--sparsity", 0.5, "--allocation", "erk",
                 "--criterion", criterion, *few, "--data-dir", data, "--json").json  # fmt: skip
    layers = found["pruning"]["layers"]
    assert found["run"]["allocation"] == "erk"
    assert found["run"]["scope"] == BY_DATA.get(criterion, "layer")
    shapes = {x["name"]: tuple(x["shape"]) for x in layers}
    sizes = {name: a * b for name, (a, b) in shapes.items()}
    expected = allocation.exactly(allocation.erk(shapes, 0.5), sizes, 0.5)
    for name, count in zeros(jdna.home / "1", layers).items():
        share = expected[name].sparsity
        if found["run"]["scope"] == "row":
            rows, width = shapes[name] if family == "bert" else shapes[name][::-1]
            assert count == rows * round(share * width)
        else:
            assert count == round(share * sizes[name])
    # What was written says it again, and is the same pruning.
    again = jdna("prune", families(family), "--sparsity", 0.5, "--criterion", criterion, *few,
                 "--allocation", jdna.home / "1" / "allocation.toml", "--data-dir", data,
                 "--json").json  # fmt: skip
    assert not again["run"]["cached"]
    one, two = (masks.load(jdna.home / n / "mask.safetensors") for n in "12")
    assert all((one[name].bits == two[name].bits).all() for name in one)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_patterns_are_mixed_where_n_of_m_is_allotted(jdna, families, data, criterion):
    few = FEW if criterion in BY_DATA else ()
    found = jdna("prune", families("llama"), "--pattern", "4:8", "--allocation", "erk",
                 "--criterion", criterion, *few, "--data-dir", data, "--json").json  # fmt: skip
    stored = load_file(jdna.home / "1" / "model.safetensors")
    kept = set()
    for layer in found["pruning"]["layers"]:
        left = (stored[layer["name"]] != 0).reshape(-1, 8).sum(1)
        assert left.unique().numel() == 1  # one N for the whole tensor
        kept.add(int(left[0]))
    assert len(kept) > 1
    assert found["pruning"]["sparsity"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("named", "plain"),
    [(("--allocation", "uniform"), ("--scope", "layer")), (("--allocation", "global"), ())],
)
def test_what_is_so_without_an_allocation_is_the_same_run(jdna, families, named, plain):
    jdna("prune", families("bert"), "--sparsity", 0.5, *plain)
    found = jdna("prune", families("bert"), "--sparsity", 0.5, *named, "--json").json
    assert found["run"]["cached"]
    assert found["run"]["allocation"] is None


def test_owl_is_what_the_outliers_of_each_block_say(families, data, tmp_path):
    """Against float64 on the whole model, with plain hooks."""
    spec, source = asked(families("llama"), criterion="magnitude", scope="layer", allocation="owl")
    place = RunContext(tmp_path / "out", data, tmp_path)
    outcome = prune.prune(spec, source, place)
    samples, model = loaded(spec, source, data)
    parameters = dict(model.named_parameters())
    names = [n for n in parameters if n.endswith("proj.weight")]
    ratios, sizes, members = [], [], []
    for block in block_walk.find(model, names):
        scores = torch.cat([
            (parameters[n].detach().double().abs()
             * inputs_of(model, samples, n).double().norm(dim=0)).flatten()
            for n in block.chosen
        ])  # fmt: skip
        ratios.append(float((scores > 5 * scores.mean()).double().mean()))
        sizes.append(scores.numel())
        members.append(list(block.chosen))
    of_block = allocation.owl(ratios, sizes, 0.5)
    assert len({round(share, 9) for share in of_block}) > 1
    reached = {layer.name: layer for layer in outcome.layers}
    for share, own in zip(of_block, members, strict=True):
        for name in own:
            there = next(
                x for x in reached.values() if name.endswith(x.name.removeprefix("model."))
            )
            assert there.total - there.kept == pytest.approx(share * there.total, abs=1)
    assert outcome.pruned == round(0.5 * outcome.prunable)


def test_two_allocations_are_two_cells_beside_the_same_dense_one(jdna, families, data):
    recipe = ("--task", "rte", "--data-dir", data, "--epochs", 1, "--max-length", 32)
    jdna("finetune", families("bert"), *recipe)
    for asked_for in (("--scope", "layer"), ("--allocation", "erk")):
        jdna("finetune", families("bert"), *recipe, "--sparsity", 0.5, *asked_for)
    rows = jdna("report", "--json").json["rows"]
    assert {row["allocation"] for row in rows} == {None, "erk"}
    assert all(row["mean_relative_drop"] is not None for row in rows)
    table = jdna("report").out
    assert "magnitude layer erk" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sparsity", 0.5, "--allocation", "owl"), "--allocation owl needs calibration data"),
        (("--sparsity", 0.5, "--allocation", "erk", "--scope", "global"), "layer or row"),
        (("--sparsity", 0.5, "--allocation", "global", "--scope", "row"), "give one of them"),
        (("--pattern", "2:4", "--allocation", "global"), "N:M is within groups"),
        (("--quantize", 4, "--allocation", "erk"), "goes with --sparsity S or --pattern N:M"),
        (("--sparsity", 0.5, "--allocation", "evenly"), "none of uniform, global, erk, owl"),
    ],
)
def test_an_allocation_that_makes_no_sense_is_refused_in_one_line(jdna, families, words, said):
    refused = jdna("prune", families("bert"), *words, code=2)
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_rounds_of_pruning_are_not_allotted(jdna, families, data):
    refused = jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, "--sparsity",
                   0.5, "--schedule", "iterative", "--allocation", "erk", code=2)  # fmt: skip
    assert "--allocation" in refused.err
