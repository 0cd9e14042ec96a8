"""How good a model is likely to be before labels arrive, by its own calibrated scores.

If p is the chance of a positive, an event called positive is a true positive with chance p and a false one with 1 - p;
summed over events, that is the expected confusion matrix, and metrics follow. It holds under covariate shift and not
under concept drift: where it and the realised figure part, what scores mean has changed.

References
----------
.. [1] NannyML, "Confidence-based performance estimation (CBPE)", documentation; Bialek, Kuberski, Perrakis, Bifet
       (2024), "Estimating model performance under covariate shift without labels".
.. [2] Hanley, McNeil (1982), "The meaning and use of the area under a ROC curve", Radiology 143: as the chance that a
       positive scores higher than a negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from millstream.core.drift.detector import Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected figures of one batch of events; NaN where undefined.

    Parameters
    ----------
    events : int
    true_positives, false_positives, false_negatives, true_negatives : float
        Expected counts.
    positives_std : float
        Standard deviation of the number of positives, if events are independent.
    precision, recall, f1, accuracy, auc, brier : float, in [0, 1]
        Ratios of expected counts.
    """

    events: int
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float
    positives_std: float
    precision: float
    recall: float
    f1: float
    accuracy: float
    auc: float
    brier: float


def estimate(scores: Floats, probabilities: Floats, threshold: float) -> Estimate:
    """Estimate performance from calibrated scores [1]_.

    With labels (0 or 1) for ``probabilities`` it gives the realised figures, but for ``brier``.

    Parameters
    ----------
    scores : float64 ndarray of shape (n,)
        As served; what is called positive, and the order for ``auc``.
    probabilities : float64 ndarray of shape (n,), in [0, 1]
        Calibrated.
    threshold : float
        Events scored so or higher are called positive.
    """
    called = scores >= threshold
    positives, called_count = float(probabilities.sum()), int(called.sum())
    hits = float(probabilities[called].sum())
    alarms, misses = called_count - hits, positives - hits
    rest = len(scores) - called_count - misses
    spread = probabilities * (1.0 - probabilities)
    squared = (scores - probabilities) ** 2 + spread
    return Estimate(
        events=len(scores),
        true_positives=hits,
        false_positives=alarms,
        false_negatives=misses,
        true_negatives=rest,
        positives_std=math.sqrt(float(spread.sum())),
        precision=_ratio(hits, called_count),
        recall=_ratio(hits, positives),
        f1=_ratio(2 * hits, called_count + positives),
        accuracy=_ratio(hits + rest, len(scores)),
        auc=expected_auc(scores, probabilities),
        brier=float(squared.mean()) if len(scores) else math.nan,
    )


def expected_auc(scores: Floats, probabilities: Floats) -> float:
    """Return the expected share of (positive, negative) pairs in the right order [2]_, ties counting half."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    positive = np.bincount(group, probabilities[order])
    negative = np.bincount(group, 1.0 - probabilities[order])
    below = np.cumsum(negative) - negative
    return _ratio(float((positive * (below + negative / 2)).sum()), float(positive.sum() * negative.sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
