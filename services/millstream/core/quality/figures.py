"""Quality figures of a cohort with confidence intervals and bounds for missing labels.

References
----------
.. [1] Hanley, McNeil (1982), "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
   Radiology 143(1).
.. [2] Boyd, Eng, Page (2013), "Area under the precision-recall curve: point estimates and confidence intervals",
   ECML PKDD, section 3 (logit interval).
.. [3] Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
.. [4] Manski (1989), "Anatomy of the selection problem", Journal of Human Resources 24(3): bounds that assume nothing
   of the outcomes that are missing.
.. [5] Naeini, Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning", AAAI:
   expected calibration error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from millstream.core.batch import Rows
from millstream.core.quality.cohort import ONE, Cohort
from millstream.core.quality.part import Part

Z: Final = 1.959963984540054
"""Normal quantile of two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric on some examples.

    Parameters
    ----------
    value, lower, upper : float
        NaN where not defined. The interval is 95 %: of sampling, and, for shares, of the missing labels too.
    resolution : float
        How far the value is, at most, from that of the scores as served, which are counted in cells
        (`millstream.core.quality.score_cells`) or rounded to multiples of 2**-40; 0 is exact.
    """

    value: float
    lower: float = math.nan
    upper: float = math.nan
    resolution: float = 0.0


ROUNDING: Final = 2.0**-41
"""How far a mean of values is at most that are each rounded to a multiple of 2**-40."""


METRICS: Final = (
    *("log_loss", "brier", "auc", "average_precision", "precision", "recall", "f1", "selection_rate", "base_rate"),
    *("calibration_error", "auc_resolution"),
)
"""Names of the metrics, besides ``card_precision_at_{k}``."""


def figures(part: Part, k: int = 100) -> dict[str, Figure]:
    """Return every metric by name, `METRICS` and ``card_precision_at_{k}``; NaN where it is not defined.

    ``precision``, ``recall`` and ``f1`` are at the decision as served; ``selection_rate`` is the share called positive,
    ``calibration_error`` the ECE [5]_; ``auc_resolution`` is the resolution of ``auc``, as a metric of its own. Card
    precision is the mean over days, each on its own.

    Parameters
    ----------
    part : Part
        No count of it negative. Where it counts predictions, the intervals of shares hold whatever the missing labels
        turn out to be [4]_, and on top of that for sampling [3]_; elsewhere, and for the other metrics [1]_ [2]_, they
        hold if labelled and unlabelled events are alike.
    """
    cohort, predicted = part.cohort, part.predicted
    names = (*METRICS, f"card_precision_at_{k}")
    if cohort.examples <= 0:
        return dict.fromkeys(names, Figure(math.nan))
    _, positives, false_alarms, hits = cohort.counts
    called = hits + false_alarms
    open_called, open_uncalled = 0, 0
    if predicted is not None:
        open_called = max(0, predicted.called - called)
        open_uncalled = max(0, predicted.uncalled - (cohort.examples - called))
    everybody, selected = cohort.examples + open_called + open_uncalled, called + open_called
    missed = positives - hits
    cards = part.card_days * k
    found = (
        _mean(cohort, 0),
        _mean(cohort, 1),
        _auc(cohort),
        _average_precision(cohort),
        _share(hits, called, hits, hits + open_called, selected),
        _recall(hits, missed, open_called, open_uncalled),
        _f1(hits, missed, false_alarms, open_called, open_uncalled),
        _share(selected, everybody, selected, selected, everybody),
        _share(positives, cohort.examples, positives, positives + open_called + open_uncalled, everybody),
        Figure(calibration_error(cohort), resolution=ROUNDING),
        Figure(_auc_resolution(cohort)),
        replace(
            _share(part.detected, cards, part.detected, part.detected, cards),
            resolution=part.undecided / cards if cards else 0.0,
        ),
    )
    return {name: Figure(math.nan) if math.isnan(each.value) else each for name, each in zip(names, found, strict=True)}


def calibration_error(cohort: Cohort) -> float:
    """Return the expected calibration error over `millstream.core.quality.cohort.BINS` bins, in [0, 1]."""
    gaps = [abs(scores / ONE - positives) for n, positives, scores in cohort.bins if n]
    return math.fsum(gaps) / cohort.examples


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share [3]_; (0, 1) without trials.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n <= 0:
        return 0.0, 1.0
    share, spread = hits / n, Z * Z / n
    middle = share + spread / 2
    reach = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Where the share is 0 or 1 so is an end, which rounding must not move.
    lower = (middle - reach) / (1 + spread) if hits else 0.0
    return max(0.0, lower), min(1.0, (middle + reach) / (1 + spread)) if hits < n else 1.0


def _share(hits: int, n: int, fewest: int, most: int, of: int) -> Figure:
    """Return hits / n, which among ``of`` once all is known will be between fewest and most."""
    value = hits / n if n else math.nan
    return Figure(value, wilson(fewest, of)[0], wilson(most, of)[1])


def _recall(hits: int, missed: int, open_called: int, open_uncalled: int) -> Figure:
    value = hits / (hits + missed) if hits + missed else math.nan
    lower = wilson(hits, hits + missed + open_uncalled)[0]
    return Figure(value, lower, wilson(hits + open_called, hits + open_called + missed)[1])


def _f1(hits: int, missed: int, false_alarms: int, open_called: int, open_uncalled: int) -> Figure:
    def f1(tp: int, wrong: int) -> float:
        return 2 * tp / (2 * tp + wrong) if tp + wrong else math.nan

    # Not a share, so these are the bounds of what is missing alone.
    wrong = missed + false_alarms
    return Figure(f1(hits, wrong), f1(hits, wrong + open_called + open_uncalled), f1(hits + open_called, wrong))


def _mean(cohort: Cohort, which: int) -> Figure:
    mean, variance = cohort.mean(which)
    reach = Z * math.sqrt(variance / cohort.examples)
    return Figure(mean, max(0.0, mean - reach), mean + reach, ROUNDING)


def _pairs(cohort: Cohort) -> tuple[int, int]:
    """Return pairs of a positive and a negative where the positive's cell is higher, and those of one cell."""
    negatives, positives = cohort.ranking.counts[:, 0], cohort.ranking.counts[:, 1]
    below = np.cumsum(negatives) - negatives
    return int(positives @ below), int(positives @ negatives)  # exact up to 2**63 pairs


