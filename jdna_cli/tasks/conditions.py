"""The conditions under which a task is put: the conditions that make it easier or harder.

Every draw is seeded, and a harder condition holds what an easier one holds: K options are a subset
of K + 1, and k shots are the first of k + 1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from jdna_cli.errors import RequestError
from jdna_cli.tasks import datasets, metrics, prompts
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.examples import Example
from jdna_cli.tasks.subsets import nested_order
from jdna_cli.tasks.task import Task

Book = Literal["open", "closed"]
TRIES = 200  # noise passages drawn for one context, at most


@dataclass(frozen=True)
class Conditions:
    """Conditions of difficulty within a task; what a task has not is None."""

    options: int | None = None
    shots: int = 0
    book: Book | None = None
    context_words: int | None = None
    pairs: tuple[str, ...] = ()
    chat: bool = False
    limit: int | None = None  # examples, or windows of running text, that are measured at most
    seed: int = 0


def of(task: Task, request: Any) -> Conditions:
    """The conditions of a request.

    Args:
        task: what is asked.
        request: has the conditions as attributes; shots and chat are not every request's.

    Raises:
        RequestError: the task has no such direction of translation.
    """
    return Conditions(
        options=request.options,
        shots=getattr(request, "shots", 0),
        book=request.book,
        context_words=request.context_words,
        pairs=pairs_of(task, request.pairs),
        chat=getattr(request, "chat", False),
        limit=getattr(request, "limit", None),
        seed=request.seed,
    )


# ------------------------------------------------------------------------------------ checking


def check(task: Task, conditions: Conditions, split: str, data_dir: Path | None) -> None:
    """Refuse conditions that the task cannot be put under, before anything is read.

    Raises:
        RequestError: names the flag, and what would be right.
    """
    kind = task.kind
    if conditions.options is not None and kind != "multiple-choice":
        raise RequestError(f"--options: task {task.name!r} is no multiple choice, but {kind}")
    if (conditions.book or conditions.context_words) and kind != "question-answering":
        flag = "--book" if conditions.book else "--context-words"
        raise RequestError(f"{flag}: task {task.name!r} is no question answering, but {kind}")
    if conditions.book == "open" and not task.context:
        raise RequestError(f"--book: task {task.name!r} has no contexts, leave it closed")
    if conditions.context_words and conditions.book != "open":
        raise RequestError("--context-words: a closed book has no context, add --book open")
    written = kind not in ("classification", "regression", "language-modelling")
    if (conditions.shots or conditions.chat) and not written:
        flag = "--shots" if conditions.shots else "--chat"
        raise RequestError(f"{flag}: task {task.name!r} is {kind}, which is not prompted")
    if conditions.shots and not datasets.has(task, "train", data_dir):
        raise RequestError(f"--shots: task {task.name!r} has no training split to take them from")
    if conditions.shots and split == "train":
        raise RequestError("--shots: they come from the training split, measure on another")


def pairs_of(task: Task, asked: str | None) -> tuple[str, ...]:
    """The directions that were asked for: by name, by a group, or the first so many.

    Args:
        task: a translation.
        asked: "en-de", "en-de,en-fr", "majority", "minority", a number, or None for the first.

    Raises:
        RequestError: the task has no such direction.
    """
    if task.kind != "translation":
        if asked is not None:
            raise RequestError(f"--pairs: task {task.name!r} is no translation, but {task.kind}")
        return ()
    if asked is None:
        return task.pairs[:1]
    if asked.isascii() and asked.isdigit():
        if not 1 <= int(asked) <= len(task.pairs):
            raise RequestError(f"--pairs: task {task.name!r} has {len(task.pairs)} directions")
        return task.pairs[: int(asked)]
    if asked in ("majority", "minority"):
        group: tuple[str, ...] = getattr(task, asked)
        directions = tuple(p for p in task.pairs if set(p.split("-")) & set(group))
        if not directions:
            raise RequestError(f"--pairs: task {task.name!r} names no {asked} languages")
        return directions
    wanted = tuple(part.strip() for part in asked.split(","))
    for pair in wanted:
        if pair not in task.pairs:
            raise RequestError(
                f"--pairs: task {task.name!r} has no direction {pair!r}: it has "
                f"{', '.join(task.pairs)}"
            )
    return tuple(dict.fromkeys(wanted))


# ------------------------------------------------------------------------------------ applying


def apply(task: Task, records: Records, conditions: Conditions) -> Records:
    """The examples as they are under these conditions.

    Raises:
        RequestError: more options are asked for than any example has.
    """
    examples: Sequence[Example] = records.examples
    if task.kind == "translation":
        places = {pair: index for index, pair in enumerate(conditions.pairs)}
        examples = [replace(e, label=places[e.pair]) for e in examples if e.pair in places]
    if conditions.options is not None:
        most = max(len(example.options) for example in examples)
        if conditions.options > most:
            raise RequestError(
                f"--options: {conditions.options} asked, but the examples of task {task.name!r} "
                f"have at most {most}"
            )
        examples = [fewer_options(e, conditions.options, conditions.seed) for e in examples]
    if task.kind == "question-answering":
        if conditions.book == "open" and not any(example.context for example in examples):
            raise RequestError(
                f"--book: no question of task {task.name!r} has a text here: ask with --book "
                f"closed, or name files with the column {task.context!r} with --data-dir"
            )
        if conditions.book != "open":
            examples = [replace(example, context=None) for example in examples]
        elif conditions.context_words:
            pool = [example.context for example in examples if example.context]
            examples = [
                replace(e, context=context_of_words(e, conditions.context_words, pool, draw))
                for e in examples
                for draw in [random.Random(f"{conditions.seed} {e.id}")]
            ]
    if conditions.limit is not None and task.kind != "language-modelling":
        # Last, so that what is drawn for an example does not depend on how many there are.
        kept = drawn([example.id for example in examples], conditions.limit, conditions.seed)
        examples = [examples[i] for i in kept]
    return Records(tuple(examples))


def drawn(names: Sequence[str], count: int, seed: int) -> list[int]:
    """Indices of at most `count` names, in ascending order, drawn by the names alone.

    Fewer are part of more, whatever the order of the names.
    """
    order = sorted(range(len(names)), key=lambda i: sha256(f"{seed} {names[i]}".encode()).digest())
    return sorted(order[:count])


def fewer_options(example: Example, count: int, seed: int) -> Example:
    """The right option and count − 1 seeded others, in the order they had.

    The order in which others are dropped belongs to the example and the seed, so that fewer
    options are a subset of more. An example that has no more than `count` stays as it is.
    """
    right = int(example.label)
    others = [i for i in range(len(example.options)) if i != right]
    random.Random(f"{seed} {example.id}").shuffle(others)
    kept = sorted([right, *others[: count - 1]])
    options = tuple(example.options[i] for i in kept)
    return replace(example, options=options, label=float(kept.index(right)))


def context_of_words(example: Example, count: int, pool: Sequence[str], draw: random.Random) -> str:
    """A context of exactly `count` words (as split at white space) for a question.

    A longer context loses the sentences farthest from its answer's; the answer's own is kept, and
    cut around the answer only where it alone is longer than `count`. A shorter one is followed by
    whole passages of other questions that hold none of the answers, the last one cut. Where no
    answer stands in the context, its beginning is kept.
    """
    words = (example.context or "").split()
    if len(words) > count:
        first, last = _window(example, count)
        return " ".join(words[first:last])
    for _ in range(TRIES):
        if len(words) == count:
            return " ".join(words)
        passage = draw.choice(pool)
        if passage != example.context and not answer_place(passage.split(), example.answers):
            words += passage.split()[: count - len(words)]
    raise RequestError(
        f"--context-words: too little text to fill {count} words for question {example.id!r}"
    )


def _window(example: Example, count: int) -> tuple[int, int]:
    """First and last word (exclusive) of the part of a context that is kept."""
    words = (example.context or "").split()
    place = answer_place(words, example.answers)
    if place is None:
        return 0, count
    begin, end = place
    bounds = _sentences(words)
    first = max(b for b in bounds if b <= begin)
    last = min(b for b in bounds if b >= end)
    if last - first > count:
        # Even the answer's sentence is too long: as much on either side of the answer.
        middle = (begin + end) // 2
        first = min(max(first, middle - count // 2), last - count)
        return first, first + count
    before, after = first, len(words) - last
    spare = count - (last - first)
    left = min(before, max(spare // 2, spare - after))
    return first - left, last + spare - left


def _sentences(words: Sequence[str]) -> list[int]:
    """Indices at which sentences begin, and the end."""
    ends = [i + 1 for i, word in enumerate(words) if re.search(r"[.!?][\"')\]]*$", word)]
    return sorted({0, *ends, len(words)})


def answer_place(words: Sequence[str], answers: Sequence[str]) -> tuple[int, int] | None:
    """Where the first answer found stands among words: first and last (exclusive), or None.

    Words are compared as the exact match compares them.
    """
    plain = [metrics.normalised(word) for word in words]
    for answer in answers:
        wanted = metrics.normalised(answer).split()
        # Articles and marks vanish in the comparison: they lie between the words that count.
        kept = [i for i, word in enumerate(plain) if word]
        for start in range(len(kept) - len(wanted) + 1):
            span = kept[start : start + len(wanted)]
            if wanted and [plain[i] for i in span] == wanted:
                return span[0], span[-1] + 1
    return None


def shots(task: Task, records: Records, conditions: Conditions) -> dict[str, tuple[Example, ...]]:
    """The examples that are shown before each question, by what they share with it.

    That is a direction of translation, or a group of the task's own (else "").

    k of them are the first of k + 1.

    Args:
        task: the task.
        records: the training split, under the same conditions.
        conditions: how many, and the seed.

    Raises:
        RequestError: there are fewer.
    """
    order = nested_order([""] * len(records), conditions.seed) if conditions.shots else []
    shared = dict.fromkeys(prompts.company(task, one) for one in records.examples)
    chosen: dict[str, list[Example]] = {one: [] for one in shared or ("",)}
    for i in order:
        own = chosen[prompts.company(task, records.examples[i])]
        if len(own) < conditions.shots:
            own.append(records.examples[i])
    if short := [one for one, own in chosen.items() if len(own) < conditions.shots]:
        of = f" of {task.group} {short[0]!r}" if task.group else ""
        raise RequestError(
            f"--shots: {conditions.shots} asked, the training split of task {task.name!r} has "
            f"{len(chosen[short[0]])}{of}"
        )
    return {one: tuple(own) for one, own in chosen.items()}
