"""Writes the pages that are made from the code: `make docs`. A test checks that they are fresh."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Made from the code by `make docs`; do not edit. -->\n"


def _text(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _values(kind: Any) -> str:
    """What may be given for a type."""
    members = (
        [kind] if get_origin(kind) is Literal else [m for m in get_args(kind) if m is not NoneType]
    )
    members = members or [kind]
    first = members[0]
    if get_args(first):
        return "\\|".join(str(value) for value in get_args(first))
    names = {float: "NUMBER", int: "NUMBER", str: "TEXT", Path: "PATH"}
    return names.get(first, "TEXT")


def _row(name: str, parameter: inspect.Parameter, annotation: Any) -> str:
    kind, info = get_args(annotation)
    default = parameter.default
    shown = "" if default in (None, False, inspect.Parameter.empty) else f"`{default}`"
    if isinstance(info, typer.models.ArgumentInfo):
        flag = info.metavar or name.upper()
    else:
        # Typer keeps the first name of an annotated option where a default would be.
        named = [info.default] if isinstance(info.default, str) else list(info.param_decls or ())
        flag = named[0] if named else f"--{name.replace('_', '-')}"
        if kind is not bool:
            flag += f" {info.metavar or _values(kind)}"
    text = _text(info.help or "") + (f" Also `{info.envvar}`." if info.envvar else "")
    return f"| `{flag}` | {shown} | {text} |"


def _command(name: str, function: Callable[..., None]) -> list[str]:
    lines = [f"## `jdna {name}`", "", " ".join((function.__doc__ or "").split()), ""]
    lines += ["| | default | |", "|---|---|---|"]
    hints = get_type_hints(function, include_extras=True)
    for parameter_name, parameter in inspect.signature(function).parameters.items():
        if parameter_name != "context":
            lines.append(_row(parameter_name, parameter, hints[parameter_name]))
    return [*lines, ""]


def commands() -> str:
    """Every command with every option."""
    from jdna_cli.cli.app import app

    lines = [NOTE, "# Commands", "", "Exit code 0: done; 1: the run failed; 2: the request was"]
    lines += ["wrong, and one line says what would be right; 130: interrupted.", ""]
    for command in app.registered_commands:
        lines += _command(str(command.name), command.callback)
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            lines += _command(f"{group.name} {command.name}", command.callback)
    return "\n".join(lines)


# What people ask of the database; a test asks every one of them.
QUERIES = {
    "Which sparsity costs each task no more than 1 %?": """
SELECT model, task, regime, criterion, MAX(sparsity) AS sparsity
FROM performance_drop
WHERE pattern = 'unstructured' AND mean_relative_drop <= 0.01
GROUP BY model, task, regime, criterion""",
    "How does the drop at 50 % depend on difficulty?": """
SELECT task, difficulty, mean_relative_drop, sd_relative_drop, n
FROM performance_drop
WHERE pattern = 'unstructured' AND sparsity = 0.5 AND regime = 'sparse'
ORDER BY difficulty""",
    "Which runs diverged, or failed otherwise, and why?": """
SELECT id, model, task, sparsity, seed, status, error FROM run
WHERE status IN ('failed', 'interrupted') ORDER BY id DESC""",
    "What changed between two runs (here 2 and 3)?": """
SELECT a.key, a.value AS first, b.value AS second
FROM run AS x JOIN run AS y ON x.id = 2 AND y.id = 3,
  json_each(x.spec) AS a JOIN json_each(y.spec) AS b ON a.key = b.key
WHERE a.value IS NOT b.value""",
    "How well does each regime hold up, seed by seed?": """
SELECT task, sparsity, seed, regime, relative FROM performance
WHERE pattern IS NOT NULL ORDER BY task, sparsity, seed, regime""",
    "Which seeds of a cell are still missing (of 41, 42, 43)?": """
SELECT p.model, p.task, p.regime, p.criterion, p.pattern, p.sparsity, wanted.seed
FROM (SELECT 41 AS seed UNION SELECT 42 UNION SELECT 43) AS wanted
  CROSS JOIN performance_drop AS p
WHERE NOT EXISTS (
  SELECT 1 FROM performance AS q
  WHERE q.recipe = p.recipe AND q.regime = p.regime AND q.sparsity = p.sparsity
    AND q.criterion IS NOT DISTINCT FROM p.criterion
    AND q.pattern IS NOT DISTINCT FROM p.pattern AND q.seed = wanted.seed)
ORDER BY p.task, p.sparsity, wanted.seed""",
    "Which tensors lost the most weights in run 2?": """
