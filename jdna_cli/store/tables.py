"""The tables. The `doc` of each column is its documentation (`docs/database.md`).

Values are validated in the specs; the constraints here are the second line of defence.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Status(StrEnum):
    """What became of a run."""

    running = "running"
    finished = "finished"
    failed = "failed"
    interrupted = "interrupted"


def _text(doc: str, *, null: bool = True, index: bool = False) -> Any:
    return Field(sa_column=sa.Column(sa.Text, nullable=null, index=index, doc=doc))


def _number(doc: str, *, null: bool = True) -> Any:
    return Field(sa_column=sa.Column(sa.Double, nullable=null, doc=doc))


def _integer(doc: str, *, null: bool = True, index: bool = False) -> Any:
    return Field(sa_column=sa.Column(sa.BigInteger, nullable=null, index=index, doc=doc))


def _moment(doc: str, *, null: bool = True) -> Any:
    kind = sa.DateTime(timezone=True)
    return Field(sa_column=sa.Column(kind, nullable=null, doc=doc))


def _json(doc: str, *, null: bool = False) -> Any:
    # Nothing is NULL, and not JSON's own null.
    return Field(sa_column=sa.Column(sa.JSON(none_as_null=null), nullable=null, doc=doc))


def _of_run(doc: str, *, null: bool = False, cascade: bool = True, key: bool = False) -> Any:
    target = sa.ForeignKey("run.id", ondelete="CASCADE" if cascade else None)
    return Field(
        sa_column=sa.Column(
            sa.Integer, target, nullable=null, index=not key, primary_key=key, doc=doc
        )
    )


class Run(SQLModel, table=True):
    """One execution of one command."""

    __tablename__ = "run"
    __table_args__ = (
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'failed', 'interrupted')", name="status"
        ),
        sa.CheckConstraint("sparsity >= 0 AND sparsity < 1", name="sparsity"),
        sa.Index("ix_run_recipe_seed", "recipe", "seed"),
        # One process at a time runs a request.
        sa.Index(
            "uq_run_running",
            "fingerprint",
            unique=True,
            sqlite_where=sa.text("status = 'running'"),
            postgresql_where=sa.text("status = 'running'"),
        ),
        {
            "info": {"description": "One row per execution of one command."},
            "sqlite_autoincrement": True,
        },
    )

    id: int | None = Field(
        default=None,
        sa_column=sa.Column(sa.Integer, primary_key=True, doc="number of the run, as in run:ID"),
    )
    kind: str = _text("prune, finetune, eval, interpolate, or scan", null=False)
    status: str = _text("running, finished, failed, or interrupted", null=False, index=True)
    spec: dict[str, Any] = _json("what was asked, every field of the command's spec")
    fingerprint: str = _text(
        "name of the result: request, weights, and data", null=False, index=True
    )
    recipe: str | None = _text("fingerprint of the cell without its pruning and its seed")
    parent: int | None = _of_run("the run whose model this one used", null=True, cascade=False)
    other: int | None = _of_run("interpolate: the run at the other end", null=True, cascade=False)
    model: str | None = _text("the pre-trained model at the root of all parents", index=True)
    model_identity: str | None = _text("hash of the content of that model")
    data_identity: str | None = _text("hash or revision of the task's examples that were used")
    task: str | None = _text("name of the task", index=True)
    metric: str | None = _text("the task's main metric")
    human: float | None = _number("a person's score on the main metric, as a fraction")
    chance: float | None = _number("what guessing scores on the main metric, as a fraction")
    regime: str | None = _text("transfer regime")
    criterion: str | None = _text("what chose the weights; empty where nothing was pruned")
    pattern: str | None = _text("unstructured or N:M (N of M kept); empty where nothing was pruned")
    scope: str | None = _text("where scores competed: global, layer, or row; empty for N:M")
    allocation: str | None = _text(
        "how much each tensor lost, where it is not all alike nor by competing: erk, owl, or a file"
    )
    prunable: str | None = _text(
        "which weights could be pruned, besides the default, and in brackets what was taken away "
        "before"
    )
    sparsity: float | None = _number("sparsity asked for, 1 - N/M for N:M, 0 where dense")
    sparsity_reached: float | None = _number("zeros among prunable weights at the end, counted")
    bits: int | None = _integer("bits per weight")
    bits_per_weight: float | None = _number(
        "bits of the prunable weights in their compact form (bit mask and kept values, or codes "
        "and scales), per weight"
    )
    quantization: str | None = _text("how weights were rounded; empty where they were not")
    calibration: str | None = _text("what the choice of weights was calibrated on")
    pruning_seed: int | None = _integer("seed of what the choice of weights draws")
    schedule: str | None = _text(
        "when it was pruned, if not once before it was trained: iterative, or after training"
    )
    teacher: str | None = _text("whose outputs it was distilled from, with weight and temperature")
    adapter: str | None = _text(
        "what trained in place of the weights: lora, with its rank; empty where they did themselves"
    )
    dtype: str | None = _text("type of the weights in memory when it was measured")
    data_fraction: float | None = _number("fraction of the training set used")
    options: int | None = _integer("options of a question, where some were taken away")
    shots: int | None = _integer("examples shown before each question; empty where none can be")
    book: str | None = _text("open: answered with the text at hand; closed: without")
    context_words: int | None = _integer("words that each context was cut or filled up to")
    pairs: str | None = _text("directions of translation, as in en-de,en-fr")
    mixture: int | None = _integer("number of directions of translation")
    sample: int | None = _integer(
        "examples, or windows of a text, that were drawn to be measured; empty where all were"
    )
    seed: int | None = _integer("seed of head, order of examples, dropout, and subset")
    started_at: dt.datetime = _moment("when it started (UTC)", null=False)
    finished_at: dt.datetime | None = _moment("when it ended, however it ended (UTC)")
    owner: str | None = _text("token of the process that runs it, or ran it last")
    host: str | None = _text("machine of that process")
    pid: int | None = _integer("number of that process there")
    device: str | None = _text("what computed")
    versions: dict[str, Any] = _json("versions of jdna, Python, and the libraries that compute")
    git_commit: str | None = _text("commit of jdna's own source tree, if it ran from one")
    verified_at: dt.datetime | None = _moment(
        "when all its files were last read and found to be what it wrote (UTC)"
    )
    artifact: str | None = _text("folder of its files; relative to the home folder if inside it")
    protocol: str | None = _text(
        "how it was measured: signatures of BLEU and chrF, windows of a text, rule of a choice"
    )
    rule: int | None = _integer(
        "under which rule it was measured: 2 where log-likelihoods or written answers are taken as "
        "since version 0.2, 3 where prompts are put as since then, else 1; runs of different rules "
        "are never compared"
    )
    examples: dict[str, Any] | None = _json(
        "of each split, how many examples were read, and how many used", null=True
    )
    remark: str | None = _text("what was done otherwise than asked")
    error: str | None = _text("why it failed or was interrupted, in one line")


class Owner(SQLModel, table=True):
    """One process that runs something, while it does."""

    __tablename__ = "owner"
    __table_args__ = (
        {"info": {"description": "One row per process that runs something; until when it lives."}},
    )

    token: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="random; run.owner"))
    host: str = _text("its machine", null=False)
    pid: int = _integer("its number there", null=False)
    boot: str = _text("the kernel that it runs on, since its last start", null=False)
    expires: float = _number(
        "until when it is thought to live, seconds since 1970 by the database's clock", null=False
    )


class Hold(SQLModel, table=True):
    """A model that a process still needs."""

    __tablename__ = "hold"
    __table_args__ = (
        {"info": {"description": "One row per model that a living process, as a sweep's, needs."}},
    )

    run: int = _of_run("the run that wrote the model", key=True)
    owner: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="token of the process"))


class File(SQLModel, table=True):
    """One file that a run wrote."""

    __tablename__ = "file"
    __table_args__ = (
        {"info": {"description": "One row per file of a finished run, as it was written."}},
    )

    run: int = _of_run("the run", key=True)
    name: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="in the run's folder"))
    size: int = _integer("its bytes", null=False)
    sha256: str = _text("hash of its content", null=False)


class About(SQLModel, table=True):
    """What the database is."""

    __tablename__ = "about"
    __table_args__ = ({"info": {"description": "What this database is: its identity."}},)

    name: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="identity"))
    value: str = _text("a random name, which its home folder has too", null=False)


class Metric(SQLModel, table=True):
    """One measured number of a run."""

    __tablename__ = "metric"
    __table_args__ = (
        sa.Index("ix_metric_run_name", "run", "name"),
        sa.Index(
            "uq_metric_once", "run", "split", "name", sa.text("coalesce(step, -1)"), unique=True
        ),
        {"info": {"description": "One row per number: results (no step) and training curves."}},
    )

    id: int | None = Field(
        default=None,
        sa_column=sa.Column(sa.Integer, primary_key=True, doc="number of the row"),
    )
    run: int = _of_run("the run")
    split: str = _text("split of the task it was measured on", null=False)
    name: str = _text("loss, accuracy, best_accuracy, examples_per_second, …", null=False)
    value: float = _number("the number; scores are fractions", null=False)
    step: int | None = _integer("optimiser step of a training curve; empty for a result")


class Layer(SQLModel, table=True):
    """One prunable tensor of a run's model."""

    __tablename__ = "layer"
    __table_args__ = (
        {"info": {"description": "One row per prunable tensor: how many weights are not zero."}},
    )

    run: int = _of_run("the run", key=True)
    tensor: str = Field(
        sa_column=sa.Column(sa.Text, primary_key=True, doc="name of the tensor in the file")
    )
    shape: list[int] = _json("its shape")
    kept: int = _integer("weights that are not zero", null=False)
    total: int = _integer("all its weights", null=False)


