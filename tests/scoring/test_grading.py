"""Equations, answers and translations are marked as published, on cases worked by hand."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdna_cli.tasks import datasets, equations, grading, lookup, metrics
from jdna_cli.tasks.examples import Example


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("( number0 + number1 )", 10.0),
        ("number0 - number1 * 2", 4.0),
        ("( ( 8.0 - 2 ) / number1 )", 3.0),
        ("number 0 × number 1", 16.0),
        ("-number1 + +3", 1.0),
        ("( number0 ) \nnumber1", 8.0),
        ("number0 / 0", None),
        ("number2", None),
        ("number0 ** number1", None),
        ("number0 + ", None),
        ("", None),
        ("__import__('os').system('touch /tmp/x')", None),
        ("number0 if number1 else 2", None),
        ("[8][0]", None),
        ("'8'", None),
        ("True", None),
        ("1e400", None),
        ("(" * 300 + "1" + ")" * 300, None),
        ("9" * 199 + "*" + "9", None),
        ("10 % 3", None),
        ("1\x00", None),
    ],
)
def test_equations_are_computed_and_nothing_else_is(written, value):
    assert equations.value(written, (8.0, 2.0)) == value


def test_numbers_of_a_question_are_named_in_their_order():
    text, numbers = equations.masked("He had 1,200 apples, ate 2.5 and 3; route66 has 2.5 more.")
    assert text == "He had number0 apples, ate number1 and number2; route66 has number3 more."
    assert numbers == (1200.0, 2.5, 3.0, 2.5)
    assert equations.named("( 2.5 + 2.5 ) * 1200.0 - 7.0", numbers) == (
        "( number1 + number3 ) * number0 - 7"
    )


@given(st.lists(st.integers(1, 99), min_size=2, max_size=4), st.sampled_from("+-*/"))
def test_a_named_equation_comes_to_what_the_plain_one_does(values, sign):
    text, numbers = equations.masked(" and ".join(str(v) for v in values))
    plain = f" {sign} ".join(f"{v}.0" for v in values)
    assert equations.value(equations.named(plain, numbers), numbers) == equations.value(plain, ())
    assert text.count("number") == len(values)


@pytest.mark.parametrize("name", ["mawps", "asdiv_a", "svamp"])
def test_the_real_equations_come_to_their_answers(shared_data, name):
    task = lookup.get(name)
    wrong = total = 0
    for split in task.splits:
        for example in datasets.load(task, split, shared_data).examples:
            _, numbers = equations.masked(" ".join(example.texts))
            target = equations.named(example.equation, numbers)
            wrong += not equations.right(target, numbers, example.label)
            total += 1
    # Rows whose stated answer is not what their equation gives, all of them the source's own.
    assert wrong / total < 0.007


SQUAD = [
    # answers, written, exact match, F1
    (["Denver Broncos"], "The Denver Broncos!", 1, 1),
    (["Denver Broncos"], "Denver", 0, 2 / 3),
    (["in the year 1999", "1999"], "1999.", 1, 1),
    (["10 million dollars"], "a 10 million", 0, 0.8),
    (["yes"], "no", 0, 0),
    (["U.S."], "us", 1, 1),
    (["the"], "", 1, 1),
    (["a a b"], "b b", 0, 2 / 3),
    (["co-operate"], "cooperate", 1, 1),
]


@pytest.mark.parametrize(("answers", "written", "exact", "f1"), SQUAD)
def test_answers_are_compared_as_squad_does(answers, written, exact, f1):
    assert metrics.exact_match(answers, written) == exact
    assert metrics.token_f1(answers, written) == pytest.approx(f1)


def test_marks_of_answers_are_means_over_questions():
    examples = [Example(str(i), ("?",), answers=tuple(row[0])) for i, row in enumerate(SQUAD)]
    found = grading.mark(lookup.get("nq_open"), examples, [row[1] for row in SQUAD])
    assert found.scores["exact_match"] == pytest.approx(sum(r[2] for r in SQUAD) / len(SQUAD))
    assert found.scores["f1"] == pytest.approx(sum(r[3] for r in SQUAD) / len(SQUAD))


WRITTEN = ["the cat sat on the mat today", "he went to the big house", "nothing is right here"]
REFERENCES = ["the cat sat on the mat", "she went to the big old house", "all of it is wrong there"]


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_translations_score_as_sacrebleus_own_command_says(tmp_path, metric):
    (tmp_path / "written").write_text("\n".join(WRITTEN) + "\n")
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "references", "-i",
               tmp_path / "written", "-m", metric, "-b", "-w", "10"]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, signature = metrics.translation(WRITTEN, REFERENCES, "en")
    assert 100 * found[metric] == pytest.approx(float(told), abs=1e-8)
    assert "version:" in signature
    assert "tok:13a" in signature


def test_a_mixture_scores_the_mean_over_its_directions():
    examples = [
        Example(str(i), ("x",), answers=(REFERENCES[i % 3],), pair=pair)
        for pair in ("de-en", "cs-en") for i in range(3)
    ]  # fmt: skip
    found = grading.mark(lookup.get("multi30k"), examples, [*WRITTEN, *REFERENCES])
    assert found.scores["bleu_cs-en"] == pytest.approx(1.0)
    assert found.scores["bleu"] == pytest.approx((1 + found.scores["bleu_de-en"]) / 2)
    assert found.protocol.startswith("de-en: BLEU nrefs:1")
