"""The views, for reports and for people who write SQL. Made anew whenever the schema is upgraded.

Each view comes with a word on every column; `docs/database.md` is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from jdna_cli.tasks.metrics import LOWER_IS_BETTER


@dataclass(frozen=True)
class View:
    """One view: its query, and what its columns mean."""

    name: str
    description: str
    query: str
    columns: dict[str, str]


_CELL = {
    "model": "the pre-trained model at the root",
    "task": "name of the task",
    "metric": "the task's main metric",
    "split": "the split it was measured on",
}
_PRUNING = {
    "regime": "transfer regime",
    "criterion": "what chose the weights; empty where dense",
    "pattern": "unstructured or N:M; empty where dense",
    "scope": "where scores competed",
    "allocation": "how much each tensor lost, where it is not all alike nor by competing",
    "prunable": "which weights could be pruned, besides the default, and in brackets what was "
    "taken away before",
    "sparsity": "sparsity asked for",
    "bits": "bits per weight",
    "bits_per_weight": "bits of the prunable weights in their compact form, per weight",
    "quantization": "how weights were rounded; empty where they were not",
    "calibration": "what the choice of weights was calibrated on",
    "schedule": "when it was pruned, if not once before it was trained: iterative, or after "
    "training",
    "teacher": "whose outputs it was distilled from",
    "adapter": "what trained in place of the weights, as lora; a recipe of its own",
    "data_fraction": "fraction of the training set used",
    "options": "options of a question, where some were taken away",
    "shots": "examples shown before each question",
    "book": "open: with the text at hand; closed: without",
    "context_words": "words that each context was cut or filled up to",
    "pairs": "directions of translation",
    "mixture": "number of directions of translation",
    "sample": "examples, or windows of a text, drawn to be measured; empty where all were",
    "recipe": "equal for cells that differ only in pruning and seed",
}

_LOWER = ", ".join(f"'{name}'" for name in LOWER_IS_BETTER)

PERFORMANCE = View(
    "performance",
    "One row per evaluated cell: its score beside that of the dense run that differs only in the "
    "pruning. Where a cell was measured more than once, by its fine-tuning and by later "
    "evaluations, the fine-tuning counts, and of several the latest.",
    """
WITH measured AS (
  SELECT run.id AS run_id, run.model, run.task, metric.name AS metric, metric.split,
    metric.value AS score, run.regime, run.criterion, run.pattern, run.scope, run.allocation,
    run.prunable, run.sparsity, run.sparsity_reached, run.bits, run.bits_per_weight,
    run.quantization, run.calibration, run.pruning_seed, run.schedule, run.teacher, run.adapter,
    run.data_fraction, run.options, run.shots, run.book, run.context_words, run.pairs,
    run.mixture, run.sample, run.seed, run.finished_at,
    run.recipe, run.human, run.chance,
    ROW_NUMBER() OVER (
      PARTITION BY run.recipe, run.seed, run.regime, run.criterion, run.pattern, run.scope,
        run.allocation, run.prunable, run.sparsity, run.bits, run.quantization, run.calibration,
        run.pruning_seed, run.schedule, run.teacher, metric.split
      ORDER BY CASE WHEN run.kind = 'finetune' THEN 0 ELSE 1 END, run.id DESC
    ) AS place
  FROM run JOIN metric ON metric.run = run.id AND metric.name = run.metric
  WHERE run.status = 'finished' AND run.kind IN ('finetune', 'eval') AND metric.step IS NULL
), cell AS (
  SELECT measured.*,
    FIRST_VALUE(run_id) OVER compared AS first_run_id,
    FIRST_VALUE(CASE WHEN teacher IS NULL THEN regime END) OVER compared AS first_regime,
    FIRST_VALUE(score) OVER compared AS first_score
  FROM measured WHERE place = 1
  WINDOW compared AS (
    PARTITION BY recipe, seed, split
    ORDER BY CASE WHEN regime = 'dense' AND sparsity = 0 AND teacher IS NULL THEN 0 ELSE 1 END,
      bits DESC, run_id DESC
  )
), paired AS (
  SELECT cell.*, CASE WHEN first_regime = 'dense' THEN first_run_id END AS dense_run_id,
    CASE WHEN first_regime = 'dense' THEN first_score END AS dense_score
  FROM cell
), compared AS (
  SELECT paired.*, CASE
    WHEN metric IN ({LOWER}) THEN CASE WHEN score > 0 THEN dense_score / score END
    WHEN dense_score > 0 THEN score / dense_score
  END AS relative
  FROM paired
)
SELECT run_id, model, task, metric, split, score, dense_run_id, dense_score,
  relative, 1 - relative AS relative_drop,
  regime, criterion, pattern, scope, allocation, prunable, sparsity, sparsity_reached, bits,
  bits_per_weight, quantization, calibration, pruning_seed, schedule, teacher, adapter,
  data_fraction,
  options, shots, book, context_words, pairs, mixture, sample, seed, finished_at, recipe, human,
  chance,
  CASE WHEN metric NOT IN ({LOWER}) AND dense_score > chance
    THEN (dense_score - score) / (dense_score - chance) END AS share_lost
