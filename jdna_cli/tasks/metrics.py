"""Metrics by name, through scikit-learn and SciPy. Higher is better for each of them."""

from __future__ import annotations

import math
import warnings
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
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def score(names: Sequence[str], labels: Values, predictions: Values) -> dict[str, float]:
    """Each metric of `names` over the same examples."""
    return {name: METRICS[name](labels, predictions) for name in names}
