"""Distances of observed from expected counts, with their significance.

Counts are over the last axis (bins); leading axes are worked on at once. Half an event is added to every bin of both
sides, so that an empty bin costs much and not infinitely much (Jeffreys' prior).

References
----------
.. [1] Siddiqi (2006), "Credit Risk Scorecards", Wiley: population stability index; the symmetric Kullback-Leibler
       divergence of Kullback, Leibler (1951).
.. [2] Endres, Schindelin (2003), "A new metric for probability distributions", IEEE Trans. Information Theory 49(7).
.. [3] Kolmogorov (1933); for binned values its p-value is conservative: Conover (1972), J. Am. Stat. Assoc. 67.
.. [4] Pearson (1900); Rao, Scott (1981), "The analysis of categorical data from complex sample surveys", J. Am. Stat.
       Assoc. 76: dividing by the design effect where events are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Floats

Counts = NDArray[Any]
_HALF: Final = 0.5


def _shares(counts: Counts, bins: Counts | int) -> Floats:
    """Return smoothed shares; positions from ``bins`` on are padding and stay empty."""
    real = np.arange(counts.shape[-1]) < np.asarray(bins)[..., None]
    total = counts.sum(axis=-1, keepdims=True) + _HALF * np.asarray(bins)[..., None]
    shares: Floats = np.where(real, counts + _HALF, 0.0) / total
    return shares


def psi(observed: Counts, expected: Counts, bins: Counts | int) -> Floats:
    """Return the population stability index [1]_, in nats, >= 0.

    Parameters
    ----------
    observed, expected : ndarray of shape (..., b)
        Counts; their totals may differ.
    bins : int or int ndarray of shape (...)
        How many of the b positions are bins; the rest is padding and holds nothing.

    Examples
    --------
    >>> float(psi(np.array([30, 10]), np.array([30, 10]), 2))
    0.0
    """
    p, q = _shares(observed, bins), _shares(expected, bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, (p - q) * np.log(p / q), 0.0)
    return np.asarray(terms.sum(axis=-1))


def jensen_shannon(observed: Counts, expected: Counts, bins: Counts | int) -> Floats:
    """Return the Jensen-Shannon distance [2]_ to base 2, in [0, 1]; parameters as for `psi`."""
    p, q = _shares(observed, bins), _shares(expected, bins)
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log2(p / m) + q * np.log2(q / m), 0.0)
    return np.asarray(np.sqrt(np.maximum(terms.sum(axis=-1) / 2, 0.0)))


def kolmogorov_smirnov(observed: Counts, expected: Counts, bins: Counts | int) -> Floats:
    """Return the greatest difference of cumulative shares over the bins [3]_, in [0, 1]; parameters as for `psi`."""
    return np.asarray(
        np.abs(np.cumsum(_shares(observed, bins), axis=-1) - np.cumsum(_shares(expected, bins), axis=-1)).max(axis=-1)
    )


def chi_square(observed: Counts, expected: Counts, bins: Counts | int) -> Floats:
    """Return Pearson's chi-square per event [4]_, >= 0; times the number of events it is the test statistic."""
    p, q = _shares(observed, bins), _shares(expected, bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, (p - q) ** 2 / q, 0.0)
    return np.asarray(terms.sum(axis=-1))


DISTANCES: Final[Mapping[str, Callable[[Counts, Counts, Counts | int], Floats]]] = {
    "psi": psi,
    "jensen_shannon": jensen_shannon,
    "ks": kolmogorov_smirnov,
    "chi_square": chi_square,
}


def ks_p_value(distance: Floats, events: Floats, design_effect: Floats | float = 1.0) -> Floats:
    """Return Kolmogorov's asymptotic p-value [3]_ of ``distance`` among so many events.

    Parameters
    ----------
    design_effect : float or ndarray, > 0
        Variance of the counts over what independent events would have; ``events / design_effect`` is the effective
        number.
    """
    from scipy.special import kolmogorov  # type: ignore[import-untyped]

    return np.asarray(kolmogorov(np.sqrt(events / np.asarray(design_effect)) * distance))


def chi_square_p_value(
    per_event: Floats, events: Floats, bins: Counts | int, design_effect: Floats | float = 1.0
) -> Floats:
    """Return the p-value of `chi_square` with ``bins - 1`` degrees of freedom, divided by the design effect [4]_."""
    from scipy.special import chdtrc

    return np.asarray(chdtrc(np.asarray(bins) - 1, events * per_event / np.asarray(design_effect)))


def design_effect(per_event: Floats, events: Floats, bins: Counts | int) -> Floats:
    """Return the mean over the first axis of chi-square over its degrees of freedom, at least 1, shape (...).

    From windows in which nothing has changed: 1 where events are independent, more where they come in bursts or from
    few keys [4]_.
    """
    statistic = np.nanmean(per_event * events, axis=0)
    return np.asarray(np.maximum(1.0, statistic / np.maximum(np.asarray(bins) - 1, 1)))


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Return adjusted p-values: those at most q are discoveries of which a share q at most is false, on average.

    Benjamini-Hochberg, not Holm: what is wanted is the list of features that moved, in an incident whose opening is
    already held to the false-alarm budget, so the share of wrong names on the list is what counts. Valid for features
    that rise and fall together as well (Benjamini, Hochberg 1995, J. R. Stat. Soc. B 57; Benjamini, Yekutieli 2001,
    Annals of Statistics 29).

    Parameters
    ----------
    p_values : float64 ndarray of shape (m,)
        NaN is no test, and stays NaN.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.5, 0.02])).tolist()
    [0.03, 0.5, 0.03]
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    scaled = p_values[order] * (len(order) / np.arange(1, len(order) + 1))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted
