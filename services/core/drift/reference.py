"""Drift-free history, by slot: what the windowed monitors' thresholds are calibrated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.core.batch import Rows
from services.core.drift.budget import DAY_MS, Achieved, Budget, Thresholds, achieved_rate, calibrate_series
from services.core.drift.detector import Floats
from services.core.drift.seasons import HOURS, hour_of_week, seasonal_shares
from services.core.drift.slot_counts import Binning, Counts, count_slots
from services.core.drift.windowed import Plan, statistics_over_time


@dataclass(frozen=True, slots=True)
class Reference:
    """Counts of whole days.

    Parameters
    ----------
    counts : int64 ndarray of shape (t, c, b)
        By slot; t is a whole number of days.
    first_slot : int
        Slots since the epoch; begins a day (UTC).
    plan : Plan
    """

    counts: Counts
    first_slot: int
    plan: Plan

    @staticmethod
    def of(values: Floats, times_ms: Rows, binning: Binning, plan: Plan) -> Reference:
        """Count a history; parts of days at its ends are left out.

        Parameters
        ----------
        values : float64 ndarray of shape (n, c)
            In the order of the binning's columns.
        times_ms : int64 ndarray of shape (n,)
            In any order.
        """
        counts, first = count_slots(values, times_ms, binning.edges, plan.slot_ms)
        per_day = DAY_MS // plan.slot_ms
        skip = -first % per_day
        whole = (len(counts) - skip + 1) // per_day * per_day
        padded = np.concatenate([counts[skip:], np.zeros_like(counts[:1])])[:whole]
        return Reference(padded, first + skip, plan)

    @property
    def slots_per_day(self) -> int:
        return DAY_MS // self.plan.slot_ms

    @property
    def days(self) -> int:
        return len(self.counts) // self.slots_per_day

    def hours(self) -> Rows:
        """Return the hour of the week of each slot, shape (t,)."""
        return hour_of_week((self.first_slot + np.arange(len(self.counts))) * self.plan.slot_ms)


def expected_without_own_week(reference: Reference) -> Floats:
    """Return what to expect in each slot, going by all other weeks, float64 of shape (t, c, b).

    With its own week among them, a window would look more usual than a future one will.
    """
    counts, hours = reference.counts, reference.hours()
    weeks = np.arange(len(counts)) // (7 * reference.slots_per_day)
    total = np.zeros((HOURS, *counts.shape[1:]), dtype=np.int64)
    np.add.at(total, hours, counts)
    expected = np.empty(counts.shape)
    events = counts.sum(axis=-1, keepdims=True)
    for week in range(int(weeks.max()) + 1):
        rows = np.flatnonzero(weeks == week)
        own = np.zeros_like(total)
        np.add.at(own, hours[rows], counts[rows])
        expected[rows] = events[rows] * seasonal_shares(total - own)[hours[rows]]
    return expected


def calibrate(
    reference: Reference,
    binning: Binning,
    budget: Budget,
    *,
    block_days: int = 1,
    years: float = 2.0,
    seed: int = 0,
) -> Thresholds:
    """Return thresholds for `Plan.monitors` under which incidents open no more often than the budget says.

    Raises
    ------
    ValueError
        If there are fewer than two weeks of history, or a monitor never had enough events.
    """
    if reference.days < 14:
        raise ValueError(f"{reference.days} whole days of reference are too few to calibrate on: give 14 or more")
    expected = expected_without_own_week(reference)
    per_day = reference.slots_per_day

    def series(days: Rows) -> Floats:
        slots = (days[:, None] * per_day + np.arange(per_day)).ravel()
        return statistics_over_time(reference.counts[slots], expected[slots], binning.bins, reference.plan)

    return calibrate_series(series, reference.days, per_day, budget, block_days=block_days, years=years, seed=seed)


def held_out_rate(held_out: Reference, binning: Binning, thresholds: Thresholds, budget: Budget) -> Achieved:
    """Return how often incidents opened on history that the profile and thresholds have not seen."""
    found = readings_over_time(held_out, binning)
    return achieved_rate(found, thresholds.values, held_out.slots_per_day, budget.quiet_slots)


def readings_over_time(history: Reference, binning: Binning) -> Floats:
    """Return the statistics at the end of each slot of a history, shape (t, m)."""
    expected = history.counts.sum(axis=-1, keepdims=True) * binning.shares[history.hours()]
    return statistics_over_time(history.counts, expected, binning.bins, history.plan)
