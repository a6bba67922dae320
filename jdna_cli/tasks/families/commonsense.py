"""Multiple choice: commonsense, school science, and examinations.

Encoders are fine-tuned with a head that scores each option; models that write score the options by
their log-likelihood. Prompts and options are those that the LM evaluation harness puts, so that
its results and these can be compared.
"""

from __future__ import annotations

from jdna_cli.difficulty import HumanScore
from jdna_cli.tasks.task import HubSource, Task

_BOTH = ("accuracy", "accuracy_norm")


def _arc(name: str, description: str, config: str, sizes: dict[str, int]) -> Task:
    return Task(
        name=name,
        description=description,
        kind="multiple-choice",
        texts=("question",),
        options=("choices.text",),
        label="answerKey",
        prompt="Question: {question}\nAnswer:",
        metrics=_BOTH,
        chance=0.25,
        source=HubSource("allenai/ai2_arc", config),
        sizes=sizes,
    )


TASKS = (
    Task(
        name="commonsense_qa",
        description="which of five answers does common sense give?",
        kind="multiple-choice",
        texts=("question",),
        options=("choices.text",),
        label="answerKey",
        prompt="Question: {question}\n{listing}\nAnswer:",
        answer_with="letter",
        metrics=_BOTH,
        chance=0.2,
        human=HumanScore(0.889, "Talmor et al. 2019, arXiv 1811.00937"),
        source=HubSource("tau/commonsense_qa"),
        sizes={"train": 9741, "validation": 1221, "test": 1140},
    ),
    Task(
        name="commonsense_qa_texts",
        description="the same, by the options' texts: for models that know no letters as answers",
        kind="multiple-choice",
        texts=("question",),
        options=("choices.text",),
        label="answerKey",
        prompt="Question: {question}\nAnswer:",
        metrics=("accuracy_norm", "accuracy"),
        chance=0.2,
        human=HumanScore(0.889, "Talmor et al. 2019, arXiv 1811.00937"),
        folder="commonsense_qa",
        source=HubSource("tau/commonsense_qa"),
        sizes={"train": 9741, "validation": 1221, "test": 1140},
    ),
    Task(
        name="winogrande",
        description="which of two names does the pronoun's place take?",
        kind="multiple-choice",
        texts=("sentence",),
        options=("option1", "option2"),
        label="answer",
        labels=("1", "2"),
        blank="_",
        metrics=("accuracy",),
        chance=0.5,
        human=HumanScore(0.940, "Sakaguchi et al. 2020, arXiv 1907.10641"),
        source=HubSource("allenai/winogrande", "winogrande_l"),
        sizes={"train": 10234, "validation": 1267, "test": 1767},
    ),
    _arc(
        "arc_easy",
        "school science, the easier questions",
        "ARC-Easy",
        {"train": 2251, "validation": 570, "test": 2376},
    ),
    _arc(
        "arc_challenge",
        "school science, the questions that retrieval does not answer",
        "ARC-Challenge",
        {"train": 1119, "validation": 299, "test": 1172},
    ),
    Task(
        name="mmlu",
        description="examination questions of 57 subjects",
        kind="multiple-choice",
        texts=("question",),
        options=("choices",),
        label="answer",
        header="The following are multiple choice questions (with answers) about {subject}.\n\n",
        group="subject",
        prompt="{question}\n{listing}\nAnswer:",
        answer_with="letter",
        metrics=_BOTH,
        chance=0.25,
        human=HumanScore(0.898, "experts, estimated: Hendrycks et al. 2021, arXiv 2009.03300"),
        source=HubSource("cais/mmlu", "all", splits={"train": "dev"}),
        sizes={"train": 285, "validation": 1531, "test": 14042},
    ),
)
