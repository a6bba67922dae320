"""The database loses nothing, whoever writes, dies, or asks."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jdna_cli.errors import JdnaError, redact
from jdna_cli.results import LayerSparsity, Measurement, Movement, Outcome, Point
from jdna_cli.specs import EvalSpec, FinetuneSpec, InterpolateSpec, PruneSpec
from jdna_cli.store import database, reading, schema
from jdna_cli.store.ledger import Ledger, NewRun

PRUNE = PruneSpec(model="m", sparsity=0.5)


def url(ledger):
    return ledger.url


def write(ledger, sql, **values):
    engine = database.open_engine(ledger.url)
    with engine.begin() as connection:
        connection.execute(sa.text(sql), values)
    engine.dispose()


def ask(ledger, sql):
    return reading.query(url(ledger), sql).rows


def logical(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def processes(code, count, *args):
    """Run the same program `count` times at once; each gets its number."""
    command = [sys.executable, "-c", code]
    return [
        subprocess.Popen([*command, str(i), *map(str, args)], stderr=subprocess.PIPE)
        for i in range(count)
    ]


@pytest.mark.long
def test_eight_processes_make_one_database(tmp_path, server):
    code = (
        "import sys; from pathlib import Path; from jdna_cli.store.ledger import Ledger; "
        "Ledger(Path(sys.argv[2]), sys.argv[3] or None).close()"
    )
    running = processes(code, 8, tmp_path / "home", server or "")
    assert [p.communicate(timeout=120)[1] for p in running] == [b""] * 8
    assert [p.returncode for p in running] == [0] * 8
    there = server or f"sqlite:///{tmp_path}/home/jdna.db"
    found = reading.query(there, "SELECT * FROM alembic_version")
    assert found.rows == [(schema.head(),)]


@pytest.mark.long
def test_many_writers_lose_no_run(tmp_path, server):
    """16 processes × 25 runs, each started, measured and finished."""
    code = """
import sys
from pathlib import Path
from jdna_cli.results import Measurement, Outcome
from jdna_cli.specs import PruneSpec
from jdna_cli.store.ledger import Ledger, NewRun
ledger = Ledger(Path(sys.argv[2]), sys.argv[3] or None)
for i in range(25):
    name = f"{sys.argv[1]}-{i}"
    run = ledger.start(NewRun(PruneSpec(model=name, sparsity=0.5), name), {}, None)
    ledger.finish(run, Outcome((Measurement("s", "loss", i), Measurement("s", "accuracy", i))))
