"""Whatever stands in a file, the end is success or one line; no traceback, no hang, nothing halved.

Valid files of every format that jdna reads, mutated by a fixed seed.
"""

import json
import shutil
import signal

import pyarrow as arrow
import pytest
import sqlalchemy as sa
from pyarrow import parquet
from safetensors import safe_open

from jdna_cli.errors import JdnaError
from jdna_cli.models import architecture, model_files
from jdna_cli.pruning.plan import plan_of
from jdna_cli.results import Measurement, Outcome
from jdna_cli.scoring.tokenizer_cache import Tokens
from jdna_cli.sparsity import masks
from jdna_cli.specs import ModelSource, PruneSpec
from jdna_cli.store import reading
from jdna_cli.store.ledger import Ledger, NewRun
from jdna_cli.sweeps import cells, experiment
from jdna_cli.tasks import datasets, user_tasks
from tests import hostile

SECONDS = 20  # in which each has come to an end
PRUNE = PruneSpec(model="m", sparsity=0.5)
TASK = (
    'kind = "classification"\ntexts = ["text"]\nlabels = ["a", "b"]\nmetrics = ["accuracy"]\n'
    'description = "x"\n[source]\nfiles = "data"\n[human]\nvalue = 0.9\nsource = "x"\n'
)
TRIAL = (
    'title = "x"\nseeds = [1, 2]\n[fixed]\nmodel = "m"\ntask = "living"\nexclude = ["*p*"]\n'
    '[axes]\nregime = ["sparse", "dense-frozen"]\n[[levels]]\nsparsity = [0.3, 0.5]\n'
    '[[levels]]\npattern = ["2:4"]\n[[then]]\ncommand = "eval"\nsplit = "test"\n'
)


def each(file, content, read, count, *, allowed=(), rest=b""):
    """Read so many mutations of a file; returns how many were read, and how many refused."""
    done = {"read": 0, "refused": 0}
    before = signal.signal(signal.SIGALRM, _late)
    try:
        for data in hostile.many(content, count, seed=7):
            file.write_bytes(data + rest)
            signal.alarm(SECONDS)
            try:
                read()
                done["read"] += 1
            except JdnaError:
                done["refused"] += 1
            except allowed:
                done["refused"] += 1
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    # Neither are all of them harmless nor does nothing get through.
    assert done["refused"] > count // 10
    return done


def _late(*_):
    raise TimeoutError(f"not at an end after {SECONDS} s")


def test_experiments(tmp_path):
    file = tmp_path / "x.toml"
    done = each(file, TRIAL.encode(), lambda: cells.of(experiment.read(file)), 2000)
    assert done["read"] > 20


@pytest.fixture
def task(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(
            "".join(json.dumps({"text": f"é {i}", "label": i % 2}) + "\n" for i in range(6))
        )
    (tmp_path / "x.toml").write_text(TASK)
    return tmp_path / "x.toml"


def test_tasks(task):
    assert each(task, TASK.encode(), lambda: user_tasks.read(task), 2000)["read"] > 10


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_data(task, suffix):
    folder = task.with_name("data")
    rows = [(f"a, {i}", i % 2) for i in range(6)]
    file = folder / f"train.{suffix}"
    if suffix == "parquet":
        texts, labels = zip(*rows, strict=True)
        parquet.write_table(arrow.table({"text": list(texts), "label": list(labels)}), file)
    elif suffix != "jsonl":
        mark = "," if suffix == "csv" else "\t"
        lines = [f'"{text}"{mark}{label}' for text, label in rows]
        file.write_text("\n".join([f"text{mark}label", *lines]) + "\n")
    if suffix != "jsonl":
        (folder / "train.jsonl").unlink()
    read = user_tasks.read(task)

    def load():
        datasets.identity(read, ["train"], None)
        datasets.load(read, "train", None)

    assert each(file, file.read_bytes(), load, 1500)["read"] > 10


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny("bert"), tmp_path / "model")


def test_configurations(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = folder / "config.json"

    def read():
        model_files.config_of(folder)
        architecture.architecture(folder)

    assert each(file, file.read_bytes(), read, 600)["read"] > 20


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_tokenizers(folder, name):
    file = folder / name

    def read():
        Tokens(model_files.tokenizer_of(folder), None, None)(["the dog is red"])

    assert each(file, file.read_bytes(), read, 800)["read"] > 10


def test_weights(folder):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    source = ModelSource("m", folder, "m")
    each(file, content[:header], lambda: plan_of(PRUNE, source), 1500, rest=content[header:])


def test_an_index_of_weights(folder):
    whole, shard = folder / "model.safetensors", folder / "model-00001-of-00001.safetensors"
    whole.rename(shard)
    with safe_open(shard, "pt") as handle:
        names = list(handle.keys())[:5]
    content = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard.name)}).encode()
    source = ModelSource("m", folder, "m")
    file = folder / model_files.INDEX
    assert each(file, content, lambda: plan_of(PRUNE, source), 1500)["read"] > 10


