"""Overdispersion of labels given scores: positives come in clusters.

One stolen card or one compromised terminal makes many positives at once, so their number scatters more than independent
labels would, from day to day and week to week, although nothing has changed. Evidence that takes labels for independent
is too sure of itself by that factor, and is divided by it: quasi-likelihood [1]_.

References
----------
.. [1] Wedderburn (1974), "Quasi-likelihood functions, generalized linear models, and the Gauss-Newton method",
       Biometrika 61.
.. [2] Newey, West (1987), "A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
       covariance matrix", Econometrica 55.
.. [3] Jenkins, Watts (1968), "Spectral Analysis and its Applications", table 6.6: degrees of freedom.
.. [4] Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression", Statistical
       Applications in Genetics and Molecular Biology 3: a variance of few degrees of freedom, drawn towards a prior.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from millstream.core.batch import Floats, Mask, Rows
from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.concept import Calibration

_LAGS: Final = 7
_LEAST_WEEKS: Final = 2
_PRIOR: Final = 2.0
_PRIOR_FREEDOM: Final = 10.0


def dispersion(scores: Floats, labels: Mask, times_ms: Rows) -> float:
    """Return the variance of the number of positives over what independent labels would have, at least 1.

    Positives of a day are compared with those expected from the scores by a calibration to the other weeks, so that
    what a calibration is wrong by counts as well; their variance is the long-run one [2]_ over a week of lags. A month
    of days tells it roughly [3]_, so it is drawn towards 2 [4]_, as if that had been found in a month as well.

    Parameters
    ----------
    scores : float64 ndarray of shape (n,)
        Of events the model was not fitted to.
    labels : bool ndarray of shape (n,)
    times_ms : int64 ndarray of shape (n,)
        In any order; n >= 1.
    """
    days = times_ms // DAY_MS - int(times_ms.min()) // DAY_MS
    expected = _by_other_weeks(scores, labels, days // 7)
    if expected is None:
        return _PRIOR
    surplus = np.bincount(days, labels - expected)
    squares = float(surplus @ surplus)
    for lag in range(1, min(_LAGS, len(surplus) - 1) + 1):
        squares += 2 * (1 - lag / (_LAGS + 1)) * float(surplus[lag:] @ surplus[:-lag])
    found, freedom = squares / float((expected * (1 - expected)).sum()), 3 * len(surplus) / (_LAGS + 1)
    return max(1.0, (found * freedom + _PRIOR * _PRIOR_FREEDOM) / (freedom + _PRIOR_FREEDOM))


def _by_other_weeks(scores: Floats, labels: Mask, weeks: Rows) -> Floats | None:
    """Return each event's chance by a calibration to the weeks it is not in; None if they are too few for that."""
    expected = np.empty(len(scores))
    if int(weeks.max()) + 1 < _LEAST_WEEKS:
        return None
    for week in np.unique(weeks).tolist():
        mine = weeks == week
        others = labels[~mine]
        if not others.any() or others.all():
            return None
        expected[mine] = Calibration.fit(scores[~mine], others)(scores[mine])
    return expected
