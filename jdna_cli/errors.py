"""What can go wrong in the user's terms; every other exception is a bug and keeps its traceback."""

from __future__ import annotations

import os
import re

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^/@\s'\"]+@")
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|AUTH|SIGNATURE"
)
# In a URL, `?password=…`; on a command line, `--token …` or `token=…`; in a header, `Bearer …`.
_VALUE = re.compile(
    r"(?P<name>[\w.-]*(?:token|secret|password|passwd|passphrase|credential|api[_-]?key|access[_-]?key|"
    r"signature|sig|bearer)(?:\s*[=:]\s*|\s+))(?P<value>(?!\*\*\*|\d+\b)[^\s&;,'\"]{6,})",
    re.IGNORECASE,
)
# What known services give out: Hugging Face, GitHub, AWS, OpenAI and its like, Slack, Google, W&B.
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|A(?:KIA|SIA)[A-Z0-9]{12,}|"
    r"sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}|"
    r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"
)


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
    """Return `text` without anything secret, as far as that can be told.

    Gone are user information in URLs, values that a name says are secret, tokens of known shapes,
    and the values of environment variables with such names.
    """
    text = _USERINFO.sub(r"\g<scheme>***@", text)
    text = _SHAPES.sub("***", text)
    text = _VALUE.sub(_hidden, text)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text


def _hidden(found: re.Match[str]) -> str:
    """A value's name alone, where the value follows it: after = or :, an option, or a header."""
    name = found["name"]
    told = name.rstrip()[-1] in "=:" or name.startswith("-") or "bearer" in name.lower()
    return f"{name}***" if told else found[0]
