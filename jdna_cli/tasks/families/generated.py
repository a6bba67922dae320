"""Tasks made on the spot, so that the tool can be tried without any download.

All need English that no training sentence teaches: the nouns of one split occur in no other, so a
model must know the words already. `living` asks of which of two kinds a noun is, which is easy;
`bigger` asks which of two things is larger, which takes two facts and an order; `larger` takes the
direction of the comparison besides, which not every seed learns. The answers are unambiguous by
construction, so a person's score is 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from jdna_cli.difficulty import HumanScore
from jdna_cli.tasks.task import GeneratedSource, Row, Task

_HUMAN = HumanScore(1.0, "unambiguous by construction")

# Nouns are given once, in the order train, validation, test: every 5th goes to validation, and
# the one after it to test.
_ANIMALS = """dog horse rabbit eagle salmon wolf sheep parrot dolphin lizard tiger goat owl shark
frog lion pig crow whale snake bear donkey duck trout turtle fox cow goose octopus crocodile cat
deer pigeon crab spider monkey camel hawk lobster ant elephant mouse swan squid bee giraffe rat
sparrow eel butterfly zebra squirrel penguin tuna beetle leopard otter raven seal wasp""".split()
_TOOLS = """hammer kettle ladder pencil bucket saw spoon rope pen basket drill fork chain brush
barrel wrench plate lamp needle bottle shovel cup candle stapler suitcase axe pan mirror ruler
drawer screwdriver bowl clock scissors cupboard pliers teapot curtain envelope wardrobe chisel
knife pillow notebook bench rake ladle blanket stamp stool file jug carpet printer shelf anvil
tray towel keyboard crate""".split()

# Typical greatest extent in metres. Only pairs that differ by a factor of 4 or more are compared.
_SIZES = {
    "ant": 0.005, "flea": 0.002, "mosquito": 0.008, "bee": 0.015, "ladybird": 0.007,
    "raisin": 0.01, "pea": 0.008, "grain of rice": 0.006, "coin": 0.022, "button": 0.015,
    "peanut": 0.02, "cherry": 0.022, "thimble": 0.025, "marble": 0.016, "ring": 0.02,
    "walnut": 0.04, "stamp": 0.025, "grape": 0.02, "beetle": 0.02, "pearl": 0.008,
    "egg": 0.06, "mouse": 0.09, "lemon": 0.08, "key": 0.06, "matchbox": 0.05,
    "spoon": 0.17, "apple": 0.08, "frog": 0.08, "teacup": 0.09, "sparrow": 0.15,
    "pencil": 0.18, "orange": 0.08, "hamster": 0.12, "candle": 0.2, "wallet": 0.1,
    "hammer": 0.3, "rabbit": 0.4, "pineapple": 0.3, "bottle": 0.3, "shoe": 0.28,
    "pumpkin": 0.35, "cat": 0.5, "bucket": 0.35, "pillow": 0.6, "duck": 0.5,
    "suitcase": 0.7, "guitar": 1.0, "fox": 0.8, "chair": 1.0, "eagle": 0.9,
    "wolf": 1.4, "bathtub": 1.7, "bicycle": 1.8, "sofa": 2.0, "bed": 2.0,
    "horse": 2.4, "piano": 1.8, "cow": 2.4, "wardrobe": 2.0, "tiger": 2.8,
    "car": 4.5, "rhinoceros": 3.7, "canoe": 5.0, "elephant": 6.0, "giraffe": 5.0,
    "truck": 10.0, "bus": 12.0, "house": 12.0, "tractor": 4.5, "yacht": 20.0,
    "whale": 25.0, "church": 40.0, "windmill": 25.0, "aeroplane": 50.0, "barn": 20.0,
    "castle": 100.0, "bridge": 300.0, "stadium": 250.0, "cathedral": 120.0, "factory": 200.0,
    "aircraft carrier": 330.0, "skyscraper": 300.0, "airport": 3000.0, "village": 1500.0,
    "harbour": 2000.0, "lake": 8000.0, "mountain": 8000.0, "island": 30000.0, "forest": 20000.0,
    "city": 40000.0, "desert": 900000.0, "country": 800000.0, "ocean": 9000000.0,
    "continent": 7000000.0, "planet": 12000000.0,
}  # fmt: skip

_LIVING_SENTENCES = (
    "There is {a} {noun} behind the house.",
    "She had never seen {a} {noun} like that before.",
    "He drew {a} {noun} on the first page.",
    "They asked us about the {noun} again.",
    "The old {noun} was worth very little.",
    "We found the {noun} near the gate.",
)
_LARGER_SENTENCES = (
    "{A} {x} is larger than {b} {y}.",
    "{A} {x} is much bigger than {b} {y}.",
    "{A} {x} is smaller than {b} {y}.",
    "{A} {x} takes up less room than {b} {y}.",
)
_FACTOR = 4.0
_COUNTS = {"train": 1600, "validation": 400, "test": 400}


def _share(items: Iterable[str], split: str) -> list[str]:
    """The nouns of one split: three fifths train, one fifth each of the others."""
    chosen = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}[split]
    return [item for i, item in enumerate(items) if i % 5 in chosen]


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def living(split: str) -> list[Row]:
    """Rows of `living`: label 1 where the noun is an animal, 0 where it is a thing."""
    rows: list[Row] = []
    for label, nouns in enumerate((_share(_TOOLS, split), _share(_ANIMALS, split))):
        for noun, sentence in product(nouns, _LIVING_SENTENCES):
            rows.append({"sentence": sentence.format(a=_article(noun), noun=noun), "label": label})
    random.Random(f"living {split}").shuffle(rows)
    return [{**row, "idx": i} for i, row in enumerate(rows)]


def larger(split: str) -> list[Row]:
    """Rows of `larger`: label 1 where what the sentence says of two sizes is true."""
    draw = random.Random(f"larger {split}")

    def said(x: str, y: str, label: int) -> str:
        # A true sentence says "larger" of the larger one or "smaller" of the smaller one.
        says_larger = (_SIZES[x] > _SIZES[y]) == bool(label)
        sentence = draw.choice(_LARGER_SENTENCES[:2] if says_larger else _LARGER_SENTENCES[2:])
        return sentence.format(A=_article(x).capitalize(), x=x, b=_article(y), y=y)

    return _compared(split, draw, said)


def bigger(split: str) -> list[Row]:
    """Rows of `bigger`: label 1 where the thing that is said to be the larger one is."""
    draw = random.Random(f"bigger {split}")

    def said(x: str, y: str, label: int) -> str:
        if (_SIZES[x] > _SIZES[y]) != bool(label):
            x, y = y, x
        sentence = draw.choice(_LARGER_SENTENCES[:2])
        return sentence.format(A=_article(x).capitalize(), x=x, b=_article(y), y=y)

    return _compared(split, draw, said)


def _compared(split: str, draw: random.Random, said: Callable[[str, str, int], str]) -> list[Row]:
    """Sentences on two things that differ much in size, true and false in turn, each once."""
    nouns = _share(_SIZES, split)
    seen: set[str] = set()
    rows: list[Row] = []
    while len(rows) < _COUNTS[split]:
        x, y = draw.sample(nouns, 2)
        if max(_SIZES[x], _SIZES[y]) < _FACTOR * min(_SIZES[x], _SIZES[y]):
            continue
        label = len(rows) % 2
        text = said(x, y, label)
        if text not in seen:
            seen.add(text)
            rows.append({"sentence": text, "label": label, "idx": len(rows)})
    return rows


# Whether what a sentence says of two sizes is true.
_STATEMENT: dict[str, Any] = {
    "kind": "classification",
    "texts": ("sentence",),
    "labels": ("false", "true"),
    "metrics": ("accuracy",),
    "chance": 0.5,
    "human": _HUMAN,
    "sizes": _COUNTS,
}

TASKS = (
    Task(
        name="living",
        description="does the sentence speak of an animal? (generated, easy)",
        kind="classification",
        texts=("sentence",),
        labels=("thing", "animal"),
        metrics=("accuracy",),
        chance=0.5,
        human=_HUMAN,
        source=GeneratedSource(living, "1"),
        sizes={"train": 432, "validation": 144, "test": 144},
    ),
    Task(
        **_STATEMENT,
        name="larger",
        description="is what the sentence says of two sizes true? (generated, hard)",
        source=GeneratedSource(larger, "1"),
    ),
    Task(
        **_STATEMENT,
        name="bigger",
        description="is the first thing larger than the second? (generated, hard)",
        source=GeneratedSource(bigger, "1"),
    ),
)
