"""What the ledger knows: runs, what they measured, where their files are, what their models are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import Engine
from sqlmodel import Session, col, select

from jdna_cli import results
from jdna_cli.errors import JdnaError, RequestError
from jdna_cli.results import Outcome
from jdna_cli.specs import ModelSource
from jdna_cli.store.identity import REMEMBERED, Identities, has_weights, is_content
from jdna_cli.store.tables import Dynamics, File, Layer, Metric, Point, Run, Sensitivity, Status

MOST_RUNS = 2**31 - 1  # what a number of a run can be


class ModelGoneError(RequestError):
    """A finished run's model was taken away; the same request makes it again."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"run:{number}: its model was not kept; make it again with --force")


class RunReader:
    """Finds runs in an open database, and their files in a home folder."""

    def __init__(self, home: Path, engine: Engine) -> None:
        """Read from `engine`; runs' folders are in `home`."""
        self.home, self.engine = home, engine
        self._identities = Identities(engine)

    def get(self, number: int) -> Run:
        """The run of this number.

        Raises:
            RequestError: there is none.
        """
        run = None
        if number <= MOST_RUNS:
            with Session(self.engine) as session:
                try:
                    run = session.get(Run, number)
                except ValueError as error:
                    raise JdnaError(f"run {number} is damaged in the database: {error}") from None
        if run is None:
            raise RequestError(f"there is no run {number}: `jdna runs list` shows those there are")
        return run

    def finished(
        self, fingerprint: str, fits: Callable[[Run], bool] = lambda run: True
    ) -> Run | None:
        """The latest finished run of this fingerprint that fits, and has its files still."""
        for run in self._twins(fingerprint, Status.finished):
            if self.folder(run).is_dir() and fits(run):
                return run
        return None

    def resumable(self, fingerprint: str) -> Run | None:
        """The latest run of this fingerprint that was cut off or failed."""
        return next(iter(self._twins(fingerprint, Status.interrupted, Status.failed)), None)

    def _twins(self, fingerprint: str, *statuses: Status) -> list[Run]:
        wanted = [status.value for status in statuses]
        query = (
            select(Run)
            .where(Run.fingerprint == fingerprint, col(Run.status).in_(wanted))
            .order_by(col(Run.id).desc())
        )
        with Session(self.engine) as session:
            return list(session.exec(query))

    def outcome(self, number: int) -> Outcome:
        """What a finished run measured, as it was recorded."""
        with Session(self.engine) as session:
            run = session.get_one(Run, number)
            metrics = session.exec(
                select(Metric).where(Metric.run == number).order_by(col(Metric.id))
            )
            layers = session.exec(
                select(Layer).where(Layer.run == number).order_by(col(Layer.tensor))
            )
            points = session.exec(
                select(Point).where(Point.run == number).order_by(col(Point.alpha))
            )
            moved = session.exec(
                select(Dynamics)
                .where(Dynamics.run == number)
                .order_by(col(Dynamics.step), col(Dynamics.tensor))
            )
            scanned = session.exec(
                select(Sensitivity)
                .where(Sensitivity.run == number)
                .order_by(
                    col(Sensitivity.block), col(Sensitivity.matrix), col(Sensitivity.sparsity)
                )
            )
            return Outcome(
                measurements=tuple(
                    results.Measurement(m.split, m.name, m.value, m.step) for m in metrics
                ),
                layers=tuple(
                    results.LayerSparsity(x.tensor, tuple(x.shape), x.kept, x.total) for x in layers
                ),
                points=tuple(results.Point(p.alpha, p.loss, p.score) for p in points),
                movements=tuple(
                    results.Movement(**row.model_dump(exclude={"run"})) for row in moved
                ),
                sensitivities=tuple(
                    results.Sensitivity(
                        **{**row.model_dump(exclude={"run"}), "tensors": tuple(row.tensors)}
                    )
                    for row in scanned
                ),
                bits=run.bits,
                bits_per_weight=run.bits_per_weight,
                device=run.device or "",
                dtype=run.dtype,
                protocol=run.protocol,
                remark=run.remark,
            )

    def seconds(self) -> dict[tuple[str, str | None, str | None], float]:
        """How long finished runs took on average, by kind, model, and task."""
        query = select(Run).where(Run.status == Status.finished.value)
        found: dict[tuple[str, str | None, str | None], list[float]] = {}
        with Session(self.engine) as session:
            for run in session.exec(query):
                if run.finished_at is not None:
                    spent = (run.finished_at - run.started_at).total_seconds()
                    found.setdefault((run.kind, run.model, run.task), []).append(spent)
        return {key: sum(own) / len(own) for key, own in found.items()}

    def folder(self, run: Run) -> Path:
        """The folder of a run's files."""
        return self.home / (run.artifact or str(run.id))

    def is_own(self, folder: Path) -> bool:
        """Whether a run's folder is the home's, and not one that a user named."""
        return folder.parent.resolve() == self.home.resolve()

    def work(self, run: Run) -> Path:
        """The folder of a run's checkpoints while it is not finished."""
        return self.home / f".work-{run.id}"

    def model_of(self, number: int, *, look: bool = False) -> tuple[ModelSource, Run]:
        """The model that run `number` wrote; to `look` something up, what it was is enough.

        Raises:
            RequestError: it wrote none, has not finished, or its files are gone.
        """
        run = self.get(number)
        if run.kind not in ("prune", "finetune"):
            raise RequestError(f"run:{number} is an {run.kind} run, it wrote no model")
        if run.status != Status.finished.value:
            raise RequestError(f"run:{number} is {run.status}, only a finished run has a model")
        folder = self.folder(run)
        if not (folder / "config.json").is_file():
            raise RequestError(f"run:{number}: its files are gone from {folder}")
        if not has_weights(folder) and not (look and (folder / REMEMBERED).is_file()):
            raise ModelGoneError(number)
        self._refuse_changed(number, folder)
        mask = folder / "mask.safetensors"
        identity = self.identity(folder)
        return ModelSource(f"run:{number}", folder, identity, mask if mask.is_file() else None), run

    def digests(self, folder: Path) -> list[tuple[str, int, str]]:
        """Name, bytes, and hash of every file of a run's folder, but for the marks in it."""
        if not folder.is_dir():
            return []
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_mark(path))
        names = [file.relative_to(folder).as_posix() for file in files]
        sizes = [file.stat().st_size for file in files]
        return list(zip(names, sizes, self._identities.sums(files), strict=True))

    def _refuse_changed(self, number: int, folder: Path) -> None:
        """Refuse a model whose files are not what the run wrote.

        Raises:
            RequestError: names the first.
        """
        with Session(self.engine) as session:
            written = session.exec(select(File).where(File.run == number)).all()
        used = [
            file for file in written if is_content(file.name) and (folder / file.name).is_file()
        ]
        sums = self._identities.sums([folder / file.name for file in used])
        for file, sum_ in zip(used, sums, strict=True):
            if sum_ != file.sha256:
                raise RequestError(
                    f"run:{number}: {folder / file.name} is not what the run wrote (sha256 "
                    f"{sum_[:12]}…, was {file.sha256[:12]}…): restore it, or make it again with "
                    "--force"
                )

    def knew_model(self, number: int) -> bool:
        """Whether the model of a finished run is there, or what it was is remembered."""
        folder = self.folder(self.get(number))
        there = has_weights(folder) or (folder / REMEMBERED).is_file()
        return there or not (folder / "config.json").is_file()

    def writer_of(self, folder: Path) -> int | None:
        """The finished run whose model stands in `folder`, if one does."""
        place = folder.resolve()
        query = (
            select(Run)
            .where(Run.status == Status.finished.value, col(Run.kind).in_(("prune", "finetune")))
            .where(col(Run.artifact).in_((str(place), place.name)))
            .order_by(col(Run.id).desc())
        )
        with Session(self.engine) as session:
            found = (run.id for run in session.exec(query) if self.folder(run).resolve() == place)
            return next(found, None)

    def name_of(self, identity: str, otherwise: str) -> str:
        """The name under which these weights were first seen, so that one model has one name."""
        query = select(Run.model).where(Run.model_identity == identity, col(Run.model).is_not(None))
        with Session(self.engine) as session:
            return session.exec(query.order_by(col(Run.id)).limit(1)).first() or otherwise

    def identity(self, folder: Path) -> str:
        """Hash of a model folder's content: weights, configuration, tokenizer."""
        return self._identities.of(folder)


def _is_mark(path: Path) -> bool:
    """Whether a file is what sweeps note of a folder."""
    return path.name.startswith(".")