class Point(SQLModel, table=True):
    """One point of an interpolation."""

    __tablename__ = "point"
    __table_args__ = (
        {"info": {"description": "One row per point on the line between two models."}},
    )

    run: int = _of_run("the run", key=True)
    alpha: float = Field(
        sa_column=sa.Column(
            sa.Double, primary_key=True, doc="0 at the first model, 1 at the second"
        )
    )
    loss: float = _number("mean loss there", null=False)
    score: float = _number("the task's main metric there", null=False)


class Sensitivity(SQLModel, table=True):
    """What one kind of matrix of one block is worth to a task."""

    __tablename__ = "sensitivity"
    __table_args__ = (
        {"info": {"description": "One row per kind of matrix, block and sparsity of a scan: what "
                  "the task lost when that alone was pruned. The dense loss and score are the "
                  "run's own metrics."}},
    )  # fmt: skip

    run: int = _of_run("the run", key=True)
    block: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="name of the block"))
    matrix: str = Field(
        sa_column=sa.Column(sa.Text, primary_key=True, doc="what kind of matrix in there")
    )
    sparsity: float = Field(
        sa_column=sa.Column(sa.Double, primary_key=True, doc="what it was pruned to")
    )
    tensors: list[str] = _json("names of its tensors in the file")
    weights: int = _integer("how many weights they have together", null=False)
    loss: float = _number("loss of the task then", null=False)
    score: float = _number("the task's main metric then", null=False)


