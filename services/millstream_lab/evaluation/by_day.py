"""Metrics by day of event time: how each contender did on each day, and over all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Mask
from millstream.core.metrics import DAY_MS, auc, average_precision, card_precision_top_k, log_loss

Floats = NDArray[np.float64]


def by_day(
    labels: Mask, scores: Floats, groups: Array, times_ms: NDArray[np.int64], k: int = 100
) -> dict[int, dict[str, float]]:
    """Return the metrics of each day with events, by days since 1970-01-01 UTC, rising.

    Names: ``auc``, ``average_precision``, ``log_loss``, ``card_precision_at_{k}``; each day's investigation is its own:
    a card detected on an earlier one is not left out. What is not defined on a day is left out.

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
    scores : float64 ndarray of shape (n,)
        In [0, 1].
    groups : ndarray of shape (n,)
    times_ms : int64 ndarray of shape (n,)
    """
    days = times_ms // DAY_MS
    found = {}
    for day in np.unique(days).tolist():
        rows = np.flatnonzero(days == day)
        found[day] = _figures(labels[rows], scores[rows], groups[rows], times_ms[rows], k)
    return found


def overall(labels: Mask, scores: Floats, daily: Mapping[int, Mapping[str, float]], k: int = 100) -> dict[str, float]:
    """Return the metrics over all events; of the precision, the mean over days."""
    name = f"card_precision_at_{k}"
    found = {
        "auc": auc(labels, scores),
        "average_precision": average_precision(labels, scores),
        "log_loss": log_loss(labels, scores),
        name: float(np.mean([each[name] for each in daily.values()])) if daily else float("nan"),
    }
    return {each: value for each, value in found.items() if not np.isnan(value)}


def _figures(labels: Mask, scores: Floats, groups: Array, times_ms: NDArray[np.int64], k: int) -> dict[str, float]:
    (precision,) = card_precision_top_k(labels, scores, groups, times_ms, k)
    found = {
        "auc": auc(labels, scores),
        "average_precision": average_precision(labels, scores),
        "log_loss": log_loss(labels, scores),
        f"card_precision_at_{k}": precision.precision,
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}
