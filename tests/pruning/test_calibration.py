"""What criteria are told of a model is what its own forward and backward passes say."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from jdna_cli.compute.devices import Placing
from jdna_cli.models.parameters import match_names
from jdna_cli.pipelines import prune
from jdna_cli.pruning import block_walk, blockwise, calibration
from jdna_cli.run_context import RunContext
from jdna_cli.sparsity import criteria, masks
from jdna_cli.sparsity.targets import Target
from jdna_cli.specs import ModelSource, PruneSpec
from tests import toys

COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("calibration") / "data", train=32, validation=8)


@pytest.fixture
def place(tmp_path, data):
    return RunContext(tmp_path / "out", data, tmp_path)


def asked(folder, **fields):
    told = {"calibration": "rte", "calibration_samples": COUNT, "sparsity": 0.5, **fields}
    return PruneSpec(model=str(folder), **told), ModelSource("m", folder, "m")


def loaded(spec, source, data, gradients=False):
    samples = calibration.prepare(spec, source, data, gradients=gradients)
    model = samples.load(Placing()).eval()
    return samples, model


def inputs_of(model, samples, name):
    """All inputs of one module, from plain hooks on the whole model."""
    seen = []
    module = dict(model.named_modules())[name.removesuffix(".weight")]
    hook = module.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    with torch.no_grad():
        for i in range(samples.count):
            samples.loss(model, i, torch.device("cpu"))
    hook.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("family", [*toys.FAMILIES, toys.REMEMBERING])
def test_norms_are_those_of_the_inputs_of_the_dense_model(families, data, place, family):
    spec, source = asked(families(family), criterion="wanda", scope="global")
    found = prune.check_prune(spec, source, data)
    known = blockwise.gathered(found, place)
    samples, model = loaded(spec, source, data)
    names = match_names(model, found.chosen)
    assert set(known) == set(found.chosen)
    for name in found.chosen:
        inputs = inputs_of(model, samples, names[name])
        torch.testing.assert_close(known[name].input_norm, inputs.norm(dim=0))
        assert known[name].tokens == len(inputs)


# T5's decoder is given one token here, whose Hessian is singular: rounding decides.
@pytest.mark.parametrize(
    ("criterion", "family"),
    [("wanda", family) for family in ("bert", "gpt2", "llama", "t5", "bart")]
    + [("sparsegpt", family) for family in ("bert", "gpt2", "llama", "bart")],
)
def test_each_block_knows_what_the_pruned_ones_before_it_make(
    families, data, place, family, criterion
):
    """Against the slow way: after each block the whole model is run again from the beginning."""
    scope = criteria.load(criterion).scope
    spec, source = asked(families(family), criterion=criterion, scope=scope)
    prune.prune(spec, source, place)
    written = load_file(place.folder / "model.safetensors")
    found = prune.check_prune(spec, source, data)
    samples, model = loaded(spec, source, data)
    names = {there: name for name, there in match_names(model, found.chosen).items()}
    parameters = dict(model.named_parameters())
    for block in block_walk.find(model, list(names)):
        grams = {}
        for there in block.chosen:
            x = inputs_of(model, samples, there)
            grams[there] = x.T @ x
        for there in block.chosen:
            weight, input_dim = parameters[there], found.chosen[names[there]]
            turned = weight.detach() if input_dim == 1 else weight.detach().T.contiguous()
            if criterion == "wanda":
                score = turned.abs() * grams[there].diagonal().sqrt()
                lowest = score.argsort(dim=1, stable=True)[:, : round(0.5 * score.shape[1])]
                new = turned.clone().scatter_(1, lowest, 0.0)
            else:
                statistics = criteria.Statistics(there, gram=grams[there])
                target = Target(0.5)
                new = criteria.load(criterion).prune_layer(turned, statistics, target).weight
            new = new if input_dim == 1 else new.T
            theirs = written[names[there]]
            assert ((theirs == 0) == (new == 0)).float().mean() > 0.999
            torch.testing.assert_close(theirs, new.contiguous(), rtol=1e-3, atol=1e-3)
            weight.data.copy_(theirs)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_gradients_are_those_of_autograd_example_by_example(families, data, place, family):
    spec, source = asked(families(family), criterion="fisher")
    found = prune.check_prune(spec, source, data)
    known = blockwise.gathered(found, place)
    samples, model = loaded(spec, source, data, gradients=True)
    names = match_names(model, found.chosen)
    parameters = dict(model.named_parameters())
    each = {name: [] for name in found.chosen}
    for i in range(COUNT):
        model.zero_grad()
        samples.loss(model, i, torch.device("cpu")).backward()
        for name in found.chosen:
            each[name].append(parameters[names[name]].grad.clone())
    stored = load_file(source.folder / "model.safetensors")
    for name, gradients in each.items():
        g, w = torch.stack(gradients), stored[name]
        near = {"rtol": 1e-5, "atol": 1e-5}  # sums in another order
        torch.testing.assert_close(known[name].gradient, g.mean(0), **near)
        first = criteria.load("gradient").score(w, known[name]).abs()
        torch.testing.assert_close(first, (w * g.mean(0)).abs(), **near)
        second = criteria.load("fisher").score(w, known[name]).square()
        torch.testing.assert_close(second, w.square() * g.square().mean(0), **near)


def test_what_pads_options_is_not_counted(families, data, place):
    spec, source = asked(
        families("bert"), criterion="wanda", scope="global", calibration="arc_easy"
    )
    known = blockwise.gathered(prune.check_prune(spec, source, data), place)
    samples = calibration.prepare(spec, source, data, gradients=False)
    model = samples.load(Placing()).eval()
    real = 0

    def count(module, args, kwargs):
        nonlocal real
        real += int(kwargs["attention_mask"].sum())

    model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        for i in range(COUNT):
            samples.loss(model, i, torch.device("cpu"))
    inside = [x.tokens for name, x in known.items() if "layer.0" in name]
    assert set(inside) == {real}


CRITERIA = [n for n in criteria.names() if criteria.load(n).calibrated]


@pytest.mark.parametrize("family", ["bert", "llama", "bart"])
@pytest.mark.parametrize("source", ["arc_easy", "wikitext2", "text"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_counts_are_exact_whatever_chooses(
    jdna, families, data, tmp_path, family, source, criterion
):
    if source == "text":
        source = tmp_path / "words.txt"
        source.write_text(" ".join(toys.words()) * 3)
    if family == "bert" and source != "arc_easy" and criterion in ("fisher", "gradient"):
        asked = ("--calibration", source, "--calibration-length", 20, "--calibration-samples", 6)
        text = jdna(
            "prune", families(family), "--sparsity", 0.5, "--criterion", criterion, *asked,
            "--data-dir", data, code=2,
        ).err  # fmt: skip
        assert "calibrate with a task" in text
        return
    for flag, value in (("--sparsity", 0.37), ("--pattern", "2:4")):
        found = jdna(
            "prune", families(family), flag, value, "--criterion", criterion, "--json",
            "--calibration", source, "--calibration-samples", 6, "--calibration-length", 20,
            "--data-dir", data,
        ).json  # fmt: skip
        pruning_, folder = found["pruning"], found["run"]["artifact"]
        after = load_file(f"{folder}/model.safetensors")
        stored = masks.load(jdna.home / str(found["run"]["id"]) / "mask.safetensors")
        for layer in pruning_["layers"]:
            kept = stored[layer["name"]].unpacked()
            assert not after[layer["name"]][~kept].any()
            if flag == "--pattern":
                assert bool((kept.reshape(-1, 4).sum(1) == 2).all())
        if flag == "--sparsity" and criterion in ("gradient", "fisher"):
            assert pruning_["pruned"] == round(0.37 * pruning_["prunable"])
        assert found["run"]["calibration"].endswith("6 × 20")
        again = jdna(
            "prune", families(family), flag, value, "--criterion", criterion, "--json",
            "--calibration", source, "--calibration-samples", 6, "--calibration-length", 20,
            "--data-dir", data,
        ).json  # fmt: skip
        assert again["run"]["cached"]


def test_the_seed_draws_the_samples_and_is_part_of_the_fingerprint(jdna, families, data):
    args = ("prune", families("llama"), "--sparsity", 0.5, "--criterion", "wanda", "--json",
            "--calibration", "rte", "--calibration-samples", 4, "--data-dir", data)  # fmt: skip
    first, again, other = jdna(*args), jdna(*args, "--force"), jdna(*args, "--pruning-seed", 1)
    assert first.json["run"]["fingerprint"] != other.json["run"]["fingerprint"]
    one, two, three = (load_file(jdna.home / str(i) / "model.safetensors") for i in (1, 2, 3))
    assert again.json["run"]["id"] == 2
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert any(not torch.equal(one[n], three[n]) for n in one)
    dense = jdna(*args, "--no-sequential").json["run"]
    assert dense["calibration"] == "rte, 4 × 2048, not sequential"


def test_a_half_precision_model_stays_one(jdna, families, data, tmp_path):
    folder = tmp_path / "half"
    model = transformers.AutoModelForCausalLM.from_pretrained(families("llama"))
    model.to(torch.bfloat16).save_pretrained(folder)
    toys.tokenizer_for("llama").save_pretrained(folder)
    jdna("prune", folder, "--sparsity", 0.5, "--criterion", "sparsegpt", "--calibration", "rte",
         "--calibration-samples", 8, "--data-dir", data)  # fmt: skip
    after = load_file(jdna.home / "1" / "model.safetensors")
    assert {t.dtype for t in after.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--criterion", "wanda"), "'wanda' needs calibration data: --calibration TASK or FILE"),
        (("--calibration", "rte"), "'magnitude' makes no use of calibration data"),
        (("--criterion", "wanda", "--calibration", "nothing"), "unknown task 'nothing'"),
        (("--criterion", "wanda", "--calibration", "rte", "--calibration-samples", 99),
         "--calibration-samples: rte has 32 examples, 99 were asked"),
        (("--criterion", "wanda", "--calibration", "SHORT"),
         "a text of 3 tokens is shorter than one window of 128"),
        (("--criterion", "sparsegpt", "--calibration", "rte", "--scope", "global"),
         "its scope is layer, not global"),
        (("--calibration-samples", 3), "--calibration-samples: goes with --calibration alone"),
        (("--criterion", "wander"), "did you mean 'wanda'"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_line_and_leave_nothing(
    jdna, families, data, tmp_path, args, message
):
    (tmp_path / "short.txt").write_text("the dog sees")
    args = [tmp_path / "short.txt" if arg == "SHORT" else arg for arg in args]
    found = jdna(
        "prune", families("bert"), "--sparsity", 0.5, *args, "--data-dir", data, code=2
    )  # fmt: skip
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert jdna("runs", "list", "--json").json == {"runs": []}


OWN = """
from jdna_cli.sparsity.criteria import Statistics
NEEDS = "activations"
SCOPE = "row"
def scores(weight, statistics):
    return weight.abs() * statistics.input_norm
