"""Thresholds keep the budget on seasonal, bursty traffic, and still see a shift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millstream.core.drift.budget import (
    Budget,
    calibrate_series,
    openings,
    resampled_days,
)
from millstream.core.drift.null_distribution import NullDistribution
from millstream.core.drift.plan import Plan
from millstream.core.drift.reference import Reference, calibrate, held_out_rate, scaled_over_time
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.slot_counts import Binning
from millstream.core.profile import profile

PLAN = Plan(windows_ms=(24 * HOUR_MS, 168 * HOUR_MS))
COLUMNS = 3


def _traffic(
    seed: int, days: int, first_day: int = 0, shift: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """About 2,400 events a day; volume and level follow day and week by a standard deviation; bursts by the hour."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 24) + first_day * 24
    day = np.sin(2 * np.pi * hours / 24)
    weekend = (hours // 24) % 7 >= 5
    volume = 100 * (1 + 0.7 * day) * np.where(weekend, 0.5, 1.2) * rng.gamma(4, 0.25, len(hours))
    rows = np.repeat(np.arange(len(hours)), rng.poisson(volume))
    level = 0.7 * day + np.where(weekend, 0.7, 0.0)
    values = rng.normal(size=(len(rows), COLUMNS)) + level[rows, None]
    values[:, 0] += shift
    return values, hours[rows] * HOUR_MS


@pytest.fixture(scope="module")
def trained() -> tuple[Reference, Binning]:
    values, times_ms = _traffic(1, 56)
    profiles = {f"x{i}": profile(values[:, i], times_ms=times_ms) for i in range(COLUMNS)}
    binning = Binning.of(profiles)
    return Reference.of(values, times_ms, binning, PLAN), binning


def _history(trained: tuple[Reference, Binning], seed: int, days: int, shift: float = 0.0) -> Reference:
    values, times_ms = _traffic(seed, days, 56, shift)
    return Reference.of(values, times_ms, trained[1], PLAN)


def test_seasons_and_bursts_keep_to_the_budget_and_shifts_are_seen(trained: tuple[Reference, Binning]) -> None:
    reference, binning = trained
    budget = Budget(1, 14)
    thresholds = calibrate(reference, binning, budget)
    achieved = held_out_rate(_history(trained, 2, 365), binning, thresholds.scaled, budget)
    assert achieved.days > 360
    assert achieved.low_per_day <= 1.5 * budget.per_day
    assert achieved.alarms <= 1.5 * budget.per_day * achieved.days
    for shift, most_hours in ((0.1, 168), (0.25, 36), (0.5, 24)):
        found = scaled_over_time(_history(trained, 3, 14, shift), binning)
        crossed = np.flatnonzero((found > thresholds.scaled).any(axis=1))
        assert len(crossed), shift
        assert crossed[0] <= most_hours, shift
        names = [PLAN.monitors(binning.columns)[i][0] for i in np.flatnonzero(found[crossed[0]] > thresholds.scaled)]
        assert set(names) == {"x0"}, shift


def test_a_reference_blind_to_the_hour_would_not_do(trained: tuple[Reference, Binning]) -> None:
    """What the seasonal comparison is for: the same thresholds against the all-week distribution alarm every day."""
    reference, binning = trained
    thresholds = calibrate(reference, binning, Budget(1, 14))
    overall = np.broadcast_to(binning.shares.mean(axis=0), binning.shares.shape)
    blind = Binning(binning.columns, binning.edges, binning.bins, overall)
    assert (scaled_over_time(_history(trained, 2, 28), blind) > thresholds.scaled).any(axis=1).mean() > 0.5


def test_a_rarer_budget_means_higher_thresholds(trained: tuple[Reference, Binning]) -> None:
    found = [calibrate(*trained, Budget(1, days)) for days in (7, 28, 365)]
    levels = [each.level.surprise for each in found]
    assert levels == sorted(set(levels))
    assert [each.level.extrapolated for each in found] == [False, True, True]
    assert (found[0].scaled < found[2].scaled).all()
    assert calibrate(*trained, Budget(4, 28).share(0.25)).level == found[1].level


def test_too_short_a_reference_is_refused(trained: tuple[Reference, Binning]) -> None:
    reference, binning = trained
    with pytest.raises(ValueError, match="14 or more"):
        calibrate(Reference(reference.counts[: 13 * 24], 0, PLAN), binning, Budget())
    with pytest.raises(ValueError, match="no statistic"):
        calibrate_series(lambda days: np.full((len(days), 1), np.nan), 28, 1, Budget())
    with pytest.raises(ValueError, match="blocks of 9"):
        resampled_days(14, 7, 9, np.random.default_rng(0))


@given(st.integers(7, 60), st.integers(1, 40), st.data())
def test_resampled_days_keep_weekdays_and_blocks(days: int, length: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(1, days - 6))
    chosen = resampled_days(days, length, block, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert len(chosen) == length
    assert ((chosen >= 0) & (chosen < days)).all()
    assert (chosen % 7 == np.arange(length) % 7).all()
    inside = np.arange(1, length) % block != 0
    assert (np.diff(chosen)[inside] == 1).all()


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_an_opening_is_a_crossing_after_quiet(crossed: list[bool], quiet: int) -> None:
    want = [i for i, now in enumerate(crossed) if now and not any(crossed[max(0, i - quiet) : i])]
    found = openings(np.array(crossed, dtype=np.float64).reshape(-1, 1), np.array([0.5]), quiet)
    assert found.tolist() == want


def test_rare_budgets_are_kept_on_years_without_drift() -> None:
    budget, alarms, days = Budget(1, 60), 0, 0.0  # rarer than eight weeks of reference can show
    for seed in range(100, 104):
        values, times_ms = _traffic(seed, 56)
        binning = Binning.of({f"x{i}": profile(values[:, i], times_ms=times_ms) for i in range(COLUMNS)})
        reference = Reference.of(values, times_ms, binning, PLAN)
        thresholds = calibrate(reference, binning, budget)
        assert thresholds.level.extrapolated
        values, times_ms = _traffic(seed + 100, 365, 56)
        held_out = Reference.of(values, times_ms, binning, PLAN)
        achieved = held_out_rate(held_out, binning, thresholds.scaled, budget)
        alarms, days = alarms + achieved.alarms, days + achieved.days
    assert 0.3 * budget.per_day * days < alarms < 1.5 * budget.per_day * days


def test_a_surprise_is_minus_the_logarithm_of_how_often_it_is_exceeded() -> None:
    rng = np.random.default_rng(6)
    law = NullDistribution.fit(rng.chisquare(9, (400, 1, 1)) * 3, np.array([400.0]), np.array([1.0]))
    fresh = law.surprise(3 * rng.chisquare(9, (200_000, 1)))
    for surprise in (2.0, 5.0, 8.0):
        assert (fresh > surprise).mean() == pytest.approx(math.exp(-surprise), rel=0.35)
    few = NullDistribution(law.mean, law.freedom, np.array([3.0]))
    for surprise in (1.0, 5.0, 12.0, 30.0):
        for each in (law, few):
            assert each.surprise(each.scaled_at(surprise)[None])[0, 0] == pytest.approx(surprise, rel=1e-3)
        assert few.scaled_at(surprise)[0] > law.scaled_at(surprise)[0]
