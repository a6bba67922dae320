"""What can go wrong in the user's terms; every other exception is a bug and keeps its traceback."""

from __future__ import annotations

import os
import re

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^/@\s'\"]+@")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY")


class JdnaError(Exception):
    """The run failed for a reason that one line can tell. The process exits with `exit_code`."""

    exit_code = 1


class RequestError(JdnaError):
    """The request was wrong: says what, where, and what would be right."""

    exit_code = 2


class NotFiniteError(JdnaError):
    """Training diverged: a loss or a weight is not a finite number."""

    def __init__(self, what: str, step: int) -> None:
        self.step = step
        super().__init__(f"{what} is not finite at step {step}; nothing after it was recorded")


class InterruptedRunError(JdnaError):
    """A signal asked the run to stop; `--resume` takes it up again."""

    def __init__(self, message: str, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(message)


def redact(text: str) -> str:
    """Return `text` without user information in URLs and without values of secret variables."""
    text = _USERINFO.sub(r"\g<scheme>***@", text)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text
