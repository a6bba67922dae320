"""Translation, in one direction or in a mixture of several.

`pairs` lists the directions, so that the first 2, 5 and 10 of them are the mixtures of those sizes.
Scores are corpus BLEU and chrF by sacrebleu, of a mixture their mean over its directions.
"""

from __future__ import annotations

from typing import Any

from jdna_cli.tasks.task import HubSource, Task


def _translation(name: str, description: str, pairs: str, **rest: Any) -> Task:
    return Task(
        name=name,
        description=description,
        kind="translation",
        texts=("translation",),
        pairs=tuple(pairs.split()),
        prompt="{source_language}: {source}\n{target_language}:",
        instruction="translate {source_language} to {target_language}: {source}",
        answer_tokens=128,
        metrics=("bleu", "chrf"),
        chance=0.0,
        **rest,
    )


_ALMA = "haoranxu/ALMA-Human-Parallel"

TASKS = (
    _translation(
        "multi30k",
        "captions of images, the same in English, German, French and Czech",
        "en-de de-en en-fr fr-en en-cs cs-en de-fr fr-de de-cs cs-de fr-cs cs-fr",
        majority=("de", "fr"),
        minority=("cs",),
        sizes={"train": 29000, "validation": 1014, "test": 1000},
    ),
    _translation(
        "wmt_en_cs",
        "news, English and Czech",
        "en-cs cs-en",
        majority=("cs",),
        source=HubSource(_ALMA, "cs-en"),
        sizes={"train": 12076, "validation": 1002},
    ),
    _translation(
        "wmt_en_is",
        "news, English and Icelandic",
        "en-is is-en",
        minority=("is",),
        source=HubSource(_ALMA, "is-en"),
        sizes={"train": 2009},
    ),
)
