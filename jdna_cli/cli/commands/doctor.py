"""`jdna doctor`: whether this machine has what jdna needs."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sqlite3
from pathlib import Path

import typer

from jdna_cli.cli import project_file
from jdna_cli.cli.opening import url_of
from jdna_cli.cli.options import common
from jdna_cli.console import print_json, say, tell
from jdna_cli.errors import JdnaError
from jdna_cli.files import existing
from jdna_cli.store import schema


def doctor(
    context: typer.Context,
    home: common.Home = common.DEFAULT_HOME,
    db: common.Db = None,
    as_json: common.Json = False,
) -> None:
    """Check this machine: libraries, devices, disk, database. Exit code 1 if something is wrong."""
    checks = [*_machine_checks(), _project(context), *_home_checks(home, db)]
    if as_json:
        names = ("name", "ok", "detail")
        print_json({"checks": [dict(zip(names, check, strict=True)) for check in checks]})
    else:
        for name, ok, detail in checks:
            tell(f"{'ok ' if ok else 'BAD'}  {name:14} {detail}", indent=" " * 20)
    if not all(ok for _, ok, _ in checks):
        say("jdna: something is wrong, see the lines marked BAD")
        raise typer.Exit(1)


def _project(context: typer.Context) -> tuple[str, bool, str]:
    """The project file, and where the home and the database were named."""
    words = {"COMMANDLINE": "by flag", "ENVIRONMENT": "by JDNA_{}", "DEFAULT_MAP": "by the file"}
    told = []
    for name in ("home", "db"):
        source = context.get_parameter_source(name)
        if source is not None and source.name in words:
            told.append(f"{name} {words[source.name].format(name.upper())}")
    project = project_file.find(Path.cwd())
    found = "none here or above" if project is None else project.words
    return "project file", True, "; ".join([found, *told])


def _machine_checks() -> list[tuple[str, bool, str]]:
    import torch

    from jdna_cli import __version__
    from jdna_cli.compute import devices
    from jdna_cli.compute.versions import versions

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    libraries = " ".join(f"{name} {version}" for name, version in versions().items())
    return [
        ("jdna", True, f"{__version__}, Python {platform.python_version()}"),
        ("libraries", True, libraries),
        ("device", True, ", ".join(names) if cuda else devices.name(torch.device("cpu"))),
        *_cpu_checks(torch.get_num_threads()),
        ("hub", True, "never asked (HF_HUB_OFFLINE)" if offline else "asked when needed"),
    ]


def _cpu_checks(count: int) -> list[tuple[str, bool, str]]:
    """Threads, and what they multiply at; a quota that gives fewer cores than threads is wrong."""
    from jdna_cli.compute import precision, threads

    cores = threads.cores()
    limit = "no quota" if cores.quota is None else f"quota {cores.quota:g}"
    what = f"{count} of {cores.visible} cores, {limit}, {threads.waiting()}"
    rates, chosen = precision.rates(count), precision.automatic()
    speeds = ", ".join(
        f"{name} {getattr(rates, name):.0f}" for name in ("float32", "bfloat16", "float16")
    )
    return [
        ("threads", count <= cores.usable, what),
        ("GFLOP/s", True, f"{speeds}; --mixed-precision auto: {chosen}"),
    ]


def _home_checks(home: Path, url: str | None) -> list[tuple[str, bool, str]]:
    from jdna_cli.store import reading

    above = existing(home)
    free = shutil.disk_usage(above).free / 1e9
    writable = above.is_dir() and os.access(above, os.W_OK)
    found = [
        ("home", writable, f"{home}, {'writable' if writable else 'not writable'}"),
        ("disk", free > 2, f"{free:.1f} GB free"),
        ("sqlite", sqlite3.sqlite_version_info >= (3, 35), sqlite3.sqlite_version),
    ]
    if url is None and not (home / "jdna.db").is_file():
        return [*found, ("database", True, "none yet, the first run makes it")]
    try:
        reading.require_schema(url_of(home, url), schema.head())
        count = reading.query(url_of(home, url), "SELECT COUNT(*) FROM run").rows[0][0]
        found.append(_damage(home / "jdna.db") if url is None else ("pages", True, "the server's"))
        found.append(("database", True, f"schema {schema.head()}, {count} runs"))
        return [*found, ("files", True, _verification(url_of(home, url)))]
    except JdnaError as error:
        return [*found, ("database", False, str(error))]


def _damage(file: Path) -> tuple[str, bool, str]:
    """Whether every page of a SQLite database can be read."""
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as own:
        try:
            (told,) = own.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            told = str(error)
    return ("pages", told == "ok", "all readable" if told == "ok" else f"damaged: {told}")


def _verification(url: str) -> str:
    """When the files of runs were last compared with what was written."""
    from jdna_cli.store import reading

    sql = "SELECT COUNT(*), COUNT(verified_at) FROM run WHERE status = 'finished'"
    count, verified = reading.query(url, sql).rows[0]
    if count == verified:
        return f"{count} finished runs, all verified"
    return f"{count - verified} of {count} finished runs never verified: jdna runs verify"
