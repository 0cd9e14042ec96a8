"""The null distribution of windowed statistics: from a distance and a number of events to a p-value.

Times the number of events n, a squared distance is about a weighted sum of chi-squares (PSI, Jensen-Shannon and
chi-square are one statistic to first order; Kolmogorov-Smirnov has such a tail as well). It is taken for a multiple of
a chi-square whose mean and variance are the history's, as Satterthwaite [1]_ does; mean over degrees of freedom is the
design effect of events that are not independent [2]_. Since that mean is itself of few windows, what is to come follows
an F distribution, whose tail is the longer the fewer there were.

Thresholds so made depend on how many events a window has: at night, when there are few, more scatter is nothing new.

References
----------
.. [1] Satterthwaite (1946), "An approximate distribution of estimates of variance components", Biometrics Bulletin 2.
.. [2] Rao, Scott (1981), "The analysis of categorical data from complex sample surveys", J. Am. Stat. Assoc. 76.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from millstream.core.batch import Floats

_ENOUGH: Final = 20  # windows from which a variance is estimated
_MOST_FREEDOM: Final = 40.0


class Scale(NamedTuple):
    """How a distance scales.

    Parameters
    ----------
    power : int
        ``events * distance**power`` scatters alike whatever the number of events.
    noise : float
        The least mean of that: of independent events and one degree of freedom. Columns that follow from the hour have
        next to none of their own.
    floor : float
        Distances up to this are no cause for alarm, however sure one is of them: half of what a shift by a tenth of a
        standard deviation makes, or less.
    """

    power: int
    noise: float
    floor: float


SCALES: Final[Mapping[str, Scale]] = {
    "psi": Scale(1, 1.0, 0.002),
    "chi_square": Scale(1, 1.0, 0.002),
    "ks": Scale(2, 0.3, 0.01),
    "jensen_shannon": Scale(2, 0.18, 0.02),
}


@dataclass(frozen=True, slots=True)
class NullDistribution:
    """The distribution of scaled statistics while nothing changes.

    Parameters
    ----------
    mean, freedom, windows : float64 ndarray of shape (m,)
        Mean (infinite for one without values); degrees of freedom; how many windows that do not overlap there are.
    """

    mean: Floats
    freedom: Floats
    windows: Floats

    @staticmethod
    def fit(scaled: Floats, windows: Floats, noise: Floats) -> NullDistribution:
        """Fit to a history.

        Parameters
        ----------
        scaled : float64 ndarray of shape (t, w, k)
            By slot, length of window (the shortest first) and kind of monitor; NaN where there is none.
        windows : float64 ndarray of shape (w,)
            How many windows of each length the history has.
        noise : float64 ndarray of shape (k,)
            See `Scale`.

        A monitor that never had anything to say, as that of a small segment in a short window, never will.
        """
        silent = np.isnan(scaled).all(axis=0)
        scaled = np.where(silent, 1.0, scaled)
        mean, variance = np.nanmean(scaled, axis=0), np.nanvar(scaled, axis=0)
        freedom = np.clip(2 * mean**2 / np.maximum(variance, np.finfo(np.float64).tiny), 1.0, _MOST_FREEDOM)
        for i in range(1, len(windows)):
            if windows[i] < _ENOUGH:
                freedom[i] = freedom[i - 1]
        many = np.broadcast_to(windows[:, None], mean.shape)
        mean = np.where(silent, np.inf, np.maximum(mean, noise))
        return NullDistribution(mean.ravel(), freedom.ravel(), np.maximum(many, 1.0).ravel())

    def surprise(self, scaled: Floats) -> Floats:
        """Return minus the logarithm of the p-value, shape (t, m); NaN stays."""
        from scipy.special import fdtrc  # type: ignore[import-untyped]

        p = fdtrc(self.freedom, self.freedom * self.windows, scaled / self.mean)
        return np.asarray(-np.log(np.maximum(p, 1e-300)))

    def scaled_at(self, surprise: float) -> Floats:
        """Return the scaled statistic of each monitor that is so surprising, shape (m,)."""
        from scipy.special import fdtri

        # The inverse loses its digits near 1; so small a p-value is reached by halving instead.
        p = np.exp(-surprise)
        if p > 1e-9:
            return np.asarray(self.mean * fdtri(self.freedom, self.freedom * self.windows, 1 - p))
        silent = np.isinf(self.mean)
        low = np.where(silent, 1.0, self.mean)
        high = low * 1e6
        for _ in range(80):
            middle = np.sqrt(low * high)
            below = self.surprise(middle) < surprise
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(np.where(silent, np.inf, high))