def broken(weight, statistics):
    return weight[:1]
"""


def test_a_criterion_of_the_users_own(jdna, families, data, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    calibrated = ("--calibration", "rte", "--calibration-samples", 8, "--data-dir", data)
    args = ("prune", families("llama"), "--sparsity", 0.5, *calibrated, "--json")
    theirs = jdna(*args, "--criterion", "wanda").json
    mine = jdna(*args, "--criterion", f"{file}:scores").json
    assert mine["run"]["scope"] == "row"
    assert mine["run"]["criterion"].startswith("mine.py:scores#")
    a, b = (load_file(jdna.home / str(i) / "model.safetensors") for i in (1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert theirs["pruning"] == mine["pruning"]
    moved = tmp_path / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    file.rename(moved)
    assert jdna(*args, "--criterion", f"{moved}:scores").json["run"]["cached"]
    moved.write_text(OWN.replace("weight.abs()", "weight.square()"))
    assert not jdna(*args, "--criterion", f"{moved}:scores").json["run"]["cached"]
    failed = jdna(*args, "--criterion", f"{moved}:broken", code=1)
    assert "gives [1, 64] for" in failed.err
    for name, message in (
        (f"{moved}:nothing", "has no function 'nothing'"),
        (f"{tmp_path}/no.py:f", "cannot be read"),
    ):
        assert message in jdna(*args, "--criterion", name, code=2).err


def test_a_models_folder_is_never_run(jdna, families, tmp_path):
    import shutil

    folder = shutil.copytree(families("bert"), tmp_path / "trap")
    canary = tmp_path / "ran"
    (folder / "magnitude.py").write_text(f"open({str(canary)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "magnitude.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    jdna("prune", folder, "--sparsity", 0.5)
    assert not canary.exists()


def test_a_pooler_that_the_task_does_not_use_is_no_obstacle(jdna, data, tmp_path, families):
    """RoBERTa's published files hold a pooler, and its classification head has none."""
    config = transformers.AutoConfig.from_pretrained(families("roberta"))
    folder = tmp_path / "roberta"
    transformers.RobertaModel(config, add_pooling_layer=True).save_pretrained(folder)
    toys.tokenizer_for("roberta").save_pretrained(folder)
    assert "pooler.dense.weight" in load_file(folder / "model.safetensors")
    found = jdna("finetune", folder, "--task", "rte", "--sparsity", 0.5, "--epochs", 1, "--json",
                 "--data-dir", data).json  # fmt: skip
    assert found["run"]["status"] == "finished"
    text = jdna("prune", folder, "--sparsity", 0.5, "--criterion", "wanda", "--calibration", "rte",
                "--calibration-samples", 4, "--data-dir", data, code=2).err  # fmt: skip
    assert "leave it out with --exclude 'pooler.dense.weight'" in text


