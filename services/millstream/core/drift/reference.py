"""Drift-free history, by slot: what the windowed monitors' thresholds are calibrated on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.budget import DAY_MS, AlarmRates, Budget, Level, achieved_rate, calibrate_series
from millstream.core.drift.null_distribution import NullDistribution
from millstream.core.drift.plan import Plan
from millstream.core.drift.seasons import HOURS, hour_of_week, seasonal_shares
from millstream.core.drift.slot_counts import Binning, Counts, count_slots
from millstream.core.drift.windowed import events_over_time, scaled, statistics_over_time


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What statistics are compared with.

    Parameters
    ----------
    scaled : float64 ndarray of shape (m,)
        Of each monitor, times events: see `millstream.core.drift.windowed.thresholds_at`.
    level : Level
        What they come from.
    """

    scaled: Floats
    level: Level


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


def expected_from_other_half(reference: Reference) -> Floats:
    """Return what to expect in each slot, going by the half of the weeks it is not in, float64 of shape (t, c, b).

    Days to come lie apart from the reference. Windows compared with a profile made of themselves, or of days so near
    that they resemble each other, would look more usual than those will.
    """
    counts, hours = reference.counts, reference.hours()
    slots_per_week = 7 * reference.slots_per_day
    second = np.arange(len(counts)) >= max(1, len(counts) // slots_per_week // 2) * slots_per_week
    expected = np.empty(counts.shape)
    events = counts.sum(axis=-1, keepdims=True)
    for half in (second, ~second):
        other = np.zeros((HOURS, *counts.shape[1:]), dtype=np.int64)
        np.add.at(other, hours[~half], counts[~half])
        expected[half] = events[half] * seasonal_shares(other)[hours[half]]
    return expected


def calibrate(
    reference: Reference,
    binning: Binning,
    budget: Budget,
    *,
    block_days: int = 7,
    years: float = 2.0,
    seed: int = 0,
) -> Thresholds:
    """Return thresholds for `Plan.monitors` under which incidents open no more often than the budget allows.

    Raises
    ------
    ValueError
        If there are fewer than two weeks of history, or a monitor never had enough events.
    """
    if reference.days < 14:
        raise ValueError(f"{reference.days} whole days of reference are too few to calibrate on: give 14 or more")
    expected, plan, per_day = expected_from_other_half(reference), reference.plan, reference.slots_per_day

    def over(days: Rows, floors: bool) -> Floats:
        slots = (days[:, None] * per_day + np.arange(per_day)).ravel()
        counts = reference.counts[slots]
        found = statistics_over_time(counts, expected[slots], binning.bins, plan)
        return scaled(found, events_over_time(counts, plan), plan, floors)

    lengths = np.array([each / DAY_MS for each in plan.windows_ms])
    noise = np.repeat([each.noise for each in plan.scales], len(binning.columns))
    own = over(np.arange(reference.days), False)
    law = NullDistribution.fit(own.reshape(len(own), len(lengths), -1), reference.days / lengths, noise)
    level = calibrate_series(
        lambda days: law.surprise(over(days, True)),
        reference.days,
        per_day,
        budget,
        block_days=block_days,
        years=years,
        seed=seed,
    )
    return Thresholds(law.scaled_at(level.surprise), level)


def held_out(reference: Reference, binning: Binning, budget: Budget) -> AlarmRates | None:
    """Return how often incidents open in the last weeks of a history, by thresholds and shares of those before.

    Both are recomputed on the whole history: it measures the method on this traffic. None where the history is too
    short, less than four weeks.

    Parameters
    ----------
    binning : Binning
        Its shares are not used.
    """
    cut = reference.days * 2 // 3 // 7 * 7
    if cut < 14 or reference.days - cut < 7:
        return None
    at = cut * reference.slots_per_day
    first = Reference(reference.counts[:at], reference.first_slot, reference.plan)
    rest = Reference(reference.counts[at:], reference.first_slot + at, reference.plan)
    seen = np.zeros(binning.shares.shape, dtype=np.int64)
    np.add.at(seen, first.hours(), first.counts)
    known = replace(binning, shares=seasonal_shares(seen))
    return held_out_rate(rest, known, calibrate(first, known, budget, years=1.0).scaled, budget)


def held_out_rate(held_out: Reference, binning: Binning, thresholds: Floats, budget: Budget) -> AlarmRates:
    """Return how often incidents opened on history that the profile and thresholds have not seen.

    Parameters
    ----------
    thresholds : float64 ndarray of shape (m,)
        `Thresholds.scaled`.
    """
    found = scaled_over_time(held_out, binning)
    return achieved_rate(found, thresholds, held_out.slots_per_day, budget.quiet_slots)


def scaled_over_time(history: Reference, binning: Binning) -> Floats:
    """Return the scaled statistics at the end of each slot of a history, shape (t, m)."""
    events = events_over_time(history.counts, history.plan)
    return scaled(readings_over_time(history, binning), events, history.plan)


def readings_over_time(history: Reference, binning: Binning) -> Floats:
    """Return the statistics at the end of each slot of a history, shape (t, m)."""
    expected = history.counts.sum(axis=-1, keepdims=True) * binning.shares[history.hours()]
    return statistics_over_time(history.counts, expected, binning.bins, history.plan)