"""
    running = processes(code, 16, tmp_path / "home", server or "")
    assert [p.communicate(timeout=240)[1] for p in running] == [b""] * 16
    there = server or f"sqlite:///{tmp_path}/home/jdna.db"
    assert reading.query(there, "SELECT COUNT(DISTINCT fingerprint) FROM run").rows == [(400,)]
    per_run = "SELECT COUNT(*) FROM metric GROUP BY run"
    assert {n for (n,) in reading.query(there, per_run).rows} == {2}
    if server is None:
        with sqlite3.connect(tmp_path / "home" / "jdna.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_is_recorded_comes_back(ledger):
    spec = InterpolateSpec(model="a", other="b", task="rte", split="validation")
    run = ledger.start(NewRun(spec, "f", {"task": "rte"}), {"torch": "2"}, None)
    outcome = Outcome(
        (Measurement("validation", "loss", 0.25, 3), Measurement("validation", "loss", 0.2)),
        (LayerSparsity("a.weight", (2, 3), 1, 6),),
        (Point(0.0, 1.0, 0.5), Point(1.0, 2.0, 0.25)),
        (Movement("a.weight", 5, 0.1, 0.2, None, None, 0.0, 1.0),),
        bits=32,
        bits_per_weight=2.5,
        device="cpu",
        remark="batch halved",
    )
    done = ledger.finish(run, outcome)
    assert ledger.outcome(done.id) == outcome
    assert done.status == "finished"
    assert done.sparsity_reached == pytest.approx(5 / 6)
    stored = ledger.get(done.id).spec
    assert InterpolateSpec(**stored) == spec


def test_a_run_is_recorded_whole_or_not_at_all(ledger):
    run = ledger.start(NewRun(PRUNE, "f"), {}, None)
    twice = LayerSparsity("same", (1,), 1, 1)
    with pytest.raises(sa.exc.IntegrityError):
        ledger.finish(run, Outcome((Measurement("s", "loss", 1.0),), (twice, twice)))
    assert ask(ledger, "SELECT COUNT(*) FROM metric") == [(0,)]
    assert ledger.get(run.id).status == "running"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM run",
        "INSERT INTO weights VALUES ('a', 1, 1, 'b')",
        "UPDATE run SET model = 'x'",
        "CREATE TABLE x (a)",
        "DROP VIEW performance",
        "ATTACH 'new.db' AS other",
        "VACUUM INTO 'new.db'",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM run",
        "WITH x AS (SELECT 1) DELETE FROM run",
        "BEGIN",
        "",
    ],
)
def test_a_query_can_only_read(on_file, jdna, tmp_path, monkeypatch, sql):
    monkeypatch.chdir(tmp_path)
    on_file.start(NewRun(PRUNE, "f"), {}, None)
    before = logical(on_file.home / "jdna.db")
    found = jdna("db", "query", sql, "--home", on_file.home, code=2)
    assert found.err.startswith("jdna: SQL: ")
    assert logical(on_file.home / "jdna.db") == before
    assert not (tmp_path / "new.db").exists()


def test_a_query_that_never_ends_is_stopped(on_file, monkeypatch):
    monkeypatch.setattr(reading, "QUERY_SECONDS", 0.2)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT MAX(x) FROM n"
    with pytest.raises(JdnaError, match="stopped after"):
        ask(on_file, endless)


# No name on a command line holds NUL, and PostgreSQL stores none.
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_name_is_only_a_name(ledger, name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    spec = PruneSpec(model=name, sparsity=0.5)
    run = ledger.start(NewRun(spec, name, {"model": name}), {}, None)
    found = reading.query(url(ledger), "SELECT model FROM run WHERE model = ?", [name]).rows
    assert (name,) in found
    assert ledger.get(run.id).spec["model"] == name
    ledger.finish(run, Outcome())


def record(ledger, recipe, score, *, kind="finetune", split="validation", **columns):
    """A finished run with one score."""
    spec = EvalSpec(model="m", task="rte", split=split)
    if kind == "finetune":
        spec = FinetuneSpec(model="m", task="rte")
    columns = {
        "model": "m", "task": "rte", "metric": "accuracy", "human": 0.9, "recipe": recipe,
        "regime": "dense", "sparsity": 0.0, "seed": 41, **columns,
    }  # fmt: skip
    run = ledger.start(NewRun(spec, f"{recipe}{columns}", columns), {}, None)
    return ledger.finish(run, Outcome((Measurement(split, "accuracy", score),), bits=32)).id


SPARSE = {
    "regime": "sparse",
    "criterion": "magnitude",
    "pattern": "unstructured",
    "scope": "global",
}


def test_performance_compares_with_the_dense_run_that_differs_only_in_pruning(ledger):
    dense = {seed: record(ledger, "r", 0.8 + seed / 1000, seed=seed) for seed in (41, 42)}
    record(ledger, "other recipe", 0.5)
    scores = {41: 0.6, 42: 0.7}
    for seed, score in scores.items():
        record(ledger, "r", score, seed=seed, sparsity=0.5, **SPARSE)
    lonely = record(ledger, "no dense run", 0.4, sparsity=0.5, **SPARSE)
    rows = reading.query(url(ledger), "SELECT * FROM performance WHERE sparsity = 0.5").records()
    by_seed = {row["seed"]: row for row in rows if row["recipe"] == "r"}
    for seed, score in scores.items():
        row = by_seed[seed]
        assert row["dense_run_id"] == dense[seed]
        assert row["relative"] == pytest.approx(score / (0.8 + seed / 1000))
        assert row["relative_drop"] == pytest.approx(1 - row["relative"])
    (alone,) = (row for row in rows if row["run_id"] == lonely)
    assert alone["dense_run_id"] is None
    assert alone["relative"] is None
    (own,) = reading.query(
        url(ledger), "SELECT * FROM performance WHERE run_id = ?", [dense[41]]
    ).records()
    assert own["relative"] == 1.0

    (cell,) = reading.query(
        url(ledger), "SELECT * FROM performance_drop WHERE recipe = 'r' AND sparsity = 0.5"
    ).records()
    drops = [1 - by_seed[seed]["relative"] for seed in scores]
    assert cell["n"] == 2
    assert cell["mean_relative_drop"] == pytest.approx(sum(drops) / 2)
    assert cell["sd_relative_drop"] == pytest.approx(abs(drops[0] - drops[1]) / 2**0.5)
    assert cell["difficulty"] == pytest.approx((0.9 - 0.8415) / 0.9)


def test_a_cell_measured_again_is_one_row(ledger):
    first = record(ledger, "r", 0.8)
    record(ledger, "r", 0.8, kind="eval")
    assert ask(ledger, "SELECT run_id, score FROM performance") == [(first, 0.8)]
    forced = record(ledger, "r", 0.7)
    record(ledger, "r", 0.9, kind="eval", split="test")
    found = ask(ledger, "SELECT run_id, split, score FROM performance ORDER BY split DESC")
    assert found[0] == (forced, "validation", 0.7)
    assert found[1][1:] == ("test", 0.9)


def test_one_seed_has_no_spread_and_a_dense_score_of_zero_no_ratio(ledger):
    record(ledger, "r", 0.0)
    record(ledger, "r", 0.1, sparsity=0.5, **SPARSE)
    ((relative, spread),) = ask(
        ledger, "SELECT mean_relative, sd_relative_drop FROM performance_drop WHERE sparsity > 0"
    )
    assert relative is None
    assert spread is None


def test_the_barrier_view_agrees_with_the_definition(ledger):
    spec = InterpolateSpec(model="a", other="b", task="rte", split="validation")
    run = ledger.start(NewRun(spec, "f", {"task": "rte"}), {}, None)
    points = tuple(Point(a, loss, 0.5) for a, loss in ((0.0, 1.0), (0.5, 3.0), (1.0, 2.0)))
    ledger.finish(run, Outcome(points=points))
    assert ask(ledger, "SELECT barrier, first_loss, second_loss, points FROM loss_barrier") == [
        (1.5, 1.0, 2.0, 3)
    ]


# Ten ways in which a secret comes along: by its variable, in an address, by a name, by its shape.
SECRETS = {
    "HF_TOKEN": "hf_planted0123",
    "AWS_SECRET_ACCESS_KEY": "aws2planted",
    "userinfo": "pw0planted",
    "password=": "pw1planted",
    "token=": "tok1planted",
    "X-Amz-Signature=": "sig1planted",
    "--api-key ": "key1planted",
    "Authorization: Bearer ": "bearer1planted",
    "github": "ghp_planted0123456789012",
    "slack": "xoxb-planted-0123456",
}


def test_no_secret_reaches_the_database_or_a_file(jdna, bert, monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRETS[name])
    jdna("prune", bert, "--sparsity", 0.5)
    ledger = Ledger(jdna.home)
    own = SECRETS
    address = (
        f"postgresql://me:{own['userinfo']}@host/db?password={own['password=']}"
        f"&token={own['token=']}&X-Amz-Signature={own['X-Amz-Signature=']}"
    )
    said = [address, own["HF_TOKEN"], own["AWS_SECRET_ACCESS_KEY"], own["github"], own["slack"]]
    said += [f"{name}{own[name]}" for name in ("--api-key ", "Authorization: Bearer ")]
    for i, error in enumerate((RuntimeError, JdnaError)):
        run = ledger.start(NewRun(PRUNE, f"f{i}"), {}, None)
        with pytest.raises(error), ledger.running(run, fresh=True):
            raise error(" ".join(said))
    ledger.close()
    told = [
        jdna("prune", address, "--sparsity", 0.5, code=2),
        jdna("report", "--db", address.replace("postgresql", "nosuch"), code=2),
        jdna("db", "path", "--db", address),
        jdna("db", "path", "--db", address, "--json"),
        jdna("runs", "list"),
        jdna("runs", "show", 2),
        jdna("runs", "show", 3, "--json"),
    ]
    for secret in SECRETS.values():
        for one in told:
            assert secret not in one.out + one.err
        for file in jdna.home.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), (secret, file)
    assert redact(f"git https://u:{own['userinfo']}@h/x") == "git https://***@h/x"


@pytest.mark.parametrize(
    "text",
    [
        "the tokenizer gives token 'zebra', number 612, and the model has embeddings of 600 tokens",
        "--max-length: 512 tokens=128 signatures: bleu|nrefs:1",
        "jdna finetune ./MiniLM --task rte --teacher run:12",
    ],
)
def test_what_is_no_secret_is_said(text):
    assert redact(text) == text


def test_a_full_disk_fails_the_run_and_keeps_the_rest(on_file):
    on_file.finish(on_file.start(NewRun(PRUNE, "f"), {}, None), Outcome())
    run = on_file.start(NewRun(PRUNE, "g"), {}, None)
    engine = on_file.engine

    @sa.event.listens_for(engine, "connect")
    def _small(connection, _):
        connection.execute("PRAGMA max_page_count = 40")

    engine.dispose()
    many = tuple(Measurement("s", "x" * 100, 1.0, i) for i in range(5000))
    with pytest.raises(sa.exc.OperationalError, match="full"):
        on_file.finish(run, Outcome(many))
    sa.event.remove(engine, "connect", _small)
    engine.dispose()
    assert ask(on_file, "SELECT COUNT(*) FROM metric") == [(0,)]
    on_file.finish(run, Outcome(many))
    assert ask(on_file, "SELECT COUNT(*) FROM metric") == [(5000,)]


def test_a_run_that_others_were_made_from_stays(jdna, bert):
    jdna("prune", bert, "--sparsity", 0.5)
    jdna("prune", "run:1", "--sparsity", 0.7)
    assert "runs 2 were made from" in jdna("runs", "rm", 1, code=2).err
    jdna("runs", "rm", 2)
    assert not (jdna.home / "2").exists()
    jdna("runs", "rm", 1)
    assert jdna("runs", "list", "--json").json == {"runs": []}
    assert jdna("prune", bert, "--sparsity", 0.5, "--json").json["run"]["id"] == 3
    assert os.listdir(jdna.home / "3")


def test_text_that_is_no_utf_8_is_read_as_far_as_it_goes(tmp_path):
    import sqlite3

    from jdna_cli.store import reading

    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE one (name TEXT, number INT)")
        connection.execute("INSERT INTO one VALUES (CAST(x'61ff62' AS TEXT), 1), ('plain', 2)")
    connection.close()
    found = reading.query(f"sqlite:///{tmp_path / 'a.db'}", "SELECT name, number FROM one")
    assert found.rows == [("a\ufffdb", 1), ("plain", 2)]