def _auc(cohort: Cohort) -> Figure:
    negatives, positives = cohort.counts[:2]
    if not (negatives and positives):
        return Figure(math.nan)
    above, tied = _pairs(cohort)
    auc = (2 * above + tied) / (2 * negatives * positives)
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    reach = Z * math.sqrt(max(0.0, variance) / (negatives * positives))
    return Figure(auc, max(0.0, auc - reach), min(1.0, auc + reach), tied / (2 * negatives * positives))


def _auc_resolution(cohort: Cohort) -> float:
    negatives, positives = cohort.counts[:2]
    return _pairs(cohort)[1] / (2 * negatives * positives) if negatives and positives else math.nan


def _average_precision(cohort: Cohort) -> Figure:
    negatives, positives = cohort.counts[:2]
    if not (negatives and positives):
        return Figure(math.nan)
    counts = cohort.ranking.counts[::-1]
    hits = np.cumsum(counts[:, 1])
    called = np.cumsum(counts.sum(axis=1))
    value = min(1.0, math.fsum((counts[:, 1] * (hits / called)).tolist()) / positives)
    resolution = _average_precision_resolution(counts, hits, called) / positives
    if value >= 1:
        return Figure(value, wilson(positives, positives)[0], 1.0, resolution)
    centre, reach = math.log(value / (1 - value)), Z / math.sqrt(positives * value * (1 - value))
    return Figure(value, _logistic(centre - reach), _logistic(centre + reach), resolution)


def _average_precision_resolution(counts: Rows, hits: Rows, called: Rows) -> float:
    """Return how far at most the sum of precisions over positives is from that of scores that are no ties in cells.

    Let H of C examples in higher cells be positive, and p positives and q negatives be in a cell. The j-th of those
    positives has, wherever it is among them, ties included, a precision of at least (H + j) / (C + q + j), all q being
    before it, and at most (H + p) / (C + p), none being. The former is concave in j: its sum over j is no less than p
    times the mean of its ends.

    Parameters
    ----------
    counts : int64 ndarray of shape (m, 2)
        Negatives and positives by cell, the highest score first.
    hits, called : int64 ndarray of shape (m,)
        Positives and examples in this cell and in those before it.
    """
    there = counts[:, 1] > 0
    negatives, positives = counts[there, 0], counts[there, 1]
    last, above = hits[there] / called[there], hits[there] / (called[there] - negatives)
    first = (hits[there] - positives + 1) / (called[there] - positives + 1)
    over, under = positives * (above - last), positives * (last - first) / 2
    return max(math.fsum(over.tolist()), math.fsum(under.tolist()))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
