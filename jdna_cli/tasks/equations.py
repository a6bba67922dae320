"""Equations of arithmetic word problems: numbers become names, and an equation is computed.

As in the data sets' own form (Patel et al. 2021, arXiv 2103.07191), a model reads and writes
`number0`, `number1`, … for the numbers of a problem in the order in which they stand there; a
number that an equation has and the text has not is written as it is.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence

LONGEST = 200  # characters of an equation that is computed
TOLERANCE = 1e-3  # largest difference from the right answer that counts as right

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_NAME = re.compile(r"number\s*(\d+)")
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def masked(question: str) -> tuple[str, tuple[float, ...]]:
    """The question with its numbers named, and the numbers."""
    found: list[float] = []

    def name(match: re.Match[str]) -> str:
        found.append(float(match[0].replace(",", "")))
        return f"number{len(found) - 1}"

    return _NUMBER.sub(name, question), tuple(found)


def named(equation: str, numbers: Sequence[float]) -> str:
    """The equation with the question's numbers named; of equal numbers, the first not yet used."""
    used: set[int] = set()

    def name(match: re.Match[str]) -> str:
        value = float(match[0].replace(",", ""))
        places = [i for i, number in enumerate(numbers) if number == value]
        if not places:
            return f"{value:g}"
        place = next((i for i in places if i not in used), places[0])
        used.add(place)
        return f"number{place}"

    return _NUMBER.sub(name, equation)


def value(written: str, numbers: Sequence[float]) -> float | None:
    """What a written equation comes to, or None where it is none.

    Only numbers, names of the question's numbers, parentheses, signs, and + − × ÷ are known; the
    text is parsed, never executed. A tokenizer may have put spaces into `number 0`.
    """
    text = _NAME.sub(lambda match: f"number{match[1]}", written.strip())
    text = text.translate(str.maketrans("×÷−–", "*/--")).partition("\n")[0]
    if not text or len(text) > LONGEST:
        return None
    try:
        found = _computed(ast.parse(text, mode="eval").body, numbers)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return found if abs(found) < float("inf") else None


def _computed(node: ast.expr, numbers: Sequence[float]) -> float:
    """The value of a parsed expression.

    Raises:
        ValueError: it holds anything but arithmetic.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(str(node.value))
    if isinstance(node, ast.Name) and (found := re.fullmatch(r"number(\d{1,3})", node.id)):
        place = int(found[1])
        if place < len(numbers):
            return numbers[place]
    if isinstance(node, ast.BinOp) and (operation := _OPERATIONS.get(type(node.op))):
        return operation(_computed(node.left, numbers), _computed(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _computed(node.operand, numbers)
        return -inner if isinstance(node.op, ast.USub) else inner
    raise ValueError("not arithmetic")


def right(written: str, numbers: Sequence[float], answer: float) -> bool:
    """Whether a written equation comes to the answer."""
    found = value(written, numbers)
    return found is not None and abs(found - answer) <= TOLERANCE
