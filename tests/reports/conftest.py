"""Runs that the tests of reports read."""

import shutil

import pytest

from benchmarks import simulated
from tests.conftest import run_jdna
from tests.pipelines.test_variants import SMALL


class Measured:
    """Runs of a tiny model, and the commands on them."""

    def __init__(self, home):
        self.home = home

    def __call__(self, *args, code=0):
        found = run_jdna(*args, "--home", self.home)
        assert found.code == code, (found.code, found.out, found.err)
        return found


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """Dense, pruned, rounded and taught; measured in time, and looked upon."""
    place = tmp_path_factory.mktemp("measured")
    model, call = shutil.copytree(tiny("bert"), place / "TinyBERT"), Measured(place / "home")
    call("finetune", model, *SMALL)
    for way in (("--sparsity", 0.5, "--dynamics", "--dynamics-every", 8), ("--quantize", 4),
                ("--sparsity", 0.9, "--teacher", "run:1")):  # fmt: skip
        call("finetune", model, *SMALL, *way)
    call("prune", model, "--pattern", "2:4", "--packed")
    call("scan", "run:1", "--task", "living")
    for run in (1, 3):
        call("eval", f"run:{run}", "--task", "living", "--time")
    return call


def every_kind():
    """Cells of every condition and way, some of them awkward."""
    for seed in (1, 2, 3):
        own = {"model": "org/one", "seed": seed}
        for task, top, lost in (("easy", 0.95, 0.1), ("middle", 0.85, 0.3), ("hard", 0.7, 0.9)):
            here = {**own, "task": task}
            yield simulated.dense(**here, score=top + 0.001 * seed)
            for regime, share in (("sparse", 1.0), ("dense-frozen", 0.5), ("sparse-to-dense", 0.8)):
                for s in (0.3, 0.5, 0.7):
                    score = top * (1 - share * lost * s) + 0.003 * seed
                    yield {**here, "regime": regime, "sparsity": s, "score": score}
            for n in (2, 4, 6):
                yield {**here, "pattern": f"{n}:8", "scope": None, "sparsity": 1 - n / 8,
                       "score": top * (1 - lost * (1 - n / 8) / 2)}  # fmt: skip
        for criterion in ("random", "wanda"):
            yield {**own, "task": "easy", "criterion": criterion, "sparsity": 0.5, "score": 0.6}
        for share in (0.5, 0.25):
            here = {**own, "task": "easy", "data_fraction": share}
            yield simulated.dense(**here, score=0.9)
            yield {**here, "sparsity": 0.5, "score": 0.9 - 0.1 / share}
        for condition, values in (
            ("options", (4, 2)),
            ("shots", (4, 0)),
            ("book", ("open", "closed")),
            ("context_words", (200, 50)),
            ("pairs", ("en-de", "en-de,de-en")),
        ):
            for i, value in enumerate(values):
                here = {**own, "task": f"by-{condition}", condition: value, "kind": "eval",
                        "chance": 0.0, "recipe": f"{condition}-{value}",
                        "data_fraction": None}  # fmt: skip
                yield simulated.dense(**here, score=0.8)
                yield {**here, "sparsity": 0.5, "score": 0.7 - 0.2 * i}
        yield {**own, "task": "alone", "sparsity": 0.5, "score": 0.5}  # no dense run
        text = {**own, "task": "text", "metric": "perplexity", "human": None, "chance": None}
        yield simulated.dense(**text, score=20.0)
        yield {**text, "sparsity": 0.5, "score": 30.0}
        yield {**own, "model": "/a/b/two", "task": "easy", "sparsity": 0.5, "score": 0.7}
        yield simulated.dense(**{**own, "model": "/a/b/two", "task": "easy"}, score=0.9)
    # Measured again: a fine-tuning counts before an evaluation, else the latest.
    yield {"model": "org/one", "task": "easy", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.1}  # fmt: skip
    yield {"model": "org/one", "task": "again", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.1}  # fmt: skip
    yield {"model": "org/one", "task": "again", "seed": 1, "kind": "eval", "sparsity": 0.3,
           "score": 0.3}  # fmt: skip
    yield simulated.dense(model="org/one", task="again", seed=1, kind="eval", score=0.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return simulated.record(tmp_path_factory.mktemp("every"), every_kind())