class Dynamics(SQLModel, table=True):
    """How far one tensor has moved, at one step of a fine-tuning."""

    __tablename__ = "dynamics"
    __table_args__ = (
        {"info": {"description": "One row per tensor and recorded step of a fine-tuning. Small are "
                  "the weights that pruning chose (or would have chosen), large the others; "
                  "distances are root mean squares in units of the tensor's own pre-trained root "
                  "mean square."}},
    )  # fmt: skip

    run: int = _of_run("the run", key=True)
    tensor: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="name of the tensor"))
    step: int = Field(
        sa_column=sa.Column(sa.BigInteger, primary_key=True, doc="optimiser steps done")
    )
    moved_small: float | None = _number("how far the small weights moved")
    moved_large: float | None = _number("how far the large weights moved")
    regrown: float | None = _number(
        "share of the weights that started at zero and are not; empty where none did"
    )
    regrown_size: float | None = _number("root mean square of those")
    flips: float = _number("share of all weights whose sign has changed", null=False)
    overlap: float = _number(
        "share of the small weights that are among as many smallest weights now", null=False
    )


class Weights(SQLModel, table=True):
    """Hashes of weight files, so that each is read only once."""

    __tablename__ = "weights"
    __table_args__ = (
        {"info": {"description": "Hashes of weight files, remembered by path, size, and time."}},
    )

    path: str = Field(sa_column=sa.Column(sa.Text, primary_key=True, doc="the file"))
    size: int = _integer("its bytes when it was hashed", null=False)
    modified_ns: int = _integer("its time of change when it was hashed, in nanoseconds", null=False)
    inode: int | None = _integer("its number in the file system when it was hashed")
    sha256: str = _text("hash of its content", null=False)
