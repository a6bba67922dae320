"""A search from its question to its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jdna_cli.advising.knowledge import Knowledge, columns
from jdna_cli.advising.question import Question
from jdna_cli.advising.search import Search
from jdna_cli.errors import JdnaError
from jdna_cli.observer import Silent
from jdna_cli.reports import predictions
from jdna_cli.reports.catalogue import advise as report
from jdna_cli.reports.query import Filters, Row, Source, source_of
from jdna_cli.runs.model_lookup import locate
from jdna_cli.runs.recording import OpenWorkspace
from jdna_cli.tasks import lookup


@dataclass(frozen=True)
class Advice:
    """What a search found.

    Attributes:
        row: as `jdna report advise` has it; None where nothing was pruned.
        runs: what it rests on: trainings or evaluations, dense ones too.
        begun: how many of those this search has run.
        grid: how many a grid of nine sparsities and all seeds would have taken.
        stopped_because: why no more were run.
        failed: cells that failed, and why.
        examples: how many the scores are of; None where the answers were not saved.
    """

    row: Row | None
    runs: tuple[int, ...]
    begun: int
    grid: int
    stopped_because: str
    failed: tuple[tuple[str, str], ...]
    examples: int | None

    @property
    def critical(self) -> dict[str, float | None]:
        """The critical sparsity and its 95 % interval."""
        row = self.row or {}
        names = {"sparsity": "critical_sparsity", "low": "ci_low", "high": "ci_high"}
        told = row and not row["at_chance"]
        return {name: row[column] if told else None for name, column in names.items()}


def begin(
    workspace: OpenWorkspace, asked: Question, url: str, *, side: int, retries: int = 1
) -> Search:
    """A search with its dense runs in the queue.

    Raises:
        RequestError: the request is wrong.
    """
    model = locate(workspace, str(asked.template.fixed["model"])).columns["model"]
    task = lookup.get(str(asked.template.fixed["task"])).name
    # What there is to say of the model has been said.
    quiet = replace(workspace, observer=Silent())

    def source() -> Source:
        filters = Filters(models=(model,), tasks=(task,))
        return source_of(url, workspace.ledger.home, filters, asked.tolerance)

    known = Knowledge(asked, source, columns(asked, quiet))
    search = Search({}, {}, workspace.ledger, "none", retries, asked=asked, workspace=quiet,
                    knowledge=known, side=side)  # fmt: skip
    search.begin_search()
    return search


def answer(search: Search, run: Callable[[Search], None]) -> Advice:
    """Run a search to its end.

    Args:
        search: that was begun.
        run: lets an engine run all that it asks for.

    Raises:
        JdnaError: the dense runs failed, or every pruned one.
        InterruptedRunError: it was asked to stop; what was run is recorded.
    """
    if not search.over:
        run(search)
    search.look()
    failed = tuple((search.cells[key].title, error) for key, error in search.failed.items())
    row, examples = None, None
    known = search.knowledge
    if known.known is not None and known.way is not None:
        answers = predictions.of(known.source())
        row = report.row_of(known.way, known.known, answers, search.asked.tolerance)
        first = known.levels[0]
        found = answers.of(first["_seeds"][0].run, first["split"], first["metric"])
        examples = len(found) if found else None
    elif failed:
        raise JdnaError(f"no pruned run came to its end: {failed[0][1]}")
    grid = (1 + len(search.asked.levels if search.asked.patterned else range(9))) * len(
        search.asked.seeds
    )
    assert search.stopped_because is not None
    return Advice(row, _runs(search), search.begun, grid, search.stopped_because, failed, examples)


def _runs(search: Search) -> tuple[int, ...]:
    """Numbers of the runs that the answer rests on."""
    known = search.knowledge
    rows: list[Any] = [*known.levels, *([known.dense] if known.dense else [])]
    numbers = {one.run for row in rows for one in row["_seeds"]}
    return tuple(sorted(numbers))
