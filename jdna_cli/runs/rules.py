"""Under which rule something is measured, where a mended mistake changes what a request gives.

Runs that were measured otherwise stay as they are and are never answered from, nor compared with
new ones: the rule is part of the fingerprint and of the recipe. 2: log-likelihoods of tokens are
summed along contiguous memory (before, they were up to 1e-3 nats too high), text that spells a
special token is text, and a line break before an answer does not end it. 3: options that follow a
line break take it as the harness does, a task's prompts begin with its header, its shots being of
the question's own group, and what is said in a conversation spells none of its marks. What such a
mistake did not touch has rule 1 still.
"""

from __future__ import annotations

from pathlib import Path

from jdna_cli.tasks.task import Task

LATEST = 2
PUT_ANEW = 3
_WRITTEN = ("arithmetic", "question-answering", "translation", "language-modelling")


def of(task: Task, folder: Path, *, chat: bool = False) -> int:
    """The rule under which `task` is measured on the model in `folder`."""
    if task.kind in _WRITTEN:
        return PUT_ANEW if chat else LATEST
    if task.kind == "multiple-choice":
        # An encoder chooses by a head, others by likelihood.
        from jdna_cli.models import model_files
        from jdna_cli.scoring import forms

        encodes = forms.form_of(model_files.config_of(folder)) == forms.ENCODER
        ends = [text[-1:] for text in (task.prompt, task.instruction) if text]
        anew = chat or task.header or any(end.isspace() and end != " " for end in ends)
        return 1 if encodes else PUT_ANEW if anew else LATEST
    return 1


def named(rule: int) -> dict[str, str]:
    """The rule as part of a name; the first one has always gone without saying."""
    return {} if rule == 1 else {"rule": str(rule)}