FROM compared
""".replace("{LOWER}", _LOWER),
    {
        "run_id": "the run",
        **_CELL,
        "score": "the main metric, as a fraction (perplexity as it is)",
        "dense_run_id": "the dense run it is compared with; empty if there is none",
        "dense_score": "the dense run's score",
        "relative": "score / dense score, for perplexity dense score / score; empty without a "
        "dense run or if its score is not above 0",
        "relative_drop": "1 - relative",
        **_PRUNING,
        "sparsity_reached": "zeros among prunable weights at the end, counted",
        "pruning_seed": "seed of what the choice of weights draws",
        "seed": "the run's seed",
        "finished_at": "when the run ended",
        "human": "a person's score on the main metric",
        "chance": "what guessing scores on the main metric",
        "share_lost": "(dense score - score) / (dense score - chance): the drop as a share of the "
        "way down to guessing; empty where dense is not above chance",
    },
)

PERFORMANCE_DROP = View(
    "performance_drop",
    "`performance` over seeds: one row per cell, with the task's difficulty.",
    """
WITH cell AS (
  SELECT performance.*, AVG(relative_drop) OVER (
    PARTITION BY model, task, metric, split, regime, criterion, pattern, scope, allocation,
      prunable, sparsity,
      bits, quantization, calibration, schedule, teacher, adapter, data_fraction, options, shots,
      book,
      context_words, pairs, mixture, sample, recipe
  ) AS mean_drop
  FROM performance
)
SELECT model, task, metric, split,
  CASE WHEN MAX(human) > 0 THEN (MAX(human) - AVG(dense_score)) / MAX(human) END AS difficulty,
  AVG(score) AS score, AVG(dense_score) AS dense_score, AVG(relative) AS mean_relative,
  AVG(relative_drop) AS mean_relative_drop,
  CASE WHEN COUNT(relative_drop) > 1 THEN SQRT(
    SUM((relative_drop - mean_drop) * (relative_drop - mean_drop)) / (COUNT(relative_drop) - 1)
  ) END AS sd_relative_drop,
  COUNT(*) AS n, MAX(chance) AS chance,
  CASE WHEN metric NOT IN ({LOWER}) AND AVG(dense_score) > MAX(chance)
    THEN (AVG(dense_score) - AVG(score)) / (AVG(dense_score) - MAX(chance)) END AS share_lost,
  regime, criterion, pattern, scope, allocation, prunable, sparsity, bits,
  AVG(bits_per_weight) AS bits_per_weight, quantization, calibration, schedule, teacher, adapter,
  data_fraction, options, shots, book, context_words, pairs, mixture, sample, recipe
FROM cell
GROUP BY model, task, metric, split, regime, criterion, pattern, scope, allocation, prunable,
  sparsity, bits,
  quantization, calibration, schedule, teacher, adapter, data_fraction, options, shots, book,
  context_words,
  pairs, mixture, sample, recipe
""".replace("{LOWER}", _LOWER),
    {
        **_CELL,
        "difficulty": "(human - dense) / human, dense being the mean over the same seeds",
        "score": "mean score over seeds",
        "dense_score": "mean score of the dense runs",
        "mean_relative": "mean of relative performance",
        "mean_relative_drop": "mean of 1 - relative performance",
        "sd_relative_drop": "standard deviation over seeds (n - 1); empty for one seed",
        "n": "number of seeds (of the training and of the pruning)",
        "chance": "what guessing scores",
        "share_lost": "the drop as a share of the way from the dense score down to chance",
        **_PRUNING,
    },
)

LOSS_BARRIER = View(
    "loss_barrier",
    "One row per interpolation: the height of the loss above the straight line between the losses "
    "of its two ends.",
    """
SELECT run.id AS run_id, run.parent AS first_run_id, run.other AS second_run_id, run.model,
  run.task, MAX(point.loss - ((1 - point.alpha) * first.loss + point.alpha * last.loss)) AS barrier,
  MAX(point.loss) AS highest_loss, first.loss AS first_loss, last.loss AS second_loss,
  COUNT(*) AS points, run.finished_at
FROM run
  JOIN point ON point.run = run.id
  JOIN point AS first ON first.run = run.id AND first.alpha = 0
  JOIN point AS last ON last.run = run.id AND last.alpha = 1
WHERE run.status = 'finished'
GROUP BY run.id, run.parent, run.other, run.model, run.task, first.loss, last.loss, run.finished_at
""",
    {
        "run_id": "the interpolation",
        "first_run_id": "the run at alpha = 0, if it was one",
        "second_run_id": "the run at alpha = 1, if it was one",
        "model": "the pre-trained model at the root",
        "task": "name of the task",
        "barrier": "max over alpha of loss(alpha) - ((1 - alpha) loss(0) + alpha loss(1))",
        "highest_loss": "highest loss on the line",
        "first_loss": "loss at alpha = 0",
        "second_loss": "loss at alpha = 1",
        "points": "number of points measured",
        "finished_at": "when it ended",
    },
)

# In the order in which they can be made; dropped in the opposite order.
VIEWS = (PERFORMANCE, PERFORMANCE_DROP, LOSS_BARRIER)
