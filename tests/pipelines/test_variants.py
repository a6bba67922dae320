"""Rounds, rounding, teachers; what is recorded on the way; packed files, and large ones."""

import pytest
import torch
from safetensors.torch import load_file

from jdna_cli.sparsity import masks, quantization
from jdna_cli.sparsity.quantization import Grid
from jdna_cli.sparsity.regimes import OnGrid
from jdna_cli.specs import FinetuneSpec
from jdna_cli.training import distillation
from jdna_cli.training.gradual_pruning import GradualPruning
from tests import toys
from tests.conftest import QUICK, impatience

SMALL = (*QUICK, "--batch-size", 8, "--checkpoint-every", 0)


def weights(folder):
    return load_file(folder / "model.safetensors")


def bits(tensor):
    return tensor.view(torch.int32)


# ------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("criterion", ["magnitude", "magnitude-inverse", "random"])
@pytest.mark.parametrize("amount", [("--sparsity", 0.7), ("--pattern", "2:8")])
def test_pruning_in_rounds_ends_at_exactly_what_was_asked(jdna, bert, criterion, amount):
    args = ("--schedule", "iterative", "--schedule-rounds", 4, "--criterion", criterion)
    found = jdna("finetune", bert, *amount, *args, *SMALL, "--json").json
    run, folder = found["run"], jdna.home / "1"
    assert (run["parent"], run["schedule"]) == (None, "iterative, 4 rounds to 50%")
    stored = masks.load(folder / "mask.safetensors")
    gone = sum(mask.total - mask.kept for mask in stored.values())
    total = sum(mask.total for mask in stored.values())
    assert gone == round((0.7 if amount[0] == "--sparsity" else 0.75) * total)
    after = weights(folder)
    for name, mask in stored.items():
        assert not bits(after[name])[~mask.unpacked()].any()
        if amount[0] == "--pattern":
            assert bool((mask.unpacked().reshape(-1, 8).sum(1) == 2).all())
    assert run["sparsity_reached"] == pytest.approx(gone / total)
    assert (
        jdna("eval", "run:1", "--task", "living", "--json").json["metrics"]["accuracy"]
        == (found["metrics"]["accuracy"])
    )


def test_rounds_are_cubic_and_nested():
    spec = FinetuneSpec(
        model="m", task="rte", sparsity=0.8, schedule="iterative", schedule_rounds=5,
        criterion="magnitude-inverse",
    )  # fmt: skip
    rounds = GradualPruning(spec, {"w": 1})
    due = {step: rounds.due(step, 100) for step in range(1, 101) if rounds.due(step, 100)}
    assert list(due) == [10, 20, 30, 40, 50]
    assert list(due.values()) == pytest.approx([1 - (1 - i / 5) ** 3 for i in range(1, 6)])
    # More rounds than steps: what is due together is done together, and the last is never lost.
    assert GradualPruning(spec, {}).due(1, 1) == 1
    torch.manual_seed(0)
    weight, before = torch.randn(40, 40), {}
    weight[0, :7] = 0  # zeros that were not pruned
    for share in due.values():
        found = rounds.masks({"w": weight}, before, share)
        assert found["w"].total - found["w"].kept == round(0.8 * share * 1600)
        if before:
            assert not bool((found["w"].unpacked() & ~before["w"].unpacked()).any())
        before = found
        masks.clear_(weight, found["w"])
        weight[found["w"].unpacked()] += torch.randn(found["w"].kept) * 0.1