def test_masks(tmp_path):
    import torch

    file = tmp_path / "mask.safetensors"
    ones = {"a": masks.pack(torch.ones(4, 8) > 0), "b": masks.pack(torch.ones(3, 5) > 0)}
    masks.save(ones, file)

    def read():
        for mask in masks.load(file).values():
            mask.unpacked()

    each(file, file.read_bytes(), read, 2000)


def test_databases(tmp_path):
    home = tmp_path / "home"
    ledger = Ledger(home)
    run = ledger.start(NewRun(PRUNE, "f"), {}, None)
    ledger.finish(run, Outcome((Measurement("s", "loss", 1.0),)))
    ledger.close()
    file = home / "jdna.db"

    def read():
        for name in ("jdna.db-wal", "jdna.db-shm"):
            (home / name).unlink(missing_ok=True)
        for view in ("performance", "run"):
            reading.query(ledger.url, f"SELECT * FROM {view}")
        opened = Ledger(home)
        opened.outcome(opened.get(1).id)
        opened.close()

    # What SQLAlchemy says of a database is one line where the command ends.
    each(file, file.read_bytes(), read, 800, allowed=(sa.exc.SQLAlchemyError, ValueError))


BAD = {
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "vocab_size": "x",
    "num_hidden_layers": 10**6,
    "hidden_size": -1,
    "num_attention_heads": 0,
}


@pytest.mark.parametrize("key", BAD)
def test_a_configuration_that_cannot_be_is_one_line(jdna, folder, key):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: BAD[key]}))
    for command in (("prune", folder, "--sparsity", 0.5), ("finetune", folder, "--task", "living")):
        told = jdna(*command, code=2).err
        assert len(told.strip().splitlines()) == 1, told


def test_a_grid_of_a_billion_cells_is_refused_before_it_is_built(jdna, tmp_path):
    lists = "\n".join(f"{name} = {[*range(1, 1001)]}" for name in ("epochs", "batch_size", "lr"))
    file = tmp_path / "x.toml"
    file.write_text(f'title = "x"\n[fixed]\nmodel = "m"\ntask = "living"\n[axes]\n{lists}\n')
    assert "1,000,000,000 cells, more than 100,000" in jdna("sweep", file, "--dry-run", code=2).err


@pytest.mark.parametrize("number", ["²", "99999999999999999999", "-1", "0"])
def test_what_is_no_number_of_a_run(jdna, tiny, number):
    jdna("prune", tiny("bert"), "--sparsity", 0.5)
    told = jdna("prune", f"run:{number}", "--sparsity", 0.5, code=2).err
    assert len(told.strip().splitlines()) == 1
    if number.isascii():
        jdna("runs", "show", "--", number, code=2)


def test_a_split_is_a_name_and_no_path(jdna, task, bert):
    (task.with_name("secret.jsonl")).write_text('{"text": "a", "label": 0}\n')
    text = TASK.replace("[source]", 'splits = ["train", "../secret"]\n[source]')
    task.write_text(text.replace("[source]", 'evaluation_splits = ["../secret"]\n[source]'))
    assert "is no name of a split" in jdna("finetune", bert, "--task", task, code=2).err


def test_a_folders_name_moves_no_cursor(jdna, folder, tmp_path):
    named = folder.rename(tmp_path / "red\x1b[31m\x07model")
    for command in (
        ("prune", named, "--sparsity", 0.5),
        ("runs", "list"),
        ("runs", "show", 1),
        ("report", "runs"),
        ("report", "runs", "--format", "csv"),
        ("report", "runs", "--format", "markdown"),
    ):
        told = jdna(*command)
        assert "\x1b" not in told.out + told.err
        assert "\x07" not in told.out + told.err
    assert "\x1b" not in (jdna.home / "1" / "README.md").read_text()


def test_a_damaged_page_is_told(jdna, tiny):
    jdna("prune", tiny("bert"), "--sparsity", 0.5)
    assert jdna("doctor", "--json").json["checks"]
    file = jdna.home / "jdna.db"
    for name in ("jdna.db-wal", "jdna.db-shm"):
        (jdna.home / name).unlink(missing_ok=True)
    data = bytearray(file.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 4096] = bytes(range(256)) * 16
    file.write_bytes(data)
    checks = {c["name"]: c for c in jdna("doctor", "--json", code=1).json["checks"]}
    assert not all(check["ok"] for check in checks.values())
