"""A task of one's own: from TOML to a run; what is wrong with it is said with its key."""

import json

import pytest

from jdna_cli.errors import RequestError
from jdna_cli.tasks import built_in, datasets, lookup, user_tasks
from jdna_cli.tasks.families import generated

TICKETS = """
kind = "classification"
texts = ["subject"]
label = "queue"
labels = ["tool", "beast"]
metric = "accuracy"

[human]
value = 0.95
source = "two of us, 2026"

[source]
files = "files"
"""


@pytest.fixture
def tickets(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    rows = [(r["sentence"], ["tool", "beast"][r["label"]]) for r in generated.living("train")[:96]]
    lines = (json.dumps({"subject": text, "queue": queue}) for text, queue in rows)
    (folder / "train.jsonl").write_text("\n".join(lines))
    table = "subject,queue\n" + "".join(f'"{text}",{queue}\n' for text, queue in rows[:30])
    (folder / "validation.csv").write_text(table)
    (tmp_path / "tickets.toml").write_text(TICKETS)
    return tmp_path / "tickets.toml"


def test_a_file_makes_a_task_that_every_command_takes(jdna, tiny, tickets):
    args = ("--task", tickets, "--json")
    recipe = ("--epochs", 2, "--lr", 1e-3)
    run = jdna("finetune", tiny("bert"), *args, *recipe).json["run"]
    assert (run["task"], run["metric"]) == ("tickets", "accuracy")
    pruned = jdna("finetune", tiny("bert"), *args, *recipe, "--sparsity", 0.5).json["run"]
    assert pruned["id"] == 3
    assert jdna("finetune", tiny("bert"), *args, *recipe).json["run"]["cached"]
    assert jdna("eval", "run:1", *args).json["metrics"]["accuracy"] is not None
    assert jdna("interpolate", "run:1", "run:3", *args, "--points", 2).json["points"]
    (row,) = [r for r in jdna("report", "--format", "json").json if r["sparsity"] == 0.5]
    assert row["task"] == "tickets"
    assert row["difficulty"] is not None
    # The same file with another meaning is another task.
    tickets.write_text(TICKETS.replace('["tool", "beast"]', '["beast", "tool"]'))
    assert not jdna("finetune", tiny("bert"), *args, *recipe).json["run"]["cached"]


@pytest.mark.parametrize("task", built_in.all_tasks().values(), ids=lambda t: t.name)
def test_every_task_is_shown_in_the_form_that_is_read(tmp_path, jdna, task):
    text = jdna("tasks", "show", task.name).out
    (tmp_path / "mine.toml").write_text(text.replace(f'name = "{task.name}"', 'name = "mine"', 1))
    found = user_tasks.read(tmp_path / "mine.toml")
    assert found == task.model_copy(update={"name": "mine"})


BAD = [
    ('kind = "classification"', 'kind = "clasification"', "kind: Input should be"),
    ("texts =", "txets =", "unknown key in .*'txets': did you mean 'texts'"),
    ('labels = ["tool", "beast"]', 'labels = ["tool"]', "labels: a classification needs two"),
    ('labels = ["tool", "beast"]', "", "labels: a task of kind 'classification' needs it"),
    ('labels = ["tool", "beast"]', 'labels = ["tool", "cat"]', "row 2: label 'beast' is none of"),
    ('metric = "accuracy"', 'metric = "bleu"', "metrics: 'bleu' does not fit 'classification'"),
    ('metric = "accuracy"', 'blank = "_"', "blank: a task of kind 'classification' has no such"),
    (
        'labels = ["tool", "beast"]\nmetric = "accuracy"',
        'labels = ["tool", "beast", "cat"]\nmetric = "f1"',
        "metrics: f1 is that of the second of two labels, use macro_f1",
    ),
    ('files = "files"', 'files = "nowhere"', "source.files: .*nowhere is no folder"),
    ('files = "files"', 'file = "files"', 'source: give hub = "OWNER/NAME" or files'),
    ('files = "files"', 'files = "files"\nhub = "a/b"', 'source: give hub = "OWNER/NAME" or files'),
    ('label = "queue"', 'label = "place"', "row 1: column 'place' is missing"),
    ("value = 0.95", 'value = "high"', "human.value: Input should be a valid number"),
    ("[human]", "[human", "is not TOML"),
    ('kind = "classification"', 'name = "rte"\nkind = "classification"', "'rte' is a built-in"),
    ('label = "queue"', 'evaluation_splits = ["dev"]', "'dev' is not among splits"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_what_is_wrong_is_one_line_that_names_the_key(jdna, tiny, tickets, old, new, message):
    import re

    tickets.write_text(TICKETS.replace(old, new))
    rows = (tickets.parent / "files" / "train.jsonl").read_text().splitlines()
    rows.sort(key=lambda line: "beast" in line)
    first = [rows[0], rows[-1], *rows[1:-1]]
    (tickets.parent / "files" / "train.jsonl").write_text("\n".join(first))
    result = jdna("finetune", tiny("bert"), "--task", tickets, code=2)
    (line,) = result.err.strip().splitlines()
    assert re.search(message, line), line
    assert jdna("runs", "list", "--json").json == {"runs": []}


def test_a_hub_data_set_is_read_under_the_tasks_own_names(tmp_path):
    """The hub's library reads a folder as it reads a data set of the hub."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    rows = [{"body": f"text {i}", "label": i % 2} for i in range(4)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text(json.dumps(rows[1]) + "\n")
    source = f'hub = "{folder}"\n[source.splits]\nvalidation = "test"\n'
    source += '[source.columns]\nsubject = "body"\nqueue = "label"\n'
    text = TICKETS.replace('files = "files"', source).replace("[human]", "", 1)
    text = text.replace('value = 0.95\nsource = "two of us, 2026"\n', "")
    (tmp_path / "mine.toml").write_text(text)
    task = user_tasks.read(tmp_path / "mine.toml")
    train = datasets.load(task, "train", None)
    assert train.texts == tuple((row["body"],) for row in rows)
    assert train.labels == (0, 1, 0, 1)
    assert datasets.load(task, "validation", None).texts == (("text 1",),)
    assert datasets.identity(task, ["train"], None).startswith(f"hub:{folder}:None@main:own:")


def test_missing_files_and_ragged_tables_are_named(tmp_path, tickets):
    with pytest.raises(RequestError, match=r"none\.toml cannot be read: No such file"):
        lookup.get(str(tmp_path / "none.toml"))
    (tmp_path / "files" / "validation.csv").write_text("subject,queue\nalone\n")
    with pytest.raises(RequestError, match="line 2: not as many values as the first line"):
        datasets.load(lookup.get(str(tickets)), "validation", None)


def test_the_list_shows_sizes_and_the_difficulty_against_the_dense_model(jdna, tiny, tmp_path):
    before = {t["name"]: t for t in jdna("tasks", "list", "--json").json["tasks"]}
    assert before["sst2"]["examples"]["train"] == 67349
    assert "difficulty" not in before["living"]
    jdna("finetune", tiny("bert"), "--task", "living", "--max-train-samples", 16)
    score = jdna("runs", "show", 1, "--json").json["metrics"]["accuracy"]
    after = {t["name"]: t for t in jdna("tasks", "list", "--json").json["tasks"]}
    assert after["living"]["difficulty"] == pytest.approx(1 - score)
    assert after["living"]["dense"] == score
    # What was measured of a part, or of another split, says nothing of the whole.
    jdna("eval", "run:1", "--task", "living", "--limit", 10)
    jdna("eval", "run:1", "--task", "living", "--split", "test")
    again = {t["name"]: t for t in jdna("tasks", "list", "--json").json["tasks"]}
    assert again["living"] == after["living"]
    (tmp_path / "d" / "sst2").mkdir(parents=True)
    (tmp_path / "d" / "sst2" / "train.jsonl").write_text("{}\n{}\n")
    found = jdna("tasks", "list", "--data-dir", tmp_path / "d", "--json").json["tasks"]
    assert next(t for t in found if t["name"] == "sst2")["examples"] == {"train": 2}
