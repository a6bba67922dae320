"""Forms of models (encoder, decoder, both), and the scorer that fits a form to a kind of task.

A head on top (`classification`, `multiple_choice`), the likelihood of given options (`likelihood`),
written answers (`generation`), or running text (`perplexity`): one file each.
"""

from __future__ import annotations

import importlib
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.scoring.scorer import Scorer
from jdna_cli.tasks.task import Task

ENCODER, DECODER, ENCODER_DECODER = "encoder", "decoder", "encoder-decoder"

# By kind of task and form of model: the scorer's module.
_TABLE = {
    ("classification", ENCODER): "classification",
    ("classification", DECODER): "classification",
    ("classification", ENCODER_DECODER): "classification",
    ("regression", ENCODER): "classification",
    ("regression", DECODER): "classification",
    ("regression", ENCODER_DECODER): "classification",
    ("multiple-choice", ENCODER): "multiple_choice",
    ("multiple-choice", DECODER): "likelihood",
    ("multiple-choice", ENCODER_DECODER): "likelihood",
    ("arithmetic", ENCODER): "generation",
    ("arithmetic", DECODER): "generation",
    ("arithmetic", ENCODER_DECODER): "generation",
    ("question-answering", DECODER): "generation",
    ("question-answering", ENCODER_DECODER): "generation",
    ("translation", DECODER): "generation",
    ("translation", ENCODER_DECODER): "generation",
    ("language-modelling", DECODER): "perplexity",
}


def form_of(config: Any) -> str:
    """Whether an architecture encodes, decodes, or both: from what transformers makes of it.

    An encoder is what is pre-trained to fill gaps; transformers lets many of those decode as well,
    which their weights were not trained for.
    """
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        return ENCODER_DECODER
    kind = config.model_type
    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    gaps = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    )
    return DECODER if causal and not gaps else ENCODER


def is_decoder(config: Any) -> bool:
    """Whether an architecture is a decoder alone."""
    return form_of(config) == DECODER


def choose(task: Task, config: Any, *, new_head: bool = True) -> type[Scorer]:
    """The scorer for a task on an architecture, which may or may not be given a new head.

    Raises:
        RequestError: no model of this form can do such a task.
    """
    form = form_of(config)
    name = _TABLE.get((task.kind, form))
    if name is None:
        fitting = " or ".join(_with_article(f) for kind, f in _TABLE if kind == task.kind)
        raise RequestError(
            f"task {task.name!r} ({task.kind}) needs {fitting}, "
            f"and {config.model_type} is {_with_article(form)}"
        )
    scorer: type[Scorer] = importlib.import_module(f"jdna_cli.scoring.{name}").SCORER
    scorer.check(task, config, new_head)
    return scorer


def _with_article(form: str) -> str:
    return f"{'an' if form.startswith('e') else 'a'} {form}"