SELECT tensor, 1.0 - 1.0 * kept / total AS sparsity FROM layer
WHERE run = 2 ORDER BY sparsity DESC LIMIT 10""",
    "How did the loss of run 3 fall?": """
SELECT step, value FROM metric
WHERE run = 3 AND split = 'train' AND name = 'loss' AND step IS NOT NULL ORDER BY step""",
    "Which dense models have learnt nothing?": """
SELECT model, task, score, chance FROM performance
WHERE regime = 'dense' AND pattern IS NULL AND score - chance < 0.1 * (1 - chance)""",
    "Where did the time go?": """
SELECT kind, model, task, COUNT(*) AS runs,
  SUM(julianday(finished_at) - julianday(started_at)) * 24 AS hours
FROM run WHERE status = 'finished' GROUP BY kind, model, task ORDER BY hours DESC""",
    "Which loss barriers are the highest?": """
SELECT task, first_run_id, second_run_id, barrier FROM loss_barrier ORDER BY barrier DESC""",
}


def database() -> str:
    """Every table and view, column by column."""
    from sqlmodel import SQLModel

    from jdna_cli.store import tables
    from jdna_cli.store.views import VIEWS

    lines = [
        NOTE,
        "# The database",
        "",
        "SQLite at `<home>/jdna.db`, or any database by `--db URL`. Read it with any tool:",
        "",
        "```",
        'sqlite3 jdna-runs/jdna.db "SELECT task, sparsity, regime, relative FROM performance"',
        'jdna db query "SELECT * FROM performance_drop ORDER BY difficulty, sparsity"',
        "```",
        "",
        "Scores are fractions. Times are UTC. What was not measured is empty, never zero.",
        "",
        "# Views",
        "",
    ]
    for view in VIEWS:
        lines += [f"## `{view.name}`", "", view.description, "", "| column | |", "|---|---|"]
        lines += [f"| `{name}` | {_text(text)} |" for name, text in view.columns.items()]
        lines.append("")
    lines += ["# Queries that people ask", "", "`jdna db query \"…\"`; those with `json_each` or "
              "`julianday` are SQLite's.", ""]  # fmt: skip
    for question, sql in QUERIES.items():
        lines += [f"**{question}**", "", "```sql", sql.strip(), "```", ""]
    lines += [
        "# Browsing",
        "",
        "Any SQLite browser opens the file. With [Datasette](https://datasette.io) (`pip install",
        "datasette`) tables and views are pages with facets, links between runs, and an API:",
        "",
        "```",
        "datasette serve --immutable jdna-runs/jdna.db --metadata docs/datasette.json",
        "```",
        "",
    ]
    lines += ["# Tables", ""]
    assert tables.Run.metadata is SQLModel.metadata
    for table in SQLModel.metadata.sorted_tables:
        lines += [f"## `{table.name}`", "", table.info["description"], ""]
        lines += ["| column | type | |", "|---|---|---|"]
        for column in table.columns:
            kind = f"{column.type}{'' if column.nullable else ', never empty'}"
            target = "".join(f" → `{key.target_fullname}`" for key in column.foreign_keys)
            lines.append(f"| `{column.name}` | {kind} | {_text(column.doc)}{target} |")
        lines.append("")
    return "\n".join(lines)


def reports_page() -> str:
    """Every report, and what all of them share."""
    from jdna_cli import reports

    lines = [
        NOTE,
        "# Reports",
        "",
        "`jdna report NAME`: a table; `--plot FILE` its figure (.png, .svg, .pdf), `--html FILE` a",
        "page that needs no network, `--format markdown|latex|csv|json` to take it elsewhere.",
        "`--model`, `--task`, `--regime`, `--criterion`, `--pattern`, `--seed`, `--since` and",
        "`--until` choose runs in every report; dense references are always among them.",
        "",
        "| report | |",
        "|---|---|",
    ]
    for name in reports.names():
        told = (reports.load(name).__doc__ or "").split(":", 1)[1].strip()
        lines.append(f"| `{name}` | {_text(told)} |")
    lines += [
        "",
        "# Statistics",
        "",
        "All are seeded: the same runs give the same figures. A drop of several seeds has an "
        "interval over seeds, one of a single seed over its examples, where their answers were "
        "saved (column `interval_over`; `*` in tables). Seeds with the same answers to the last "
        "bit are one. A dense model is at chance where the interval of its score over the "
        "examples reaches what guessing scores: tables put it in brackets, `verdict` and `advise` "
        "leave such tasks out.",
        "",
        "| | |",
        "|---|---|",
    ]
    from jdna_cli.reports import statistics

    shown = """mean_interval paired mean_of_examples mcnemar rank_trends page_trend
    ordered_trend holm monotone critical"""
    for name in shown.split():
        told = (getattr(statistics, name).__doc__ or "").replace("Args:", " Args:")
        lines.append(f"| `{name}` | {_text(told.split(' Args:')[0])} |")
    lines += [
        "",
        "The verdict is tested on simulated databases: 100 that follow the hypothesis, 100 that",
        "contradict it, 100 of noise; in each it is wrong at most as often as 5 % allow.",
        "",
    ]
    return "\n".join(lines)


# How each kind of task is put to a model, and what its scores are.
_KIND = {
    "classification": "A new head on any architecture. Scores by scikit-learn.",
    "regression": "A new head with one output. Correlations by SciPy.",
    "multiple-choice": "Encoders are fine-tuned with a head that gives each option one number. "
    "Models that write choose the option of the highest log-likelihood after the prompt, and are "
    "fine-tuned on the right one: `accuracy` compares sums over tokens, `accuracy_norm` divides "
    "them by the option's characters; of equals the first counts, and `ties` is the share of such "
    "questions. `--options K` keeps the right option and K − 1 others, drawn by `--seed`; fewer "
    "are a subset of more, and a question that has no more than K stays as it is.",
    "arithmetic": "The model writes the equation, with `number0`, `number1`, … for the numbers of "
    "the problem in the order in which they stand there. The equation is parsed, never executed, "
    "and computed; `accuracy` is the share whose value is within 0.001 of the answer. An encoder "
    "gets a decoder of two layers, made afresh, which is never pruned.",
    "question-answering": "The model writes the answer, up to the end of the line. `exact_match` "
    "and `f1` are SQuAD's: the best over all accepted answers, in lower case, without punctuation "
    "and articles. `--book closed` leaves the text out. `--context-words N` makes it N words: the "
    "sentence of the answer stays, the sentences farthest from it go first; a shorter text is "
    "filled up with texts of other questions that hold no answer, drawn by `--seed`; where a text "
    "holds no answer, its beginning stays.",
    "translation": "Corpus BLEU and chrF by sacrebleu, as fractions; their signatures are in the "
    "column `protocol` of the run. Of several directions the scores are means over directions, "
    "and each direction's own are recorded beside them. Multilingual tokenizers (mBART, NLLB, "
    "M2M-100) are told the languages by their codes, T5 and decoders by the prompt. `--pairs` "
    "takes directions, a group, or the first so many of: "
    "en-de de-en en-fr fr-en en-cs cs-en de-fr fr-de de-cs cs-de fr-cs cs-fr (`multi30k`).",
    "language-modelling": "All rows of a split are joined to one text and cut into windows of "
    "`--max-length` tokens, `--stride` apart. `perplexity` is exp of the mean negative "
    "log-likelihood of the tokens that are predicted: all but the first of each window, or, with a "
    "stride shorter than the window, those that no window before it predicted. A last window that "
    "is not full is left out. How many there were is in the column `protocol`. Lower is better: "
    "relative performance is dense / score.",
}


def tasks() -> str:
    """Every task with its metric, human score and source."""
    from jdna_cli.tasks.built_in import all_tasks
    from jdna_cli.tasks.task import KINDS, HubSource

    lines = [NOTE, "# Tasks", "", "Scores are of the main metric. With `--data-dir DIR`, files at"]
    lines += [
        "`DIR/<task>/<split>.jsonl` are used in place of the hub. `jdna tasks show TASK` prints"
    ]
    lines += ["a task as TOML; [tasks of your own](own-tasks.md) are written in the same form.", ""]
    for kind, rules in KINDS.items():
        lines += [f"## {kind.capitalize()}", "", _KIND[kind], ""]
        lines += ["| task | question | columns | metrics (main first) | human | examples from |"]
        lines += ["|---|---|---|---|---|---|"]
        for task in all_tasks().values():
            if task.kind != kind:
                continue
            assert set(task.metrics) <= set(rules.metrics)
            source, human = task.source, task.human
            place = "files alone" if source is None else "generated"
            if isinstance(source, HubSource):
                place = f"{source.path} {source.config or ''}".strip()
            told = f"{human.value:.1%} ({human.source})" if human else ""
            columns = ", ".join(task.columns)
            cells = (f"`{task.name}`", task.description, columns, ", ".join(task.metrics), told)
            lines.append(f"| {' | '.join(map(_text, (*cells, place)))} |")
        lines.append("")
    return "\n".join(lines)


def datasette() -> str:
    """Titles and column descriptions for Datasette."""
    from sqlmodel import SQLModel

    from jdna_cli.store import tables
    from jdna_cli.store.views import VIEWS

    assert tables.Run.metadata is SQLModel.metadata
    told: dict[str, Any] = {
        view.name: {"description": view.description, "columns": view.columns} for view in VIEWS
    }
    for table in SQLModel.metadata.sorted_tables:
        columns = {column.name: column.doc for column in table.columns}
        told[table.name] = {"description": table.info["description"], "columns": columns}
    told["run"] |= {"facets": ["kind", "status", "task", "regime"], "sort_desc": "id"}
    told["performance"] |= {"facets": ["task", "regime", "criterion", "pattern"]}
    queries = {
        re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-"): {
            "sql": sql.strip(),
            "title": question,
        }
        for question, sql in QUERIES.items()
    }
    found = {
        "title": "jdna runs",
        "databases": {"jdna": {"tables": told, "queries": queries}},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


_WAY = """## The way of one `finetune`