def test_what_a_round_takes_stays_zero_and_is_forgotten_by_the_optimiser():
    from jdna_cli.sparsity.regimes import REGIMES, Constraint

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 8))
    constraint = Constraint({"w": weight}, {}, REGIMES["sparse"])
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    constraint.attach(optimizer, 0.1)
    kept = torch.rand(8, 8) > 0.5
    for step in range(8):
        (weight * torch.randn(8, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 3:
            constraint.prune({"w": masks.pack(kept)}, optimizer)
        if step >= 3:
            assert not bits(weight.detach())[~kept].any()
            assert not optimizer.state[weight]["exp_avg"][~kept].any()
    constraint.verify(8)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--schedule", "iterative"), "iterative prunes a model while it trains"),
        (("--schedule", "iterative", "--sparsity", 0.5, "--regime", "reinit"), "leave the regime"),
        (("--schedule", "iterative", "--sparsity", 0.5, "--criterion", "wanda", "--calibration",
          "living", "--calibration-samples", 4), "wanda is calibrated once"),
        (("--schedule-rounds", 3), "--schedule-rounds: goes with --schedule iterative alone"),
        (("--temperature", 3), "--temperature: goes with --teacher alone"),
        (("--quantize", 4, "--regime", "sparse"), "sparse needs pruned weights"),
        (("--sparsity", 0.5, "--regime", "quantized"), "quantized needs rounded weights"),
        (("--quantize", 4, "--regime", "dense"), "use quantized-to-dense"),
        (("--quantize", 4, "--group-size", 7), "groups of 7 do not divide"),
        (("--quantize", 4, "--rounding", "gptq"), "--rounding gptq needs calibration data"),
        (("--teacher", "run:99"), "there is no run 99"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_line_and_leave_nothing(jdna, bert, args, message):
    found = jdna("finetune", bert, *SMALL, *args, code=2)
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert jdna("runs", "list", "--json").json == {"runs": []}


# ------------------------------------------------------------------------------------ quantised


@pytest.mark.parametrize(
    "grid", [(), ("--asymmetric", "--group-size", 8), ("--granularity", "tensor")]
)
def test_rounded_weights_stay_on_their_grid(jdna, bert, grid):
    found = jdna("finetune", bert, "--quantize", 3, *grid, *SMALL, "--lr", 0.01, "--json").json
    run = found["run"]
    assert (run["regime"], run["bits"], run["parent"]) == ("quantized", 3, 1)
    before, after = weights(jdna.home / "1"), weights(jdna.home / "2")
    moved = 0
    for name, rounding in quantization.load(jdna.home / "2" / "grid.safetensors").items():
        now = after[f"bert.{name}"]
        assert torch.equal(rounding.rounded(now), now)
        own = now.flatten() if grid[:1] == ("--granularity",) else now[0, :8]
        assert own.unique().numel() <= 2**3
        moved += int((now != before[name]).sum())
    assert moved > 0
    again = jdna("eval", "run:2", "--task", "living", "--json").json
    assert again["metrics"]["accuracy"] == found["metrics"]["accuracy"]
    rows = jdna("db", "query", "SELECT run_id, bits, bits_per_weight FROM performance", "--json")
    assert rows.json["rows"] == [[2, 3, run["bits_per_weight"]]]
    assert 3 < run["bits_per_weight"] < 12
    free = jdna("finetune", "run:1", "--regime", "quantized-to-dense", *SMALL, "--json").json["run"]
    assert (free["bits"], free["bits_per_weight"], free["parent"]) == (32, None, 1)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_straight_through_is_a_plain_loop_with_a_full_precision_copy(decay):
    torch.manual_seed(0)
    start, inputs = torch.randn(6, 16), torch.randn(20, 32, 16)
    quantized = quantization.nearest(start, Grid(3, group_size=8), "w")
    grid = quantization.Rounding(quantized.scales, quantized.zeros, quantized.grid, 1)

    weight = torch.nn.Parameter(quantized.decoded())
    constraint = OnGrid({"w": weight}, {"w": grid}, {})
    optimizer = torch.optim.AdamW([weight], lr=0.05, weight_decay=0.0)
    constraint.attach(optimizer, decay)
    full = torch.nn.Parameter(quantized.decoded())
    plain = torch.optim.AdamW([full], lr=0.05, weight_decay=decay)
    for x in inputs:
        (x @ weight.T).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        used = full + (grid.rounded(full) - full).detach()
        (x @ used.T).square().sum().backward()
        plain.step()
        plain.zero_grad()
        torch.testing.assert_close(weight.detach(), grid.rounded(full))
    constraint.verify(20)
    with torch.no_grad():
        weight[0, 0] += 1e-3
    with pytest.raises(Exception, match="off their grid"):
        constraint.verify(20)


# ------------------------------------------------------------------------------------- teachers


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("ways") / "data", train=48, validation=8)


def test_the_divergence_is_torchs():
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    expected = 4 * torch.nn.functional.kl_div(
        torch.log_softmax(student / 2, 1), torch.softmax(teacher / 2, 1), reduction="batchmean"
    )
    torch.testing.assert_close(distillation.divergence(student, teacher, 2.0), expected)
    filled = [torch.nn.functional.pad(x, (0, 2), value=-torch.inf) for x in (student, teacher)]
    torch.testing.assert_close(distillation.divergence(*filled, 2.0), expected)
    assert float(distillation.divergence(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "classification"), ("bert", "regression"), ("bert", "multiple-choice"),
        ("gpt2", "classification"), ("llama", "multiple-choice"), ("llama", "language-modelling"),
        ("t5", "question-answering"),
    ],
)  # fmt: skip
def test_every_kind_of_output_is_learnt_from_a_teacher(
    jdna, families, data, monkeypatch, family, kind
):
    task = toys.KINDS[kind]
    recipe = ("--lr", 5e-3, "--batch-size", 8, "--epochs", 2, "--max-length", 64)
    args = ("finetune", families(family), "--task", task, "--data-dir", data, *recipe, "--json")
    teacher = jdna(*args).json["run"]["id"]
    alone = (*args, "--sparsity", 0.5, "--teacher", f"run:{teacher}", "--distill-weight", 1)
    found = jdna(*alone, "--seed", 7).json
    assert found["run"]["sparsity_reached"] == pytest.approx(0.5, abs=1e-3)
    assert found["run"]["teacher"].endswith("(dense), weight 1, temperature 2")
    first = found["run"]["id"]
    # Kept or computed when it is needed: the same training, but for the padding of batches.
    monkeypatch.setattr(distillation, "ROOM", 0)
    jdna(*alone, "--seed", 7, "--force")
    one, two = (weights(jdna.home / str(i)) for i in (first, first + 1))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-3)
    dense = jdna("db", "query", "SELECT dense_run_id FROM performance WHERE teacher IS NOT NULL",
                 "--json").json["rows"]  # fmt: skip
    assert dense == [[None]], "its dense run would be one of seed 7"