def test_nan_is_refused_by_the_tensors_name(jdna, bert):
    tensors = load_file(bert / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    tensors[name][3, 3] = float("nan")
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})
    for criterion in ("magnitude", "magnitude-inverse"):
        found = jdna("prune", bert, "--sparsity", 0.5, "--criterion", criterion, code=1)
        assert f"{name!r} holds NaN" in found.err
    assert f"{name!r} holds NaN" in jdna("prune", bert, "--quantize", 4, code=1).err
    assert not list(jdna.home.glob("[0-9]*"))


def test_a_criterion_that_has_changed_since_is_not_run(jdna, bert, tmp_path):
    file, canary = tmp_path / "mine.py", tmp_path / "ran"
    code = "def score(weight, statistics):\n    return weight.abs()\n"
    file.write_text(code)
    jdna("prune", bert, "--sparsity", 0.5, "--criterion", f"{file}:score")
    file.write_text(f"open({str(canary)!r}, 'w').close()\n{code}")
    told = jdna("finetune", "run:1", "--task", "living", code=2).err
    assert "has changed since run:1 was made" in told
    assert not canary.exists()


class CutOff(BaseException):
    """A process that ends where it is."""


@pytest.mark.parametrize(
    "fields",
    [
        {"criterion": "sparsegpt", "scope": "layer"},
        {"criterion": "sparsegpt", "sparsity": None, "pattern": "2:4"},
        {"criterion": "wanda", "scope": "row", "sequential": False},
        {"sparsity": None, "quantize": 4, "rounding": "gptq", "asymmetric": True},
    ],
    ids=["sparsegpt", "2:4", "wanda", "gptq"],
)
def test_a_calibration_that_was_cut_off_goes_on_and_ends_the_same(
    families, data, tmp_path, monkeypatch, fields
):
    folder = families("llama")
    spec, source = asked(folder, **fields)

    def context(name, told=lambda *_: None):
        return RunContext(
            tmp_path / name, data, tmp_path / f"work-{name}", progress=told, fingerprint="f"
        )

    whole = prune.prune(spec, source, context("whole"))
    blocks = []

    def until_one_is_done(what, done, total, note):
        if what == "prune":
            raise CutOff

    with pytest.raises(CutOff):
        prune.prune(spec, source, context("again", until_one_is_done))
    assert not (tmp_path / "again").exists()
    settled = blockwise.settled
    monkeypatch.setattr(
        blockwise, "settled", lambda plan, name, *rest: blocks.append(name) or settled(
            plan, name, *rest)
    )  # fmt: skip
    again = prune.prune(spec, source, context("again"))
    assert blocks
    assert not any("layers.0." in name for name in blocks), "what was finished is settled again"
    assert again.layers == whole.layers
    for file in (tmp_path / "whole").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    # A block that is damaged, or another request's, is settled anew.
    kept = next((tmp_path / "work-again").glob("block-*/changes.safetensors"))
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    third = RunContext(tmp_path / "third", data, tmp_path / "work-again", fingerprint="f")
    assert prune.prune(spec, source, third).layers == whole.layers
