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


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "llama") for name in PUT), ("arc_easy", "qwen")]
)
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
        pytest.param(
            "llama",
            ("--harness", "arc_eas"),
            "unknown task of the harness 'arc_eas': did you mean",
            marks=pytest.mark.long,  # all tasks of the harness are read
        ),
        ("bert", ("--harness", "arc_easy"), "needs a model that writes, and bert is an encoder"),
        ("llama", ("--harness", "none.yaml"), "none.yaml: no such file"),
        ("llama", ("--harness", "arc_easy", "--options", 2), "--options: the harness has no such"),
        ("llama", ("--harness", "arc_easy", "--task", "rte"), "give either --task TASK or"),
        ("llama", (), "give either --task TASK or --harness NAMES"),
        ("llama", ("--harness", "arc_easy", "--dry-run"), "--dry-run: the harness does not say"),
    ],
)
def test_a_wrong_request_is_one_line(jdna, families, family, args, message):
    result = jdna("eval", families(family), *args, code=2)
    assert message in result.err
    # On a slow machine it is said what is waited for.
    lines = [x for x in result.err.strip().splitlines() if not x.endswith("…")]
    assert len(lines) == 1


def compared(jdna, model, ours, theirs, name):
    """Both sides' predictions, run after run."""
    first = jdna("eval", model, *ours, "--json").json
    second = jdna("eval", model, *theirs, "--json").json
    files = [
        jdna.home / str(first["run"]["id"]) / "predictions-validation.jsonl",
        jdna.home / str(second["run"]["id"]) / f"predictions-{name}.jsonl",
    ]
    rows = [[json.loads(line) for line in file.open()] for file in files]
    return first, second, rows


@pytest.mark.parametrize("family", ["qwen"])  # whose tokens tell white space apart
def test_a_line_break_before_an_option_is_the_options(jdna, families, questions, tmp_path, family):
    """A prompt that ends in white space gives it to its options, as the harness has it."""
    import yaml

    put = {**PUT["arc_easy"], "doc_to_text": "Question: {{question}}\nAnswer:\n",
           "target_delimiter": ""}  # fmt: skip
    file = described(tmp_path, questions, "arc_easy")
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | put))
    own = tmp_path / "arc.toml"
    own.write_text(
        'kind = "multiple-choice"\ntexts = ["question"]\noptions = ["choices.text"]\n'
        'label = "answerKey"\nprompt = "Question: {question}\\nAnswer:\\n"\n'
        'metrics = ["accuracy", "accuracy_norm"]\nsplits = ["validation"]\n'
        f"[source]\nfiles = '{questions / 'arc_easy'}'\n"
    )
    first, second, rows = compared(
        jdna, families(family), ("--task", own), ("--harness", file), "theirs_arc_easy"
    )
    assert first["run"]["protocol"]
    assert second["metrics"]["acc"] == first["metrics"]["accuracy"]
    for a, b in zip(*rows, strict=True):
        assert a["outputs"] == pytest.approx([x for x, _ in b["filtered_resps"]], abs=1e-4)
    (rule,) = jdna("db", "query", "SELECT rule FROM run WHERE id = 1", "--format", "json").json
    assert rule["rule"] == 3


def test_mmlu_is_put_with_its_subjects_header_and_shots(jdna, families, tmp_path):
    import yaml

    data = tmp_path / "data" / "mmlu"
    subjects = {"red_cat": "red cat", "blue_dog": "blue dog"}
    for split, count in (("train", 1), ("validation", 12)):
        rows = [
            {"question": f"what is {a} {split} {i} ?", "subject": subject, "answer": i % 4,
             "choices": toys.COLOURS[:4]}
            for subject, a in subjects.items() for i in range(count)
        ]  # fmt: skip
        data.mkdir(parents=True, exist_ok=True)
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for subject in subjects:
            own = [row for row in rows if row["subject"] == subject]
            lines = "".join(json.dumps(row) + "\n" for row in own)
            (tmp_path / f"{subject}-{split}.jsonl").write_text(lines)
    outputs = []
    model = families("llama")
    for subject, words in subjects.items():
        task = {
            "task": f"theirs_{subject}",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {
                    s: str(tmp_path / f"{subject}-{s}.jsonl") for s in ("train", "validation")
                }
            },
            "description": "The following are multiple choice questions (with answers) about "
            f"{words}.\n\n",
            "validation_split": "validation",
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
            "output_type": "multiple_choice",
            "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\n"
            "C. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}],
        }
        file = tmp_path / f"{subject}.yaml"
        file.write_text(yaml.safe_dump(task))
        found = jdna("eval", model, "--harness", file, "--shots", 1, "--json").json["run"]
        there = jdna.home / str(found["id"]) / f"predictions-theirs_{subject}.jsonl"
        outputs += [[x for x, _ in json.loads(line)["filtered_resps"]] for line in there.open()]
    args = ("--task", "mmlu", "--data-dir", tmp_path / "data", "--split", "validation")
    run = jdna("eval", model, *args, "--shots", 1, "--json").json["run"]
    ours = (jdna.home / str(run["id"]) / "predictions-validation.jsonl").open()
    for line, theirs in zip(ours, outputs, strict=True):
        assert json.loads(line)["outputs"] == pytest.approx(theirs, abs=1e-4)
    # A subject of which there is no example is named.
    rows = (data / "train.jsonl").read_text().splitlines()
    (data / "train.jsonl").write_text(rows[0] + "\n")
    message = jdna("eval", model, *args, "--shots", 1, code=2).err
    assert "no example of subject 'blue_dog'" in message


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_what_is_written_is_what_the_harness_generates(jdna, families, tmp_path, family):
    """Greedy, to the end of the line; where theirs ends before it begins, ours goes on."""
    import yaml

    data = toys.write(tmp_path / "data", train=4, validation=30)
    task = {
        "task": "theirs",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(data / "nq_open/validation.jsonl")}},
        "output_type": "generate_until",
        "validation_split": "validation",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answers[0]}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
        "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    }
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(task))
    asked = ("--task", "nq_open", "--data-dir", data, "--book", "closed", "--max-length", 64)
    _, _, rows = compared(jdna, families(family), asked, ("--harness", file), "theirs")
    told = [(a["prediction"], b["filtered_resps"][0].strip()) for a, b in zip(*rows, strict=True)]
    assert any(theirs for _, theirs in told)
    for ours, theirs in told:
        assert ours == theirs or not theirs