def test_a_student_of_its_own_teachers_outputs_alone_follows_them(jdna, families, tmp_path):
    """No label is learnt: the teacher knows the task, and so does who was taught by it."""
    data = toys.write(tmp_path / "data", train=144)
    args = ("finetune", families("bert"), "--task", "rte", "--data-dir", data, "--lr", 5e-3,
            "--batch-size", 8, "--epochs", 8, "--json")  # fmt: skip
    teacher = jdna(*args).json
    assert teacher["metrics"]["accuracy"] > 0.9
    taught = jdna(*args, "--teacher", "run:1", "--distill-weight", 1, "--seed", 3).json
    assert taught["metrics"]["accuracy"] > 0.9
    assert jdna(*args, "--teacher", "run:1", "--seed", 3).json["run"]["id"] == 3


def test_a_teacher_of_another_kind_is_refused(jdna, families, data):
    args = ("--task", "arc_easy", "--data-dir", data, "--epochs", 1, "--batch-size", 16)
    jdna("finetune", families("bert"), *args)
    found = jdna("finetune", families("llama"), *args, "--teacher", "run:1", code=2)
    assert "their outputs cannot be compared" in found.err
    found = jdna("finetune", families("llama"), *args, "--teacher", families("qwen"), code=2)
    assert "writes other tokens than the model" in found.err
    jdna("finetune", families("bert"), "--task", "rte", "--data-dir", data, "--epochs", 1)
    found = jdna("finetune", families("bert"), *args, "--teacher", "run:2", code=2)
    assert "was fine-tuned on 'rte', not on 'arc_easy'" in found.err


