"""Never silent at a terminal; Ctrl-C while nothing has been trained yet stops at once."""

import contextlib
import os
import pty
import re
import signal
import sys
import threading
import time

import pytest

from jdna_cli import Workspace, console
from jdna_cli.errors import InterruptedRunError, RequestError
from jdna_cli.observer import Silent
from jdna_cli.signals import StopSignals
from tests.conftest import run_jdna


class Terminal:
    """Standard error at a terminal."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_what_takes_long_is_named_once_and_what_is_short_is_not(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(console, "PATIENCE", 0.05)
    waiting = console.Waiting()
    for text in ("one", "two", "three"):
        waiting.now(text)
    deadline = time.monotonic() + 20
    while "three" not in shown.text and time.monotonic() < deadline:
        time.sleep(0.01)
    waiting.now("")
    time.sleep(0.2)
    assert shown.text == "three …\n"
    waiting.now("four")
    while "four" not in shown.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shown.text == "three …\nfour …\n"


def refused_commands(bert, tmp_path):
    """Each ends in one line, at another place: the database, the model, the request."""
    home, nowhere = tmp_path / "home", f"sqlite:///{tmp_path}/none/jdna.db"
    ask = ("--sparsity", 0.5)
    yield run_jdna, ("prune", bert, *ask, "--home", home, "--db", nowhere)
    yield run_jdna, ("prune", tmp_path / "no-model", *ask, "--home", home)
    yield run_jdna, ("prune", bert, "--sparsity", 1.5, "--home", home)

    def by_notebook(model):
        with Workspace(home, progress="bar") as workspace:
            workspace.prune(model, sparsity=0.5)

    yield by_notebook, (tmp_path / "no-model",)


def test_a_refused_command_names_nothing_afterwards(bert, tmp_path, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(console, "PATIENCE", 1.0)
    monkeypatch.setattr(console, "PATIENCE_OF_LOGS", 1.0)
    for call, args in refused_commands(bert, tmp_path):
        with contextlib.suppress(RequestError):
            call(*args)
    monkeypatch.setattr(sys, "stderr", shown)
    time.sleep(1.5)
    assert shown.text == ""


def at_a_terminal(code, *args):
    """What a command shows at a terminal, piece by piece with its time; and its exit code."""
    child, line = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", code, *map(str, args)])
    began, shown = time.monotonic(), []
    while True:
        try:
            piece = os.read(line, 65536)
        except OSError:
            break
        if not piece:
            break
        shown.append((time.monotonic() - began, piece.decode(errors="replace")))
    _, status = os.waitpid(child, 0)
    return shown, os.waitstatus_to_exitcode(status)


# Every phase lasts longer than patience does, whatever the machine.
SLOW = """
import sys, time
from jdna_cli import console
from jdna_cli.run_context import RunContext
console.PATIENCE = 0.2
before = RunContext.phase
def slow(self, what):
    before(self, what)
    time.sleep(0.6)
RunContext.phase = slow
from jdna_cli.cli.app import app
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_phases_of_a_run_are_named(bert, tmp_path):
    args = ("--task", "living", "--home", tmp_path / "home")
    recipe = ("--max-train-samples", 16, "--epochs", 1)
    shown, code = at_a_terminal(SLOW, "finetune", bert, *args, *recipe)
    assert code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(piece for _, piece in shown))
    found = [text.index(f"· {name} …") for name in
             ("reading the data", "tokenizing", "loading the model", "writing")]  # fmt: skip
    assert found == sorted(found)
    assert "run 1 · finetune · train" in text


def test_ctrl_c_while_a_model_is_loaded_stops_at_once(jdna, bert, monkeypatch):
    from jdna_cli.scoring.classification import Head

    def interrupted(self, *args, **rest):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
        raise AssertionError("it went on")

    args = ("finetune", bert, "--task", "living", "--max-train-samples", 16, "--epochs", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Head, "load", interrupted)
        found = run_jdna(*args)
    assert found.code == 130
    assert "interrupted before the first step: the same command begins again" in found.err
    assert jdna("runs", "show", 1, "--json").json["run"]["status"] == "interrupted"
    assert jdna(*args, "--json").json["run"]["status"] == "finished"


def test_the_first_signal_of_a_training_asks_and_the_second_stops():
    said = []

    class Heard(Silent):
        def say(self, text):
            said.append(text)

    with StopSignals(Heard(), graceful=True) as stopper:
        assert stopper.asked() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.asked() == signal.SIGTERM
        assert len(said) == 1
        with pytest.raises(InterruptedRunError):
            os.kill(os.getpid(), signal.SIGINT)
    assert threading.main_thread().is_alive()
