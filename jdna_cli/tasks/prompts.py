"""From examples to what a model reads and writes: pairs for a head, prompts for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jdna_cli.tasks import equations
from jdna_cli.tasks.examples import LETTERS, Example
from jdna_cli.tasks.task import Task

BETWEEN_SHOTS = "\n\n"

# English names of languages, as prompts say them.
LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "en": "English", "es": "Spanish",
    "et": "Estonian", "fi": "Finnish", "fr": "French", "gu": "Gujarati", "hi": "Hindi",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "my": "Burmese", "ne": "Nepali", "nl": "Dutch",
    "ro": "Romanian", "ru": "Russian", "si": "Sinhala", "tr": "Turkish", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One question to a model that writes.

    Each of `targets` is what may follow its prompt: all options of a multiple choice, else the one
    text to be written. `prompts` holds one prompt for all of them, or one for each.
    """

    shots: tuple[tuple[str, str], ...]  # prompt and target of each example shown before
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    right: int = 0
    header: str = ""

    def prompt(self, index: int) -> str:
        """The prompt before the target at `index`."""
        return self.prompts[index if len(self.prompts) > 1 else 0]

    @property
    def shown(self) -> str:
        """The header and the shots as plain text, with the blank line that ends each."""
        return self.header + "".join(f"{p}{_joint(p, t)}{t}{BETWEEN_SHOTS}" for p, t in self.shots)


def pairs(task: Task, example: Example) -> list[tuple[str, str]]:
    """The two texts that an encoder reads for each option.

    Question and option, or, where the text has a blank, what stands up to the filled blank and
    what follows it.
    """
    if not task.blank:
        question = " ".join(example.texts)
        return [(question, option) for option in example.options]
    before, _, after = example.texts[0].partition(task.blank)
    return [(before + option, after.strip()) for option in example.options]


def item(task: Task, example: Example, shown: Sequence[Example], encoder_decoder: bool) -> Item:
    """What a model that writes is asked, after some shots."""
    own = _put(task, example, encoder_decoder)
    shots = []
    for shot in shown:
        put = _put(task, shot, encoder_decoder)
        shots.append((put.prompt(put.right), put.targets[put.right]))
    header = task.header.format(**{n: v.replace("_", " ") for n, v in example.fields.items()})
    return Item(tuple(shots), own.prompts, own.targets, own.right, header)


def company(task: Task, example: Example) -> str:
    """What an example shares with its shots: its group, or its direction of translation."""
    return example.fields[task.group] if task.group else example.pair


def question(task: Task, example: Example, asked: Item, index: int) -> str:
    """What must be read whole of a prompt: all of it, but not the text that answers stand in."""
    if example.context is None:
        return asked.prompt(index)
    fields = {**example.fields, task.context or "context": ""}
    return (task.prompt_open or task.prompt).format(**fields)


def spaced(prompt: str, target: str) -> str:
    """The target with the space that parts it from its prompt."""
    return _joint(prompt, target) + target


def _joint(prompt: str, target: str) -> str:
    return "" if not prompt or prompt[-1].isspace() or target[:1].isspace() else " "


def _put(task: Task, example: Example, encoder_decoder: bool) -> Item:
    template = (task.instruction if encoder_decoder else "") or task.prompt
    if task.kind == "multiple-choice":
        return _choice(task, example, template)
    if task.kind == "arithmetic":
        question, numbers = equations.masked(" ".join(example.texts))
        prompt = template.format(**{**example.fields, task.texts[0]: question}) or question
        return Item((), (prompt,), (equations.named(example.equation, numbers),))
    if task.kind == "translation":
        source, target = example.pair.split("-")
        prompt = template.format(
            source=example.texts[0],
            source_language=LANGUAGES.get(source, source),
            target_language=LANGUAGES.get(target, target),
        )
        return Item((), (prompt or example.texts[0],), example.answers[:1])
    if example.context is not None:
        template = task.prompt_open or f"{{{task.context}}}\n\n{template}"
    fields = {**example.fields, task.context or "context": example.context or ""}
    return Item((), (template.format(**fields),), example.answers[:1])


def _choice(task: Task, example: Example, template: str) -> Item:
    right = int(example.label)
    if task.blank:
        read = pairs(task, example)
        return Item((), tuple(a for a, _ in read), tuple(b for _, b in read), right)
    listing = "\n".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(example.options))
    fields = {
        **example.fields,
        "listing": listing,
        **dict(zip(task.texts, example.texts, strict=True)),
    }
    prompt = template.format(**fields) or example.texts[0]
    letters = task.answer_with == "letter"
    targets = tuple(LETTERS[: len(example.options)]) if letters else example.options
    return Item((), (prompt,), targets, right)
