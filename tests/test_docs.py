"""The docs are what the code is."""

import re
import runpy
import sqlite3
from pathlib import Path

import pytest
import torch

import jdna_cli
from benchmarks import simulated
from jdna_cli import reports
from jdna_cli.cli.app import app
from jdna_cli.sparsity import criteria
from jdna_cli.sparsity.regimes import REGIMES
from jdna_cli.sweeps import cells, experiment
from jdna_cli.tasks import built_in, datasets, lookup

TOP = Path(__file__).resolve().parents[1]
_MADE = runpy.run_path(str(TOP / "docs" / "generate.py"))
PAGES, QUERIES = _MADE["PAGES"], _MADE["QUERIES"]
README = (TOP / "README.md").read_text()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Runs in which every query of the documentation finds something."""
    home = tmp_path_factory.mktemp("recorded")
    own = {"model": "m", "task": "t", "chance": 0.5}
    found = []
    for seed in (41, 42):
        found.append(simulated.dense(**own, seed=seed, score=0.9))
        found += [{**own, "seed": seed, "sparsity": s, "score": 0.9 - s * s / 5}
                  for s in (0.1, 0.5)]  # fmt: skip
    found.append(simulated.dense(**{**own, "task": "hard"}, score=0.51))
    found.append({**own, "task": "hard", "sparsity": 0.7, "score": 0.5, "status": "failed",
                  "error": "out of memory"})  # fmt: skip
    simulated.record(home, found)
    connection = sqlite3.connect(home / "jdna.db")
    with connection:
        connection.execute("INSERT INTO layer VALUES (2, 'a', '[2]', 1, 2), (2, 'b', '[4]', 1, 4)")
        connection.execute(
            "INSERT INTO metric (run, split, name, value, step) VALUES "
            "(3, 'train', 'loss', 0.7, 20), (3, 'train', 'loss', 0.5, 40)"
        )
        connection.execute(
            "INSERT INTO run (kind, status, spec, fingerprint, started_at, versions,"
            " task, parent, other) VALUES ('interpolate', 'finished', '{}', 'i', "
            f"'{simulated.WHEN}', '{{}}', 't', 1, 2)"
        )
        (number,) = connection.execute("SELECT MAX(id) FROM run").fetchone()
        connection.executemany(
            "INSERT INTO point VALUES (?, ?, ?, ?)",
            [(number, a, 1 + a * (1 - a), 0.5) for a in (0.0, 0.5, 1.0)],
        )
    connection.close()
    return home  # fmt: skip


ANSWERS = {
    "Which sparsity costs each task no more than 1 %?": [["m", "t", "sparse", "magnitude", 0.1]],
    "Which runs diverged, or failed otherwise, and why?": [
        [8, "m", "hard", 0.7, 1, "failed", "out of memory"]
    ],
    "What changed between two runs (here 2 and 3)?": [["sparsity", 0.1, 0.5]],
    "Which tensors lost the most weights in run 2?": [["b", 0.75], ["a", 0.5]],
    "How did the loss of run 3 fall?": [[20, 0.7], [40, 0.5]],
    "Which dense models have learnt nothing?": [["m", "hard", 0.51, 0.5]],
    "Which loss barriers are the highest?": [["t", 1, 2, 0.25]],
}


@pytest.mark.parametrize("question", QUERIES)
def test_the_queries_that_people_ask_are_answered(jdna, recorded, question):
    found = jdna("db", "query", QUERIES[question], "--home", recorded, "--json").json["rows"]
    assert found
    if question in ANSWERS:
        assert found == ANSWERS[question]


@pytest.mark.parametrize("name", PAGES)
def test_pages_made_from_the_code_are_fresh(name):
    assert (TOP / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_command_is_in_the_readme():
    names = [c.name for c in app.registered_commands] + [g.name for g in app.registered_groups]
    assert [name for name in names if f"jdna {name}" not in README] == []


def test_every_regime_criterion_task_and_report_is_documented():
    text = README + "".join(p.read_text() for p in (TOP / "docs").glob("*.md"))
    names = [*REGIMES, *criteria.names(), *built_in.all_tasks(), *reports.names()]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_links_lead_somewhere():
    for page in [TOP / "README.md", *(TOP / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), (page.name, link)


def test_the_task_of_ones_own_is_read(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", (TOP / "docs" / "own-tasks.md").read_text(), re.S)
    (tmp_path / "file.toml").write_text(block)
    (tmp_path / "tickets").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "tickets" / f"{split}.csv").write_text("subject,body,queue\na,b,outage\n")
    task = lookup.get(str(tmp_path / "file.toml"))
    assert task.name == "tickets"
    assert datasets.load(task, "train", None).labels == (1,)


def test_the_experiment_of_ones_own_is_right():
    (block,) = re.findall(r"```toml\n(.*?)```", (TOP / "docs" / "sweeps.md").read_text(), re.S)
    found = cells.of(experiment.parse(block, "sweeps.md"))
    kinds = [cell.kind for cell in found]
    # 2 tasks × 2 fractions × 2 seeds, each dense and at 3 levels in 3 ways.
    assert (kinds.count("finetune"), kinds.count("interpolate")) == (8 * 10, 8 * 9)


def test_the_examples_of_extending_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (TOP / "docs" / "extending.md").read_text(), re.S)
    for block in blocks:
        compile(block, "extending.md", "exec")
    task: dict = {}
    exec(blocks[0], task)
    assert task["TASKS"][0].metric == "accuracy"
    criterion: dict = {}
    exec(blocks[1], criterion)
    weight = torch.tensor([[0.9, -1.0, 3.0]])
    score = criterion["score"](weight, criteria.Statistics("w"))
    assert score.argsort().tolist() == [[2, 0, 1]]


def test_what_other_programs_read_of_the_project_is_well_formed():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert cited["version"] == jdna_cli.__version__
    assert cited["references"][0]["identifiers"][0]["value"] == "arXiv:2310.02277"
    workflow = yaml.safe_load((TOP / ".github" / "workflows" / "test.yml").read_text())
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.M))
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert all(step.removeprefix("make ") in targets for step in steps)
    hooks = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert (TOP / "jdna_cli" / "py.typed").is_file()


def test_no_room_of_the_code_is_in_a_circle(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "docs"))
    import rooms

    there, arrows = rooms.graph()
    assert not rooms.circles(arrows)
    assert ("pruning", "sparsity") in arrows
    assert sum(room.files for room in there) == len(rooms.modules())
    assert not [pair for pair in arrows if pair[0] == rooms.GROUND], "it knows no room above"


def test_the_report_of_ones_own_is_a_report():
    text = (TOP / "docs" / "extending.md").read_text().partition("## A report")[2]
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)[:1]
    report = {"__name__": "slowest"}
    exec(block, report)
    rows = [{"id": 1, "_name": "m", "task": None, "started_at": 0}]
    (section,) = report["sections"](rows)
    assert section.rows == [["1", "m", ""]]
    assert report["sections"]([]) == []
    assert report["figure"](rows).panels[0].lines[0].x == (1.0,)
    assert report["EMPTY"]
