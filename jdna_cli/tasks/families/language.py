"""Running text: how well its next tokens are predicted."""

from __future__ import annotations

from jdna_cli.tasks.task import HubSource, Task


def _wikitext(name: str, description: str, config: str, splits: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        description=description,
        kind="language-modelling",
        texts=("text",),
        metrics=("perplexity",),
        source=HubSource("Salesforce/wikitext", config),
        splits=splits,
        evaluation_splits=("validation",) if "validation" in splits else ("test",),
    )


TASKS = (
    _wikitext(
        "wikitext2",
        "articles, rare words replaced",
        "wikitext-2-v1",
        ("train", "validation", "test"),
    ),
    _wikitext("wikitext2_raw", "articles, as they were written", "wikitext-2-raw-v1", ("test",)),
)
