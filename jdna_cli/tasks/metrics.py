"""Metrics by name, through scikit-learn, SciPy and sacrebleu.

Higher is better for each of them but those in `LOWER_IS_BETTER`.
"""

from __future__ import annotations

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

Values = Sequence[float]


def accuracy(labels: Values, predictions: Values) -> float:
    """Fraction of predictions that equal their label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Values, predictions: Values) -> float:
    """F1 of label 1, zero where nothing was predicted as it."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def macro_f1(labels: Values, predictions: Values) -> float:
    """Mean over labels of each one's F1, zero for one that was never predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews_correlation(labels: Values, predictions: Values) -> float:
    """Matthews correlation coefficient, zero where all predictions are the same."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found")
        return float(matthews_corrcoef(labels, predictions))


def pearson(labels: Values, predictions: Values) -> float:
    """Pearson correlation; zero for constant predictions, which tell nothing of the labels."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels: Values, predictions: Values) -> float:
    """Spearman rank correlation; zero for constant predictions."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable[..., object], labels: Values, predictions: Values) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(constant|nearly constant).*")
        value = float(function(labels, predictions).statistic)  # type: ignore[attr-defined]
    return 0.0 if math.isnan(value) else value


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def score(names: Sequence[str], labels: Values, predictions: Values) -> dict[str, float]:
    """Each metric of `names` over the same examples."""
    return {name: METRICS[name](labels, predictions) for name in names}


# Where lower is better, relative performance is dense / score.
LOWER_IS_BETTER = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces.

    Source: the evaluation of SQuAD 1.1 (Rajpurkar et al. 2016, arXiv 1606.05250).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_MARKS)).split())


def exact_match(answers: Sequence[str], written: str) -> float:
    """1 where the written text equals one of the answers after normalisation, else 0."""
    return float(any(normalised(answer) == normalised(written) for answer in answers))


def token_f1(answers: Sequence[str], written: str) -> float:
    """F1 of the words shared with an answer, after normalisation; the best over the answers."""
    return max(_shared_f1(normalised(a).split(), normalised(written).split()) for a in answers)


def _shared_f1(answer: list[str], written: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(written)).values())
    if not shared:
        return float(answer == written)
    precision, recall = shared / len(written), shared / len(answer)
    return 2 * precision * recall / (precision + recall)


def translation(
    written: Sequence[str], references: Sequence[str], target: str
) -> tuple[dict[str, float], str]:
    """Corpus BLEU and chrF as fractions, and their signatures.

    Args:
        written: what the model wrote.
        references: one reference for each.
        target: code of the language; its tokenisation is sacrebleu's for that language.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(trg_lang=target), CHRF()
    # Rounding may put a perfect score a bit above 100.
    scores = {
        "bleu": min(1.0, bleu.corpus_score(written, [references]).score / 100),
        "chrf": min(1.0, chrf.corpus_score(written, [references]).score / 100),
    }
    return scores, f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}"
