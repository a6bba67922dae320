"""Splits share nothing, subsets nest, records are checked, metrics agree with hand-made cases."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdna_cli.errors import RequestError
from jdna_cli.tasks import built_in, datasets, lookup, metrics, subsets
from jdna_cli.tasks.task import KINDS, GeneratedSource


@pytest.mark.parametrize("task", built_in.all_tasks().values(), ids=lambda t: t.name)
def test_every_task_is_whole(task):
    assert task.description
    assert task.columns
    assert set(task.metrics) <= set(KINDS[task.kind].metrics)
    assert task.human is None or (task.chance < task.human.value <= 1 and task.human.source)
    assert task.metric in metrics.LOWER_IS_BETTER or task.chance is not None


GENERATED = [t for t in built_in.all_tasks().values() if isinstance(t.source, GeneratedSource)]
PINNED = {
    "living": "f535e8b4b67e3c21",
    "larger": "218d1cbbfd762b5a",
    "bigger": "d596279cad34b050",
}


@pytest.mark.parametrize("task", GENERATED, ids=lambda t: t.name)
def test_generated_splits_are_fixed_balanced_and_share_no_sentence(task):
    splits = {split: datasets.load(task, split, None) for split in task.splits}
    for split, found in splits.items():
        counts = Counter(found.labels)
        assert set(counts) == set(range(len(task.labels))), split
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(set(found.texts)) == len(found)
    seen = [text for found in splits.values() for text in found.texts]
    assert len(set(seen)) == len(seen)
    content = json.dumps([[f.texts, f.labels] for f in splits.values()])
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == PINNED[task.name], (
        "the rows changed: give the source a new version"
    )


LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=200)


@given(labels=LABELS, seed=st.integers(0, 5), a=st.floats(0.01, 1), b=st.floats(0.01, 1))
@settings(deadline=None)
def test_subsets_are_nested_stratified_and_of_exact_size(labels, seed, a, b):
    small, large = sorted((a, b))
    fewer = subsets.training_subset(labels, True, small, None, seed)
    more = subsets.training_subset(labels, True, large, None, seed)
    assert set(fewer) <= set(more)
    assert len(more) == max(1, round(large * len(labels)))
    assert fewer == sorted(set(fewer))
    counts, chosen = Counter(labels), Counter(labels[i] for i in more)
    for label, count in counts.items():
        assert abs(chosen[label] - count * len(more) / len(labels)) < 1.5 + len(counts) / 2
    capped = subsets.training_subset(labels, True, large, 3, seed)
    assert set(capped) <= set(more)
    assert len(capped) == min(3, len(more))


def test_the_share_of_a_rare_class_survives_in_a_small_subset():
    labels = [0] * 900 + [1] * 100
    for seed in range(5):
        chosen = subsets.training_subset(labels, True, 0.1, None, seed)
        assert Counter(labels[i] for i in chosen) == {0: 90, 1: 10}
    assert chosen != subsets.training_subset(labels, True, 0.1, None, 0)


def test_a_regression_subset_covers_the_range():
    labels = [i / 10 for i in range(1000)]
    chosen = subsets.training_subset(labels, False, 0.02, None, 1)
    assert Counter(int(labels[i] // 10) for i in chosen) == dict.fromkeys(range(10), 2)


def write(folder, rows, split="train"):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / f"{split}.jsonl").write_text(text)


GOOD = {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"sentence1": "a", "label": 1}], "row 1: column 'sentence2' is missing"),
        ([GOOD, {**GOOD, "idx": 1, "label": 2}], "row 2: label 2 is none of 0 to 1"),
        ([{**GOOD, "label": -1}], "labels of this split are hidden"),
        ([{**GOOD, "label": True}], "label True is none of"),
        ([{**GOOD, "sentence2": None}], "'sentence2' is not text: None"),
        ([GOOD, GOOD], "two rows are called '0'"),
        ([], "no examples"),
        (["{"], "line 1: not JSON"),
        (["[1]"], "line 1: not a JSON object"),
    ],
)
def test_wrong_files_are_named_with_the_row(tmp_path, rows, message):
    write(tmp_path / "rte", rows)
    with pytest.raises(RequestError, match=message) as caught:
        datasets.load(lookup.get("rte"), "train", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_split_is_named(tmp_path):
    write(tmp_path / "rte", [GOOD])
    with pytest.raises(RequestError, match=r"has no validation\.jsonl"):
        datasets.load(lookup.get("rte"), "validation", tmp_path)


def test_labels_may_be_names_and_identity_follows_the_content(tmp_path):
    rte = lookup.get("rte")
    write(tmp_path / "rte", [{**GOOD, "label": "not_entailment"}])
    assert datasets.load(rte, "train", tmp_path).labels == (1.0,)
    before = datasets.identity(rte, ["train"], tmp_path)
    write(tmp_path / "rte", [{**GOOD, "sentence1": "c"}])
    assert datasets.identity(rte, ["train"], tmp_path) != before
    assert datasets.identity(rte, ["train"], None).startswith("hub:nyu-mll/glue:rte@")


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "qqp", "stsb", "qnli", "rte"])
def test_the_real_tasks_are_read(shared_data, name):
    task = lookup.get(name)
    for split in ("train", "validation"):
        found = datasets.load(task, split, shared_data)
        assert len(found) > 100
        assert set(found.labels) == set(range(len(task.labels))) or task.kind == "regression"


def test_metrics_on_cases_worked_by_hand():
    labels, answers = [1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1, 0, 0]
    # 2 true, 1 false positive; 2 false, 3 true negatives
    found = metrics.score(["accuracy", "f1", "matthews_correlation"], labels, answers)
    assert found["accuracy"] == 5 / 8
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["matthews_correlation"] == pytest.approx((2 * 3 - 1 * 2) / (3 * 4 * 4 * 5) ** 0.5)
    assert metrics.macro_f1(labels, answers) == pytest.approx((4 / 7 + 6 / 9) / 2)
    assert metrics.macro_f1([0, 1, 2, 2], [0, 1, 1, 2]) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 8.0]
    assert metrics.pearson(x, y) == pytest.approx(10 / (5 * 29) ** 0.5)
    assert metrics.spearman(x, y) == pytest.approx(0.8)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_constant_answers_score_without_a_warning(name, recwarn):
    assert 0 <= metrics.METRICS[name]([0, 1, 0, 1], [1, 1, 1, 1]) <= 1
    assert not recwarn.list


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(RequestError, match="unknown task 'sst-2': did you mean 'sst2'"):
        lookup.get("sst-2")


def test_a_hub_that_does_not_answer_is_one_line(tmp_path, tiny):
    """Not five tries, each announced."""
    closed = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9",
              "HF_HOME": str(tmp_path)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "jdna_cli", "finetune", str(tiny("bert")), "--task", "rte",
         "--home", str(tmp_path / "home")],
        env=closed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert "task 'rte': data set nyu-mll/glue could not be loaded (the hub could not be " in line
    assert "--data-dir" in line
