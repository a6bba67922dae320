"""Multiple choice on models that write: the option with the highest log-likelihood.

`accuracy` compares sums over an option's tokens, `accuracy_norm` divides them by the option's
characters, as the LM evaluation harness does. Of equals the first counts; `ties` is the share of
questions in which the highest sum is not the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from jdna_cli.errors import NotFiniteError
from jdna_cli.scoring import shared_prefix
from jdna_cli.scoring.language_model import IGNORE_INDEX, Pair, token_losses
from jdna_cli.scoring.padding import accepted, right_padded
from jdna_cli.scoring.prompting import Asked, PromptedScorer
from jdna_cli.scoring.scorer import EvalContext, EvalResult

PROTOCOL = "log-likelihood of each option after the prompt; norm: per character; first of ties"


class Likelihood(PromptedScorer):
    """Learns the right option's tokens, and chooses by likelihood."""

    def measure(self, model: nn.Module, encoded: Asked, measuring: EvalContext) -> EvalResult:
        """The most likely option of each question."""
        sums = self._sums(model, encoded, measuring)
        rows: list[dict[str, Any]] = []
        normed, ties, total, count = 0, 0, 0.0, 0
        for i, (found, item) in enumerate(zip(sums, encoded.items, strict=True)):
            if not all(abs(x) < float("inf") for x in found):
                raise NotFiniteError("a log-likelihood", measuring.step)
            sizes = [max(1, len(target)) for target in item.targets]
            per = [x / size for x, size in zip(found, sizes, strict=True)]
            best = found.index(max(found))
            normed_right = per.index(max(per)) == item.right
            normed += normed_right
            ties += found.count(found[best]) > 1
            total -= found[item.right]
            count += len(encoded.right(i).target)
            rows.append(
                {
                    "label": item.right,
                    "prediction": best,
                    "outputs": found,
                    "accuracy_norm": float(normed_right),
                }
            )
        n = len(rows)
        scores = {
            "accuracy": sum(row["label"] == row["prediction"] for row in rows) / n,
            "accuracy_norm": normed / n,
        }
        told = {name: scores[name] for name in self.task.metrics}
        protocol = "; ".join(part for part in (PROTOCOL, self.told_cut(encoded)) if part)
        return EvalResult(total / count, {**told, "ties": ties / n}, rows, protocol)

    def _sums(self, model: nn.Module, encoded: Asked, measuring: EvalContext) -> list[list[float]]:
        """Log-likelihoods of all options of all questions."""
        found: list[list[float]] = [[] for _ in range(len(encoded))]
        model.eval()
        device = measuring.accelerator.device
        shared = [i for i in range(len(encoded)) if _shares(encoded.pairs[i])]
        alone = sorted(set(range(len(encoded))) - set(shared))
        done = 0
        with torch.inference_mode():
            most = max((len(encoded.pairs[i]) for i in shared), default=1)
            lengths = [len(encoded.pairs[i][0].prompt) for i in shared]
            for batch in measuring.batches(lengths, most):
                questions = [shared[j] for j in batch]
                pairs = [encoded.pairs[i] for i in questions]
                for i, own in zip(questions, self._after(model, pairs, device), strict=True):
                    found[i] = own
                done += len(questions)
                measuring.tell("evaluate", done, len(encoded))
            flat = [(i, pair) for i in alone for pair in encoded.pairs[i]]
            sums = [0.0] * len(flat)
            for rows in measuring.batches([len(pair) for _, pair in flat]):
                lost = self.negative_log_likelihood(model, [flat[row][1] for row in rows], device)
                for row, value in zip(rows, lost.double().tolist(), strict=True):
                    sums[row] = -value
                measuring.tell("evaluate", done, len(encoded))
            for (i, _), value in zip(flat, sums, strict=True):
                found[i].append(value)
        return found

    def _after(
        self, model: nn.Module, questions: Sequence[Sequence[Pair]], device: torch.device
    ) -> list[list[float]]:
        """Log-likelihoods of options that share their prompt, which is read once."""
        sums = (self._decoded_after if self.causal else self._translated_after)(
            model, questions, device
        )
        counts = [len(own) for own in questions]
        return [part.tolist() for part in torch.split(sums, counts)]

    def _decoded_after(
        self, model: nn.Module, questions: Sequence[Sequence[Pair]], device: torch.device
    ) -> Tensor:
        """Of all options one after the other, by a decoder: float64 on the CPU.

        One pass over the prompts gives each option's first token; a second one, over the options
        alone with the prompts' keys and values repeated, gives the others.
        """
        prompts = [own[0].prompt for own in questions]
        inputs, _ = shared_prefix.read(model, prompts, self.tokens.pad, device)
        read = model(**accepted(model, {**inputs, "logits_to_keep": 1, "use_cache": True}))
        first = torch.log_softmax(read.logits[:, -1].float(), -1)
        rows = torch.tensor([q for q, own in enumerate(questions) for _ in own], device=device)
        targets = [torch.tensor(pair.target) for own in questions for pair in own]
        sums = first[rows, torch.stack([t[0] for t in targets]).to(device)].double().cpu()
        longer = [i for i, target in enumerate(targets) if len(target) > 1]
        if not longer:
            return sums
        rows, targets = rows[longer], [targets[i] for i in longer]
        read.past_key_values.batch_select_indices(rows)
        ids = pad_sequence([t[:-1] for t in targets], True, self.tokens.pad).to(device)
        own = pad_sequence([torch.ones(len(t) - 1) for t in targets], True).long()
        before = inputs["attention_mask"][rows]
        given = {
            "input_ids": ids,
            "attention_mask": torch.cat([before, own.to(device)], 1),
            "position_ids": before.sum(1)[:, None] + torch.arange(ids.shape[1], device=device),
            "past_key_values": read.past_key_values,
        }
        logits = model(**accepted(model, given)).logits
        due = pad_sequence([t[1:] for t in targets], True, IGNORE_INDEX).to(device)
        sums[longer] -= token_losses(logits, due).double().sum(1).cpu()
        return sums

    def _translated_after(
        self, model: Any, questions: Sequence[Sequence[Pair]], device: torch.device
    ) -> Tensor:
        """The same by an encoder-decoder, which encodes each prompt once."""
        inputs = right_padded([own[0].prompt for own in questions], self.tokens.pad, device)
        encoded = model.get_encoder()(**inputs)
        rows = torch.tensor([q for q, own in enumerate(questions) for _ in own], device=device)
        targets = pad_sequence(
            [torch.tensor(pair.target) for own in questions for pair in own], True, IGNORE_INDEX
        ).to(device)
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.last_hidden_state[rows]),
            attention_mask=inputs["attention_mask"][rows],
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=targets.clone()),
        ).logits
        return -token_losses(logits, targets).double().sum(1).cpu()


def _shares(pairs: Sequence[Pair]) -> bool:
    """Whether options have one prompt, and it is long enough that reading it once pays."""
    prompt = pairs[0].prompt
    return all(pair.prompt == prompt for pair in pairs) and len(prompt) >= max(
        len(pair.target) for pair in pairs
    )


SCORER = Likelihood
