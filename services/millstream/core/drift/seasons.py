"""Seasonality: the reference of a column by hour and weekday."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Floats, Rows

HOUR_MS: Final = 3_600_000
HOURS: Final = 168
_MONDAY: Final = 72  # 1970-01-01 was a Thursday
_STRENGTH: Final = 50.0


def hour_of_week(times_ms: Rows) -> Rows:
    """Return the hour of the week (UTC) of event times, 0 for Monday 00:00 to 167.

    Examples
    --------
    >>> hour_of_week(np.array([0]))
    array([72])
    """
    return (times_ms // HOUR_MS + _MONDAY) % HOURS


def seasonal_shares(counts: NDArray[Any]) -> Floats:
    """Return what share of events to expect in each bin at each hour of the week.

    An hour seen in few weeks is noisy, so each is drawn towards what its hour of the day and its weekday foretell
    together (their shares multiplied, as in a log-linear model without interaction), as if 50 such events had been seen
    as well; and hours and weekdays are drawn towards the whole in the same way (Dirichlet priors).

    Parameters
    ----------
    counts : ndarray of shape (168, ..., b)
        Events seen at each hour of the week.

    Returns
    -------
    float64 ndarray of shape (168, ..., b)
        Over b they sum to 1 (to 0 if nothing at all was seen).
    """
    week = counts.reshape(7, 24, *counts.shape[1:]).astype(np.float64)
    whole = week.sum(axis=(0, 1))
    overall = whole / np.maximum(whole.sum(axis=-1, keepdims=True), 1.0)
    hour, weekday = _drawn(week.sum(axis=0), overall), _drawn(week.sum(axis=1), overall)
    both = hour[None] * weekday[:, None] / np.where(overall > 0, overall, 1.0)
    both /= np.maximum(both.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(_drawn(week, both).reshape(counts.shape))


def _drawn(counts: Floats, towards: Floats) -> Floats:
    return np.asarray((counts + _STRENGTH * towards) / (counts.sum(axis=-1, keepdims=True) + _STRENGTH))
