"""The LM evaluation harness as a library: its answers are ours, example by example."""

import json

import pytest

from tests import toys

pytest.importorskip("lm_eval")

# Three ways of putting a multiple choice, as the harness puts tasks that are ours as well.
PUT = {
    "arc_easy": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
    },
    "commonsense_qa": {
        "doc_to_text": "Question: {{question.strip()}}\n"
        "{% for text in choices.text %}{{'ABCDE'[loop.index0]}}. {{text}}\n{% endfor %}Answer:",
        "doc_to_target": "answerKey",
        "doc_to_choice": ["A", "B", "C", "D", "E"],
    },
    "winogrande": {
        "doc_to_text": "{{ {'1': 0, '2': 1}[answer] }}",
        "doc_to_target": "{{sentence.split('_')[1].strip()}}",
        "doc_to_choice": "{{[sentence.split('_')[0] + option1, sentence.split('_')[0] + option2]}}",
    },
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Files of each of the three tasks."""
    folder = tmp_path_factory.mktemp("harness") / "data"
    toys.write(folder, train=8, validation=40)
    (folder / "arc_easy").rename(folder / "commonsense_qa")
    rows = [json.loads(line) for line in (folder / "commonsense_qa" / "validation.jsonl").open()]
    for row in rows:
        texts = row["choices"]["text"]
        row["choices"]["text"] = [" ".join([a, *texts[:i]]) for i, a in enumerate(texts)]
    _write(folder / "arc_easy", rows)
    pairs = [(a, b) for a in toys.ANIMALS for b in toys.COLOURS]
    filled = [
        {"sentence": f"the {a} is older than _ and the {b} one .", "option1": a, "option2": b,
         "answer": str(1 + i % 2)}
        for i, (a, b) in enumerate(pairs)
    ]  # fmt: skip
    _write(folder / "winogrande", filled)
    return folder


def _write(folder, rows):
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "validation.jsonl").write_text(lines)


def described(folder, data, name):
    """A task of the harness on the same file."""
    import yaml

    task = {
        "task": f"theirs_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(data / name / "validation.jsonl")}},
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        **PUT[name],
    }
    path = folder / f"theirs_{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


@pytest.mark.parametrize("family", ["llama", "qwen"])
@pytest.mark.parametrize("name", PUT)
def test_the_two_agree_example_by_example(jdna, families, questions, tmp_path, name, family):
    model = families(family)
    ours = jdna("eval", model, "--task", name, "--data-dir", questions, "--json").json
    file = described(tmp_path, questions, name)
    result = jdna("eval", model, "--harness", file, "--json")
    theirs = result.json
    assert "\r" not in result.err
    assert theirs["metrics"]["acc"] == ours["metrics"]["accuracy"]
    if name == "arc_easy":
        assert theirs["metrics"]["acc_norm"] == ours["metrics"]["accuracy_norm"]
    assert theirs["run"]["protocol"].startswith("lm-eval ")
    mine = jdna.home / "1" / "predictions-validation.jsonl"
    other = jdna.home / "2" / f"predictions-theirs_{name}.jsonl"
    for a, b in zip(mine.open(), other.open(), strict=True):
        own = json.loads(a)["outputs"]
        assert own == pytest.approx([x for x, _ in json.loads(b)["filtered_resps"]], abs=1e-4)
    again = jdna("eval", model, "--harness", file, "--json").json
    assert again["run"]["cached"]
    assert again["metrics"] == theirs["metrics"]


@pytest.mark.parametrize(
    ("family", "args", "message"),
    [
        ("llama", ("--harness", "arc_eas"), "unknown task of the harness 'arc_eas': did you mean"),
        ("bert", ("--harness", "arc_easy"), "needs a model that writes, and bert is an encoder"),
        ("llama", ("--harness", "none.yaml"), "none.yaml: no such file"),
        ("llama", ("--harness", "arc_easy", "--options", 2), "--options: the harness has no such"),
        ("llama", ("--harness", "arc_easy", "--task", "rte"), "give either --task TASK or"),
        ("llama", (), "give either --task TASK or --harness NAMES"),
        ("llama", ("--task", "rte", "--limit", 2), "--limit: goes with --harness alone"),
    ],
)
def test_a_wrong_request_is_one_line(jdna, families, family, args, message):
    result = jdna("eval", families(family), *args, code=2)
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
