"""Metrics of scores on known labels: ranking, calibration and daily precision.

References
----------
.. [1] Le Borgne, Siblini, Lebichot, Bontempi (2022), "Reproducible Machine Learning for Credit Card Fraud Detection:
       Practical Handbook", chapter 4, section "Precision top-k metrics" (``card_precision_top_k``).
.. [2] Davis, Goadrich (2006), "The relationship between precision-recall and ROC curves", ICML.
.. [3] Brier (1950), "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Mask

Floats = NDArray[np.float64]

DAY_MS = 86_400_000
_EPSILON = 1e-15


@dataclass(frozen=True, slots=True)
class DailyPrecision:
    """Precision among the k highest-scored groups of one day.

    Parameters
    ----------
    day : int
        Days since 1970-01-01 UTC.
    precision : float
        Share of the k that are compromised, in [0, 1]; a day of fewer than k groups still divides by k [1]_.
    compromised : int
        Groups of that day that were compromised and not detected before.
    """

    day: int
    precision: float
    compromised: int


def auc(labels: Mask, scores: Floats) -> float:
    """Return the area under the ROC curve, in [0, 1]; NaN unless both classes are present.

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
        True is positive.
    scores : float64 ndarray of shape (n,)
        Higher is more likely positive; finite.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _both_classes(labels) else float("nan")


def average_precision(labels: Mask, scores: Floats) -> float:
    """Return the average precision (step-wise area under precision-recall [2]_), in [0, 1]; NaN unless both classes
    are present.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _both_classes(labels) else float("nan")


def log_loss(labels: Mask, scores: Floats) -> float:
    """Return the mean negative log-likelihood in nats, >= 0, of scores in [0, 1]; NaN on no rows.

    Scores are kept 1e-15 away from 0 and 1.

    Examples
    --------
    >>> round(log_loss(np.array([True, False]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    if not len(labels):
        return float("nan")
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels, np.log(clipped), np.log1p(-clipped))))


def brier(labels: Mask, scores: Floats) -> float:
    """Return the mean squared difference between score and outcome [3]_, in [0, 1]; NaN on no rows.

    Examples
    --------
    >>> brier(np.array([True, False]), np.array([0.5, 0.0]))
    0.125
    """
    return float(np.mean((scores - labels) ** 2)) if len(labels) else float("nan")


def card_precision_top_k(
    labels: Mask, scores: Floats, groups: Array, times_ms: NDArray[np.int64], k: int
) -> list[DailyPrecision]:
    """Return, per day with events, the precision among the k most suspicious groups ("cards") [1]_.

    A group's score on a day is its highest, and it is compromised if any of its events that day is positive. Groups
    that were detected (compromised and among the k) are removed from the days that follow: their card is blocked.

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
        True is positive.
    scores : float64 ndarray of shape (n,)
        Higher is more suspicious; finite.
    groups : ndarray of shape (n,)
        What an investigator blocks: card, customer, account. Of equal scores the smaller group goes first.
    times_ms : int64 ndarray of shape (n,)
        Event times, milliseconds since the epoch; days are UTC.
    k : int
        Groups examined per day, >= 1.

    Raises
    ------
    ValueError
        If k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    _, codes = np.unique(groups, return_inverse=True)
    days = times_ms // DAY_MS
    blocked = np.zeros(int(codes.max()) + 1 if len(codes) else 0, dtype=np.bool_)
    daily = []
    for day in np.unique(days).tolist():
        rows = np.flatnonzero((days == day) & ~blocked[codes])
        present, position = np.unique(codes[rows], return_inverse=True)
        highest = np.full(len(present), -np.inf)
        np.maximum.at(highest, position, scores[rows])
        compromised = np.zeros(len(present), dtype=np.bool_)
        np.logical_or.at(compromised, position, labels[rows])
        top = np.argsort(-highest, kind="stable")[:k]
        detected = top[compromised[top]]
        blocked[present[detected]] = True
        daily.append(DailyPrecision(day, len(detected) / k, int(compromised.sum())))
    return daily


def best_f1_threshold(labels: Mask, scores: Floats) -> float:
    """Return the score at and above which calling positive gives the highest F1; NaN without a positive."""
    if not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # only between distinct scores can one cut
    hits = np.cumsum(labels[order])[last]
    called = np.flatnonzero(last) + 1
    f1 = 2 * hits / (called + int(labels.sum()))
    return float(ranked[last][np.argmax(f1)])


def evaluate(
    labels: Mask, scores: Floats, groups: Array, times_ms: NDArray[np.int64], k: int = 100
) -> dict[str, float]:
    """Return every metric that is defined on these rows, by name.

    Names: ``auc``, ``average_precision``, ``log_loss``, ``brier``, ``card_precision_at_{k}`` (mean over days).
    """
    daily = card_precision_top_k(labels, scores, groups, times_ms, k)
    found = {
        "auc": auc(labels, scores),
        "average_precision": average_precision(labels, scores),
        "log_loss": log_loss(labels, scores),
        "brier": brier(labels, scores),
        f"card_precision_at_{k}": float(np.mean([day.precision for day in daily])) if daily else float("nan"),
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _both_classes(labels: Mask) -> bool:
    return bool(labels.any()) and not bool(labels.all())
