"""Written answers: greedily decoded, a line long, and marked by the task's own rule."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from torch import nn

from jdna_cli.compute.devices import Placing
from jdna_cli.errors import NotFiniteError, RequestError
from jdna_cli.models import loading, model_files
from jdna_cli.scoring import language_codes, shared_prefix
from jdna_cli.scoring.padding import right_padded
from jdna_cli.scoring.prompting import Asked, PromptedScorer
from jdna_cli.scoring.scorer import EvalContext, EvalResult
from jdna_cli.specs import ModelSource
from jdna_cli.tasks.grading import mark
from jdna_cli.tasks.task import Task

Stop = Callable[..., torch.Tensor]  # (tokens so far, scores) -> which rows have ended


class Generation(PromptedScorer):
    """Learns the first of the right answers, and writes one of its own."""

    ends = True

    @classmethod
    def check(cls, task: Task, config: Any, new_head: bool) -> None:
        """An encoder writes with the decoder that its fine-tuning gave it."""
        from jdna_cli.scoring import forms

        if not new_head and forms.form_of(config) == forms.ENCODER:
            raise RequestError(
                f"task {task.name!r}: {config.model_type} is an encoder and has no decoder yet: "
                f"fine-tune it first, `jdna finetune MODEL --task {task.name}`"
            )

    def load(
        self, source: ModelSource, *, new_head: bool, seed: int = 0, placing: Placing | None = None
    ) -> nn.Module:
        """A model that writes; an encoder gets a new decoder, where one may be made."""
        from jdna_cli.scoring import forms

        config = model_files.config_of(source.folder)
        if new_head and forms.form_of(config) == forms.ENCODER:
            return loading.with_new_decoder(source, self.tokens.tokenizer, self.tokens.pad, seed)
        return super().load(source, new_head=new_head, seed=seed, placing=placing)

    def measure(self, model: nn.Module, encoded: Asked, measuring: EvalContext) -> EvalResult:
        """Loss of the right answers, and the marks of those that the model writes."""
        loss = self.mean_negative_log_likelihood(model, encoded, measuring)
        if not abs(loss) < float("inf"):
            raise NotFiniteError("the loss", measuring.step)
        written = self._written(model, encoded, measuring)
        marks = mark(self.task, encoded.records.examples, written)
        named = {name: marks.scores[name] for name in self.task.metrics if name in marks.scores}
        protocol = "; ".join(part for part in (marks.protocol, self.told_cut(encoded)) if part)
        return EvalResult(loss, {**named, **marks.scores}, marks.rows, protocol)

    def _written(self, model: Any, encoded: Asked, measuring: EvalContext) -> list[str]:
        """What the model writes after each prompt, up to the end of the line."""
        found = [""] * len(encoded)
        done, device = 0, measuring.accelerator.device
        prompts_ = [encoded.pairs[i][0].prompt for i in range(len(encoded))]
        if self.causal:
            room = self.max_length - self.reserve
            prompts_ = [prompt[-room:] for prompt in prompts_]
        pairs = [example.pair for example in encoded.records.examples]
        ends = self._ends()
        model.eval()
        with torch.inference_mode():
            for pair in dict.fromkeys(pairs):
                own = [i for i, other in enumerate(pairs) if other == pair]
                config = self._config(model, pair, ends)
                for batch in measuring.batches([len(prompts_[i]) for i in own]):
                    indices = [own[j] for j in batch]
                    # A decoder goes on where its prompt ends; an encoder counts from the beginning.
                    inputs = self._inputs(model, [prompts_[i] for i in indices], device)
                    width = inputs["input_ids"].shape[1] if self.causal else 0
                    ids = _generate(model, inputs, config, self._line_ends(width))
                    if self.causal:
                        ids = ids[:, inputs["input_ids"].shape[1] :]
                    texts = self.tokens.tokenizer.batch_decode(ids, skip_special_tokens=True)
                    for i, text in zip(indices, texts, strict=True):
                        found[i] = text.strip().partition("\n")[0].strip()
                    done += len(indices)
                    measuring.tell("write", done, len(encoded))
        return found

    def _inputs(
        self, model: Any, prompts: Sequence[list[int]], device: torch.device
    ) -> dict[str, Any]:
        """What generation starts from: whole prompts, and what was read of them already."""
        if not self.causal:
            return right_padded(prompts, self.tokens.pad, device)
        inputs, shared = shared_prefix.read(model, prompts, self.tokens.pad, device)
        del inputs["position_ids"]
        if shared:
            begun = torch.tensor([prompts[0][:shared]] * len(prompts), device=device)
            inputs["input_ids"] = torch.cat([begun, inputs["input_ids"]], 1)
        return inputs

    @property
    def reserve(self) -> int:
        """An answer follows its prompt within the length of a decoder."""
        return self._most if self.causal else 0

    @property
    def _most(self) -> int:
        """Tokens of an answer at most; half of the length is left to the prompt in any case."""
        return min(self.task.answer_tokens, self.max_length // 2)

    def _config(self, model: Any, pair: str, ends: list[int]) -> transformers.GenerationConfig:
        """Greedy, whatever the model's own settings are; how decoding starts is its own."""
        own = model.generation_config
        starts: dict[str, Any] = {}
        if not self.causal:
            starts["decoder_start_token_id"] = own.decoder_start_token_id
        if not self.causal and not language_codes.has_codes(self.tokens.tokenizer):
            starts["forced_bos_token_id"] = getattr(own, "forced_bos_token_id", None)
        starts |= language_codes.started_in(self.tokens.tokenizer, pair)
        # Models that were taught to chat end their turns by tokens of their own.
        theirs = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        ends = sorted({*ends, *(token for token in theirs if token is not None)})
        return transformers.GenerationConfig(
            max_new_tokens=self._most,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=self.tokens.pad,
            bos_token_id=own.bos_token_id,
            eos_token_id=ends or None,
            **starts,
        )

    def _ends(self) -> list[int]:
        """Tokens after which a model need not go on."""
        return [] if self.tokens.end is None else [self.tokens.end]

    @functools.cached_property
    def _breaks(self) -> torch.Tensor:
        """Tokens in which a line ends."""
        tokenizer = self.tokens.tokenizer
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        return torch.tensor([i for i, text in enumerate(texts) if "\n" in text])

    def _line_ends(self, width: int) -> Stop:
        """Stops an answer at the end of its line; white space before it begins ends nothing.

        Args:
            width: tokens of the prompts, which come before the answers.
        """

        def stop(ids: torch.Tensor, scores: object, **rest: object) -> torch.Tensor:
            ended = torch.isin(ids[:, -1], self._breaks.to(ids.device))
            for row in ended.nonzero().flatten().tolist():
                answer = self.tokens.tokenizer.decode(ids[row, width:], skip_special_tokens=True)
                ended[row] = "\n" in answer.lstrip()
            return ended

        return stop


def _generate(model: Any, inputs: dict[str, torch.Tensor], config: Any, stop: Stop) -> torch.Tensor:
    """Generate under `config` alone: what a model's own settings add is left out."""
    before = model.generation_config
    model.generation_config = config
    try:
        ids: torch.Tensor = model.generate(
            **inputs, generation_config=config, stopping_criteria=[stop]
        )
    finally:
        model.generation_config = before
    return ids


SCORER = Generation
