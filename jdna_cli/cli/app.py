"""The `jdna` command: its subcommands, and the boundary at which errors become one line."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from jdna_cli import __version__
from jdna_cli.cli import examples, project_file
from jdna_cli.cli.commands import config, db, runs, tasks
from jdna_cli.cli.commands.advise import advise
from jdna_cli.cli.commands.demo import demo
from jdna_cli.cli.commands.doctor import doctor
from jdna_cli.cli.commands.evaluate import evaluate
from jdna_cli.cli.commands.export import export
from jdna_cli.cli.commands.finetune import finetune
from jdna_cli.cli.commands.interpolate import interpolate
from jdna_cli.cli.commands.prune import prune
from jdna_cli.cli.commands.report import report
from jdna_cli.cli.commands.scan import scan
from jdna_cli.cli.commands.sweep import sweep
from jdna_cli.compute import threads
from jdna_cli.console import say
from jdna_cli.errors import JdnaError, redact

LONGEST = 1000  # characters of an error


class Boundary(TyperGroup):
    """Every error that a user can mend is one line on standard error and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; exit as the contract says."""
        given = list(sys.argv[1:] if args is None else args)
        try:
            found = super().main(
                given, prog_name, complete_var, False, windows_expand_args, **extra
            )
        except JdnaError as error:
            self._end(given, redact(" ".join(str(error).split())), error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            self._end(given, "interrupted", 130)
        except BrokenPipeError:
            # Whoever read our output has gone; nothing more can be said there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except OSError as error:
            if not error.filename and _folder_is_gone():
                self._end(given, "the folder that this was started in is gone", 1)
            where = f"{error.filename}: " if error.filename else ""
            self._end(given, redact(f"{where}{error.strerror or error}"), 1)
        except Exception as error:
            if type(error).__module__.startswith("sqlalchemy."):
                cause = str(getattr(error, "orig", None) or error).splitlines()[0]
                self._end(given, redact(f"the database failed: {cause}"), 1)
            # Typer's own errors are of a class that it does not publish.
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                sys.exit(0)  # its help has been shown, and was what was asked for
            self._end(given, " ".join(str(message()).split()), 2)
        if standalone_mode:
            sys.exit(found if isinstance(found, int) else 0)
        return found

    @staticmethod
    def _end(args: list[str], message: str, code: int) -> NoReturn:
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]}…"
        if "--json" in args:
            print(json.dumps({"error": {"message": message, "exit_code": code}}))
        say(f"jdna: {message}")
        sys.exit(code)


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How much of a pre-trained model can be pruned before a task breaks, and do the hard "
    "tasks break first?",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"jdna {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    if (project := project_file.find(Path.cwd())) is not None:
        context.default_map = project.defaults(context.command)
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command("prune", epilog=examples.of("prune"))(prune)
app.command("finetune", epilog=examples.of("finetune"))(finetune)
app.command("eval", epilog=examples.of("eval"))(evaluate)
app.command("interpolate", epilog=examples.of("interpolate"))(interpolate)
app.command("report", epilog=examples.of("report"))(report)
app.command("advise", epilog=examples.of("advise"))(advise)
app.command("scan", epilog=examples.of("scan"))(scan)
app.command("export", epilog=examples.of("export"))(export)
app.command("sweep", epilog=examples.of("sweep"))(sweep)
app.command("demo", epilog=examples.of("demo"))(demo)
app.add_typer(runs.runs, name="runs")
app.add_typer(tasks.tasks, name="tasks")
app.add_typer(db.db, name="db")
app.add_typer(config.config, name="config")
app.command("doctor", epilog=examples.of("doctor"))(doctor)


def _open_what_is_closed() -> None:
    """Standard input, output and errors that whoever started us has closed lead to nowhere.

    Else the next file that is opened takes their number, and what libraries print goes into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115


def main() -> None:
    """Entry point of the `jdna` script."""
    _open_what_is_closed()
    threads.prepare()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has not our signs shows others in their place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
