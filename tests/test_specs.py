"""Fingerprints stay what they are; wrong requests are one line that names the flag."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdna_cli import specs
from jdna_cli.errors import RequestError
from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, PruneSpec

MODEL = {"model": "sha256:0"}


@pytest.mark.parametrize(
    ("spec", "identities", "expected"),
    [
        (
            PruneSpec(model="m", sparsity=0.5),
            MODEL,
            "8db3d7c01323a0ed4822938b23e294c205ef3d95aa27fd3664b20a591e83ad86",
        ),
        (
            PruneSpec(model="m", pattern="4:8", exclude=("*pooler*",)),
            MODEL,
            "7b691a60351ccf1ea74ccd74e0c17a2199037c44bfac872d37aeffbb8d9de5a0",
        ),
        (
            FinetuneSpec(model="m", task="rte"),
            {**MODEL, "data": "d"},
            "17043cf34d70f175e40043ec342186e6e93a23a23274227e38f3607b8e49d12d",
        ),
        (
            FinetuneSpec(model="m", task="rte", sparsity=0.5, regime="sparse", seed=42),
            {**MODEL, "data": "d"},
            "6ae9fd0515448b88b8e07c57da24d7c706f7492fa348bdc4f605ed6f0ed0d2d1",
        ),
        (
            EvalSpec(model="m", task="rte", split="validation"),
            MODEL,
            "9f3f0860932a09054fb8c70ad3a788ea085c92a43eb98b6a17d9056db842f455",
        ),
        (
            InterpolateSpec(model="a", other="b", task="rte", split="validation"),
            MODEL,
            "276e637ac1a4ba44250f68eccea955e79e3e7d2507d6fd0e30a05cc71305d71b",
        ),
    ],
)
def test_fingerprints_of_old_runs_are_found_again(spec, identities, expected):
    """A change here means that no past run would be found: give the version a new prefix."""
    assert spec.fingerprint(identities) == f"s1:{expected}"


BASE = {"model": "m", "task": "rte"}
CHANGES = {
    "task": "sst2",
    "regime": "sparse",
    "sparsity": 0.5,
    "pattern": "2:4",
    "criterion": "other",
    "scope": "layer",
    "include": ("*query*",),
    "exclude": ("*pooler*",),
    "data_fraction": 0.5,
    "max_train_samples": 10,
    "epochs": 2,
    "lr": 1e-4,
    "batch_size": 8,
    "gradient_accumulation": 2,
    "max_length": 64,
    "weight_decay": 0.1,
    "warmup": 0.0,
    "max_grad_norm": 1.0,
    "seed": 42,
    "mixed_precision": "bf16",
    "options": 3,
    "book": "open",
    "context_words": 100,
    "pairs": "en-de",
    "quantize": 4,
    "granularity": "tensor",
    "group_size": 8,
    "asymmetric": True,
    "rounding": "gptq",
    "calibration_samples": 3,
    "calibration_length": 100,
    "sequential": False,
    "pruning_seed": 1,
    "schedule": "iterative",
    "schedule_rounds": 3,
    "schedule_end": 0.7,
    "distill_weight": 0.1,
    "temperature": 1.0,
    "lora": 4,
    "lora_alpha": 3.0,
    "lora_targets": ("query",),
}
# Fields that are read with another one alone.
WITH = {
    **{key: {"quantize": 8} for key in ("granularity", "group_size", "asymmetric", "rounding")},
    **{key: {"schedule": "iterative"} for key in ("schedule_rounds", "schedule_end")},
    **{key: {"teacher": "t"} for key in ("distill_weight", "temperature")},
    **{key: {"lora": 2} for key in ("lora_alpha", "lora_targets")},
}


def test_whatever_changes_a_result_changes_its_fingerprint_and_nothing_else_does():
    plain = FinetuneSpec(**BASE)
    everything = set(FinetuneSpec.model_fields) - plain.neutral - plain.named
    assert set(CHANGES) == everything, "a new field must be listed here, or be neutral"
    names = {plain.fingerprint(MODEL)}
    for field, value in CHANGES.items():
        asked = {**BASE, **WITH.get(field, {}), field: value}
        names.add(FinetuneSpec(**asked).fingerprint(MODEL))
    assert len(names) == len(CHANGES) + 1
    for identity in ("calibration", "teacher", "criterion"):
        names.add(plain.fingerprint({**MODEL, identity: "sha256:2"}))
    assert len(names) == len(CHANGES) + 4
    neutral = FinetuneSpec(**BASE, checkpoint_every=3, eval_batch_size=7, dynamics_every=2)
    assert neutral.fingerprint(MODEL) == plain.fingerprint(MODEL)
    assert plain.model_copy(update={"model": "x"}).fingerprint(MODEL) == plain.fingerprint(MODEL)
    assert plain.fingerprint({"model": "sha256:1"}) != plain.fingerprint(MODEL)


@given(n=st.integers(-3, 40), m=st.integers(-3, 40))
def test_patterns_keep_n_of_m(n, m):
    text = f"{n}:{m}"
    if 1 <= n < m:
        assert specs.parse_pattern(text) == (n, m)
        assert PruneSpec(model="m", pattern=f"0{text}").pattern == text
    else:
        with pytest.raises(RequestError, match="--pattern"):
            specs.build(PruneSpec, {"model": "m", "pattern": text})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsity": 1.2}, r"--sparsity: Input should be less than 1, got 1\.2"),
        ({"sparsity": 1.0}, "--sparsity: Input should be less than 1"),
        ({"sparsity": -0.1}, "--sparsity: Input should be greater than or equal to 0"),
        ({"sparsity": -0.0}, "--sparsity: Input should be 0 or more"),
        ({"sparsity": float("nan")}, "--sparsity"),
        ({"sparsity": float("inf")}, "--sparsity"),
        ({"pattern": "4"}, "--pattern: a pattern is N:M"),
        ({"pattern": "8:4"}, "--pattern: a pattern N:M keeps N"),
        ({"pattern": "²:4"}, "--pattern"),
        ({}, "give either --sparsity"),
        ({"quantize": 1}, "--quantize: Input should be greater than or equal to 2"),
        ({"quantize": 9}, "--quantize: Input should be less than or equal to 8"),
        ({"quantize": 4, "criterion": "wanda"}, "rounds every weight"),
        ({"quantize": 4, "granularity": "tensor", "group_size": 8}, "--group-size: groups divide"),
        ({"sparsity": 0.5, "group_size": 8}, "--group-size: goes with --quantize alone"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "give either --sparsity"),
        ({"sparsity": 0.5, "colour": 1}, "--colour"),
    ],
)
def test_a_wrong_request_is_one_line(values, message):
    with pytest.raises(RequestError, match=message) as caught:
        specs.build(PruneSpec, {"model": "m", **values})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
