"""The docs are what the code is."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from jdna_cli import reports, tasks
from jdna_cli.cli.app import app
from jdna_cli.sparsity import criteria
from jdna_cli.sparsity.regimes import REGIMES
from jdna_cli.sweeps import cells, experiment

TOP = Path(__file__).resolve().parents[1]
PAGES = runpy.run_path(str(TOP / "docs" / "generate.py"))["PAGES"]
README = (TOP / "README.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_pages_made_from_the_code_are_fresh(name):
    assert (TOP / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_command_is_in_the_readme():
    names = [c.name for c in app.registered_commands] + [g.name for g in app.registered_groups]
    assert [name for name in names if f"jdna {name}" not in README] == []


def test_every_regime_criterion_task_and_report_is_documented():
    text = README + "".join(p.read_text() for p in (TOP / "docs").glob("*.md"))
    names = [*REGIMES, *criteria.names(), *tasks.all_tasks(), *reports.names()]
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
    task = tasks.get(str(tmp_path / "file.toml"))
    assert task.name == "tickets"
    assert tasks.records.load(task, "train", None).labels == (1,)


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
