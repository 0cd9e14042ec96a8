"""Thresholds from a false-alarm budget: the rate of false incidents is declared, the thresholds follow.

Drift-free history is resampled in blocks of whole days, each put where a day of the same weekday belongs, so that the
rhythm of day and week and what goes on within a block stay as they were (a seasonal block bootstrap [1]_). On every
resampled history all monitors run together. Each statistic is put on one common scale, its *surprise*: minus the
logarithm of its p-value (see `millstream.core.drift.null_distribution`). One level of surprise is then chosen so
that an *incident*, some monitor above the level after a quiet period, opens as often as the budget allows (as maxT does
with correlated tests [2]_). A p-value falls by e where surprise grows by 1, so budgets rarer than the history can show
are extrapolated
along an exponential tail whose mean excess [3]_ is known to be 1; a longer one that was seen is believed.

References
----------
.. [1] Dudek, Leskow, Paparoditis, Politis (2014), "A generalized block bootstrap for seasonal time series", Journal of
       Time Series Analysis 35; Kunsch (1989), Annals of Statistics 17.
.. [2] Westfall, Young (1993), "Resampling-Based Multiple Testing", Wiley.
.. [3] Coles (2001), "An Introduction to Statistical Modeling of Extreme Values", Springer, chapters 4 and 5: excesses
       over a high threshold, and clusters of them separated by runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from millstream.core.batch import Floats, Rows

DAY_MS: Final = 86_400_000
_SURE: Final = 20  # alarms that must have been seen on resampled history for their rate to be read off it
_SEEN: Final = 5  # and so many in the history itself: resampling repeats its extremes, and knows none beyond


@dataclass(frozen=True, slots=True)
class Budget:
    """How often a false alarm may open, e.g. ``Budget(1, 7)`` for once a week.

    Parameters
    ----------
    alarms : float, > 0
        Incidents that open although nothing has changed.
    days : float, > 0
        In so many days.
    quiet_slots : int, >= 1
        Crossings closer than this are one incident; see `millstream.core.drift.incidents`.
    """

    alarms: float = 1.0
    days: float = 7.0
    quiet_slots: int = 24

    @property
    def per_day(self) -> float:
        return self.alarms / self.days

    def share(self, part: float) -> Budget:
        """Return a part, in (0, 1], of this budget: for one kind of incident among several."""
        return Budget(self.alarms * part, self.days, self.quiet_slots)


@dataclass(frozen=True, slots=True)
class Level:
    """The threshold of surprise.

    Parameters
    ----------
    surprise : float
        The common level.
    resampled_days : float
        How much resampled history it was read off.
    extrapolated : bool
        Whether the budget is rarer than what was seen on it.
    """

    surprise: float
    resampled_days: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class AlarmRates:
    """How often alarms opened on history without drift.

    Parameters
    ----------
    alarms : int
        How many did.
    days : float
        In so many days.
    low_per_day, high_per_day : float
        95 % interval of the rate (exact for a Poisson process: Garwood 1936).
    """

    alarms: int
    days: float
    low_per_day: float
    high_per_day: float


def resampled_days(days: int, length: int, block_days: int, rng: np.random.Generator) -> Rows:
    """Return which day of history stands for each day of a resampled one, int64 of shape (length,).

    Day d is replaced by one a whole number of weeks away, and the days of a block follow each other as they did.

    Parameters
    ----------
    days : int, >= 7
        Days of history.
    length : int
        Days wanted.
    block_days : int, in [1, days - 6]
        Length of a block.

    Raises
    ------
    ValueError
        If there is less than a week of history, or no block of that length for some weekday.
    """
    if days < 7 or not 1 <= block_days <= days - 6:
        raise ValueError(
            f"{days} days of history are too few for blocks of {block_days}: give {block_days + 6} or more"
        )
    chosen = np.empty(length + block_days, dtype=np.int64)
    for day in range(0, length, block_days):
        weekday = day % 7
        choices = (days - block_days - weekday) // 7 + 1
        chosen[day : day + block_days] = weekday + 7 * rng.integers(choices) + np.arange(block_days)
    return chosen[:length]


def openings(statistics: Floats, thresholds: Floats, quiet_slots: int) -> Rows:
    """Return the slots at which an incident opens: some monitor is above its threshold, and none was for a while.

    Parameters
    ----------
    statistics : float64 ndarray of shape (t, m)
        NaN is below any threshold.
    thresholds : float64 ndarray of shape (m,)
    quiet_slots : int
        Slots without a crossing that end an incident.
    """
    crossed = np.flatnonzero((statistics > thresholds).any(axis=1))
    fresh = np.diff(crossed, prepend=-quiet_slots - 1) > quiet_slots
    return crossed[fresh]


def calibrate_series(
    series: Callable[[Rows], Floats],
    days: int,
    slots_per_day: int,
    budget: Budget,
    *,
    block_days: int = 7,
    years: float = 2.0,
    seed: int = 0,
) -> Level:
    """Choose the level at which incidents open as often as the budget allows while nothing changes.

    Parameters
    ----------
    series : callable
        From the days of a resampled history (int64 of shape (d,), as in `resampled_days`) to the surprise of all m
        monitors at the end of each slot, float64 of shape (d * slots_per_day, m), NaN where there is none.
    days : int
        Days of history.
    slots_per_day : int
    budget : Budget
    block_days : int
        Length of the blocks. It should reach as far as events depend on each other, e.g. through features over a week;
        blocks of a day take such wandering for drift. Longer ones make fewer different histories.
    years : float
        How much history to resample.
    seed : int
        The same seed gives the same level.

    Raises
    ------
    ValueError
        If there are too few days (see `resampled_days`), or no monitor ever had anything to say.
    """
    rng = np.random.default_rng(seed)
    stretch = 91
    runs = max(1, math.ceil(years * 365 / stretch))
    worst = [
        np.fmax.reduce(series(resampled_days(days, stretch, block_days, rng)), axis=1, initial=-np.inf)
        for _ in range(runs)
    ]
    spoken = sum(int(np.isfinite(each).sum()) for each in worst) / slots_per_day
    if not spoken:
        raise ValueError("monitors had no statistic on the reference: it is too short or too thin for them")
    least = max(_SURE, _SEEN * spoken / days)
    level, extrapolated = _level(worst, budget.per_day * spoken, least, budget.quiet_slots)
    return Level(level, spoken, extrapolated)


def _level(worst: list[Floats], allowed: float, least: float, quiet_slots: int) -> tuple[float, bool]:
    """Return the lowest level above which the runs open ``allowed`` incidents at most, and whether it is extrapolated.

    Fewer than ``least`` are not read off the runs.
    """

    def opened(level: float) -> int:
        return sum(len(openings(each[:, None], np.array([level]), quiet_slots)) for each in worst)

    # From the top down: far enough down, incidents run into one another and their number falls again.
    ranked = np.sort(np.concatenate(worst))[::-1]
    ranked = ranked[np.isfinite(ranked)]
    wanted = max(allowed, least)
    fine, coarse = 0, 1
    while coarse < len(ranked) and opened(ranked[coarse]) <= wanted:
        fine, coarse = coarse, coarse * 2
    coarse = min(coarse, len(ranked) - 1)
    while coarse - fine > 1:
        middle = (fine + coarse) // 2
        fine, coarse = (middle, coarse) if opened(ranked[middle]) <= wanted else (fine, middle)
    level = float(ranked[fine])
    if allowed >= least:
        return level, False
    peaks = np.concatenate([_peaks(each, level, quiet_slots) for each in worst])
    mean_excess = float(peaks.mean() - level) if len(peaks) else 0.0
    # Where fewer than allowed were seen although nothing is lower, e.g. of what is all alike, the level is low enough.
    return level + max(1.0, mean_excess) * max(0.0, math.log(max(len(peaks), 1) / allowed)), True


def _peaks(worst: Floats, level: float, quiet_slots: int) -> Floats:
    """Return the highest value of each incident."""
    starts = openings(worst[:, None], np.array([level]), quiet_slots)
    return np.maximum.reduceat(worst, starts) if len(starts) else np.zeros(0)


def achieved_rate(statistics: Floats, thresholds: Floats, slots_per_day: int, quiet_slots: int) -> AlarmRates:
    """Return how often alarms opened on history without drift.

    Parameters
    ----------
    statistics : float64 ndarray of shape (t, m)
    thresholds : float64 ndarray of shape (m,)
    """
    from scipy.special import gammaincinv  # type: ignore[import-untyped]

    alarms = len(openings(statistics, thresholds, quiet_slots))
    days = int((~np.isnan(statistics)).any(axis=1).sum()) / slots_per_day
    low = float(gammaincinv(alarms, 0.025)) if alarms else 0.0
    high = float(gammaincinv(alarms + 1, 0.975))
    return AlarmRates(alarms, days, low / max(days, 1e-9), high / max(days, 1e-9))