# ------------------------------------------------------------------------------------- dynamics


def test_dynamics_say_what_became_of_the_weights(jdna, bert):
    regrow = ("--sparsity", 0.5, "--regime", "sparse-to-dense", "--dynamics", "--dynamics-every", 5)
    plain = jdna("finetune", bert, *regrow[:4], *SMALL, "--json").json["run"]
    found = jdna("finetune", bert, *regrow, *SMALL, "--json").json["run"]
    assert (plain["cached"], found["cached"]) == (False, False)
    assert found["fingerprint"] == plain["fingerprint"]
    assert jdna("finetune", bert, *regrow, *SMALL, "--json").json["run"]["cached"]
    a, b = weights(jdna.home / "2"), weights(jdna.home / str(found["id"]))
    assert all(torch.equal(a[n], b[n]) for n in a), "looking on changes nothing"

    rows = jdna("db", "query", f"SELECT * FROM dynamics WHERE run = {found['id']}", "--json").json
    told = [dict(zip(rows["columns"], row, strict=True)) for row in rows["rows"]]
    assert {row["step"] for row in told} == {0, 5, 10, 15, 20, 24}
    before = weights(bert)
    stored = masks.load(jdna.home / "2" / "mask.safetensors")
    for row in told:
        if row["step"] == 0:
            assert (row["moved_large"], row["regrown"], row["overlap"]) == (0, 0, 1)
        if row["step"] != 24:
            continue
        name = row["tensor"]
        now, then = b[f"bert.{name}"], before[name]
        large = stored[f"bert.{name}"].unpacked()
        scale = then.square().mean().sqrt()
        for kind, part in (("moved_large", large), ("moved_small", ~large)):
            expected = (now - then)[part].square().mean().sqrt() / scale
            assert row[kind] == pytest.approx(float(expected), rel=1e-4)
        grown = now[~large]
        assert row["regrown"] == pytest.approx(float((grown != 0).float().mean()))
        size = grown[grown != 0].square().mean().sqrt() / scale
        assert row["regrown_size"] == pytest.approx(float(size), rel=1e-4)
        assert row["flips"] == pytest.approx(float((now * then < 0).float().mean()))
        count = int((~large).sum())
        smallest = torch.zeros(now.numel(), dtype=torch.bool)
        smallest[now.abs().flatten().argsort(stable=True)[:count]] = True
        overlap = (smallest.view_as(large) & ~large).sum() / count
        assert row["overlap"] == pytest.approx(float(overlap))


@pytest.mark.parametrize(
    "way",
    [
        ("--sparsity", 0.6, "--schedule", "iterative", "--schedule-rounds", 5, "--dynamics",
         "--dynamics-every", 5),
        ("--quantize", 3),
        ("--sparsity", 0.5, "--teacher", "run:1"),
    ],
)  # fmt: skip
def test_an_interrupted_training_goes_on_to_the_same_bits(jdna, bert, monkeypatch, way):
    jdna("finetune", bert, *SMALL, "--seed", 9)
    args = ("finetune", bert, *way, *SMALL, "--lr", 0.01)
    whole = jdna(*args, "--json").json["run"]["id"]

    with impatience(monkeypatch):
        jdna(*args, "--force", code=130)
    resumed = jdna(*args, "--resume", "--force", "--json").json["run"]["id"]
    a, b = weights(jdna.home / str(whole)), weights(jdna.home / str(resumed))
    assert all(torch.equal(bits(a[n]), bits(b[n])) for n in a)
    query = "SELECT tensor, step, moved_small, overlap FROM dynamics WHERE run = {} ORDER BY 1, 2"
    one, two = (jdna("db", "query", query.format(i), "--json").json for i in (whole, resumed))
    assert one["rows"] == two["rows"]
