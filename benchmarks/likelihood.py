"""Multiple choice by log-likelihood: jdna against the LM evaluation harness, in one process."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import tempfile
from functools import partial
from pathlib import Path

import tokenizers
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.measuring import beside_peer, seconds, table
from jdna_cli.compute import devices
from jdna_cli.scoring import setup
from jdna_cli.scoring.prompting import Asked, PromptedScorer
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.specs import EvalSpec, ModelSource
from jdna_cli.tasks import lookup
from jdna_cli.tasks.datasets import Records
from jdna_cli.tasks.examples import Example

WORDS = [f"w{i}" for i in range(32_000)]  # as many as Llama's vocabulary has
QUESTIONS, BATCH = 32, 64


def model_in(folder: Path) -> ModelSource:
    """A Llama of 18 M weights in its layers, with a vocabulary of words."""
    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *WORDS])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=384, intermediate_size=1024, num_hidden_layers=10,
        num_attention_heads=6, max_position_embeddings=2048, pad_token_id=0, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return ModelSource("llama", folder, "llama")


def questions(prompt: int, option: int) -> Records:
    """Questions of about so many words, with four options of about so many."""
    draw = random.Random(0)

    def words(about: int) -> str:
        return " ".join(draw.choices(WORDS, k=max(1, round(about * draw.uniform(0.6, 1.4)))))

    return Records(
        tuple(
            Example(
                str(i), (text,), 0.0, options=tuple(words(option) for _ in range(4)),
                fields={"question": text},
            )
            for i in range(QUESTIONS) for text in [words(prompt)]
        )
    )  # fmt: skip


def report() -> str:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task = lookup.get("arc_easy")
    spec = EvalSpec(model="m", task=task.name, split="validation", max_length=2048)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        source = model_in(Path(name))
        scorer = setup.scorer_for(spec, task, source)
        assert isinstance(scorer, PromptedScorer)
        accelerator = devices.accelerator("no")
        model = scorer.load(source, new_head=False).to(accelerator.device)
        library = HFLM(pretrained=model, tokenizer=scorer.tokens.tokenizer, batch_size=BATCH)
        for title, prompt, option in (
            ("zero-shot, one-word options", 30, 1),
            ("zero-shot, sentences", 30, 10),
            ("few-shot, sentences", 300, 10),
        ):
            records = questions(prompt, option)
            encoded = scorer.encode(records)
            asked = requests(encoded)
            measuring = EvalContext(BATCH, accelerator)
            ours = seconds(partial(scorer.measure, model, scorer.encode(records), measuring), 2)
            theirs = seconds(partial(quietly, library, asked), 2)
            gap = max(
                abs(a - b)
                for a, b in zip(
                    [x for row in scorer.measure(model, encoded, measuring).rows
                     for x in row["outputs"]],
                    quietly(library, asked), strict=True,
                )
            )  # fmt: skip
            beside_peer(f"likelihoods, {title}", "lm-eval", theirs / ours, 2)
            speeds = [f"{QUESTIONS / spent:.1f}" for spent in (theirs, ours)]
            rows.append([title, *speeds, f"{theirs / ours:.2f}", f"{gap:.0e}"])
    columns = ["", "lm-eval, questions/s", "jdna, questions/s", "ratio", "largest difference"]
    heading = (
        f"Log-likelihood of four options, Llama of 18 M weights in its layers, vocabulary of "
        f"{len(WORDS):,}, {QUESTIONS} questions"
    )
    return table(heading, columns, rows)


def requests(encoded: Asked) -> list[Instance]:
    """The same prompts and options as the harness's own requests."""
    return [
        Instance("loglikelihood", {}, (item.prompts[0], f" {target}"), i)
        for item in encoded.items
        for i, target in enumerate(item.targets)
    ]


def quietly(library: HFLM, asked: list[Instance]) -> list[float]:
    """The harness's log-likelihoods, without its progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        return [value for value, _ in library.loglikelihood(asked)]