1. `cli/app.py` parses the line, and turns every error that a user can mend into one line.
2. `cli/commands/finetune.py` opens the workspace and hands over what was asked.
3. `runs/finetune.py` resolves it: the model (`runs/model_lookup.py`: hub, folder, `run:ID`), the
   data (`tasks/datasets.py`), what was not said; a frozen `FinetuneSpec` (`specs.py`) comes of it.
4. Model, data, criterion are named by content, so that the fingerprint is that of the result.
5. `runs/recording.py` asks `store/ledger.py` for a finished run of this fingerprint: the end.
6. Where the request prunes, `runs/prune.py` makes, or finds, the pruned run first.
7. `pipelines/checks.py` checks all that can be checked before anything is loaded.
8. `pipelines/finetune.py` reads, tokenizes, lays masks (`sparsity/`) and trains
   (`training/loop.py`), measuring by a scorer (`scoring/`).
9. It returns an `Outcome` (`results.py`): plain numbers. Its files are written whole or not at all.
10. `store/ledger.py` records the outcome, or why there is none; `cli/showing.py` prints it.

## To add … touch this

| | |
|---|---|
| a task of your own | a TOML file ([own-tasks.md](own-tasks.md)); no code |
| a task that comes with jdna | `tasks/families/NAME.py` ([extending.md](extending.md)) |
| a criterion | `sparsity/criteria/NAME.py`, or a file of your own: `--criterion mine.py:score` |
| a report | `reports/catalogue/NAME.py` |
| an experiment | `sweeps/catalogue/NAME/small.toml`, `paper.toml`, or a file of your own |
| a model family | nothing: what a configuration says decides; what it lacks is refused by name |
| a column of `run` | `store/tables.py`, a file in `migrations/versions/`, and `make docs` |
"""


def architecture() -> str:
    """The rooms, their sizes, and which imports which."""
    sys.path.insert(0, str(HERE))
    import rooms

    there, arrows = rooms.graph()
    assert not rooms.circles(arrows), rooms.circles(arrows)
    lines = [NOTE, "# How the code is laid out", ""]
    lines += [
        "Imports point down; no room is in a circle (`make check` keeps it). How large rooms and"
    ]
    lines += ["arrows are: `python docs/rooms.py`. Arrows that others imply are left out.", ""]
    lines += ["```mermaid", "flowchart TD"]
    names = {room.name: room.name.replace(" ", "_") for room in there}
    lines += [f'  {names[room.name]}["{room.name}"]' for room in there if room.name != rooms.GROUND]
    lines += [f"  {names[a]} --> {names[b]}" for a, b in rooms.reduced(arrows)]
    lines += ["```", "", "Every room may use the ground floor.", ""]
    lines += ["| room | what may stand in it |", "|---|---|"]
    for room in there:
        says = room.says
        if room.name == rooms.GROUND:
            says = "Small files that everybody may use: requests, results, errors, the clock."
        lines.append(f"| `{room.name}` | {_text(says)} |")
    return "\n".join([*lines, "", _WAY])


def drawing() -> str:
    """The same as a picture."""
    sys.path.insert(0, str(HERE))
    import rooms

    return rooms.drawn(rooms.graph()[1])


PAGES = {
    "images/architecture.svg": drawing,
    "architecture.md": architecture,
    "commands.md": commands,
    "database.md": database,
    "datasette.json": datasette,
    "reports.md": reports_page,
    "tasks.md": tasks,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
