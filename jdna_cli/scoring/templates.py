"""Chat templates, which come with a tokenizer and are somebody's program: run within bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from jdna_cli.errors import RequestError

SECONDS = 10.0
CHARACTERS = 4_000_000


def bounded(render: Callable[[], Any]) -> str:
    """The text that a template makes; transformers renders it in jinja2's sandbox.

    Raises:
        RequestError: it fails, takes too long, or makes too much.
    """
    made: list[str] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            made.append(str(render()))
        except Exception as error:
            failed.append(error)

    # A thread of its own, which is left alone where it does not end.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise RequestError(f"--chat: the tokenizer's template takes longer than {SECONDS:.0f} s")
    if failed:
        what = " ".join(str(failed[0]).split())[:200]
        raise RequestError(f"--chat: the tokenizer's template fails: {what}") from failed[0]
    if len(made[0]) > CHARACTERS:
        raise RequestError(
            f"--chat: the tokenizer's template makes more than {CHARACTERS:,} characters"
        )
    return made[0]
