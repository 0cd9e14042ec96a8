"""Distances, slots and windows against brute force; seasons that are no shift."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from millstream.core.drift import distance
from millstream.core.drift.declared import Monitors
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.partition_counts import Counting, Events, PartitionCounts
from millstream.core.drift.plan import Plan
from millstream.core.drift.reference import Reference, readings_over_time
from millstream.core.drift.seasons import HOUR_MS, hour_of_week, seasonal_shares
from millstream.core.drift.slot_counts import ABSENT, Binning
from millstream.core.drift.slot_summary import Summary
from millstream.core.drift.windowed import Reading, Windows
from millstream.core.profile import FeatureProfile, profile

counts = st.lists(st.integers(0, 50), min_size=2, max_size=6)


@given(counts, counts, st.integers(0, 3))
def test_distances_are_their_definitions(one: list[int], two: list[int], padding: int) -> None:
    n = min(len(one), len(two))
    one, two = one[:n], two[:n]
    p = [(x + 0.5) / (sum(one) + n / 2) for x in one]
    q = [(x + 0.5) / (sum(two) + n / 2) for x in two]
    pairs = list(zip(p, q, strict=True))
    divergence = sum(a * math.log2(2 * a / (a + b)) + b * math.log2(2 * b / (a + b)) for a, b in pairs) / 2
    want = {
        "psi": sum((a - b) * math.log(a / b) for a, b in pairs),
        "jensen_shannon": math.sqrt(max(divergence, 0.0)),
        "ks": max(abs(sum(p[: i + 1]) - sum(q[: i + 1])) for i in range(n)),
        "chi_square": sum((a - b) ** 2 / b for a, b in pairs),
    }
    padded = np.array([[*one, *[0] * padding]]), np.array([[*two, *[0] * padding]])
    for name, each in distance.DISTANCES.items():
        assert each(*padded, np.array([n])) == pytest.approx([want[name]], abs=1e-7), name


def test_p_values_are_those_of_scipy() -> None:
    from scipy import stats

    observed, expected = np.array([520, 480, 300, 700]), np.array([500.0, 500.0, 330.0, 670.0])
    found = distance.chi_square(observed, expected * 1e6, 4)
    want = stats.chisquare(observed, expected)
    assert distance.chi_square_p_value(found, np.array(2000.0), 4) == pytest.approx(want.pvalue, rel=0.05)
    assert distance.chi_square_p_value(found, np.array(2000.0), 4, 2.0) == pytest.approx(
        stats.chi2.sf(want.statistic / 2, 3), rel=0.05
    )
    assert distance.ks_p_value(np.array(0.04), np.array(1000.0)) == pytest.approx(
        stats.kstwobign.sf(0.04 * math.sqrt(1000))
    )


def test_the_design_effect_is_how_much_more_counts_vary_than_those_of_independent_events() -> None:
    rng = np.random.default_rng(1)
    shares = np.full(8, 1 / 8)
    windows = rng.multinomial(500, shares, size=400)
    once = distance.chi_square(windows, np.broadcast_to(shares * 1e9, windows.shape), 8)
    assert distance.design_effect(once, np.full(400, 500.0), 8) == pytest.approx(1.0, abs=0.1)
    bursts = distance.chi_square(windows * 3, np.broadcast_to(shares * 1e9, windows.shape), 8)
    assert distance.design_effect(bursts, np.full(400, 1500.0), 8) == pytest.approx(3.0, abs=0.3)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12))
def test_benjamini_hochberg_is_that_of_scipy(p_values: list[float]) -> None:
    from scipy.stats import false_discovery_control

    given_ = np.array(p_values)
    found = distance.benjamini_hochberg(given_)
    kept = ~np.isnan(given_)
    np.testing.assert_allclose(found[kept], false_discovery_control(given_[kept]) if kept.any() else [])
    assert np.isnan(found[~kept]).all()


def test_an_hour_seen_often_is_taken_as_it_is_and_one_never_seen_as_its_hour_and_day_foretell() -> None:
    seen = np.zeros((168, 2))
    seen[0] = 100_000, 0
    seen[24] = 0, 100_000
    shares = seasonal_shares(seen)
    assert shares[0] == pytest.approx([1, 0], abs=1e-2)
    assert shares[24] == pytest.approx([0, 1], abs=1e-2)
    assert shares[5] == pytest.approx([1, 0], abs=1e-2)  # as that Monday
    assert shares[24 + 5] == pytest.approx([0, 1], abs=1e-2)  # as that Tuesday
    assert shares[48] == pytest.approx([0.5, 0.5])  # as that hour
    assert shares[48 + 5] == pytest.approx([0.5, 0.5])  # as all there is
    assert shares.sum(axis=1) == pytest.approx(np.ones(168))


def test_hours_and_weekdays_are_put_together_where_little_was_seen() -> None:
    """Log-odds of hour and weekday add up here: nearer the truth than each hour on its own, or the hour of the day."""
    rng = np.random.default_rng(2)
    hour, weekday = rng.normal(0, 1, 24), rng.normal(0, 1, 7)
    truth = 1 / (1 + np.exp(-(hour[None] + weekday[:, None]).ravel()))
    ones = rng.binomial(40, truth)
    shares = seasonal_shares(np.stack([40 - ones, ones], axis=1))
    by_hour = np.tile((ones.reshape(7, 24) / 40).mean(axis=0), 7)
    missed = np.abs(shares[:, 1] - truth).mean()
    assert missed < 0.9 * np.abs(ones / 40 - truth).mean()
    assert missed < 0.5 * np.abs(by_hour - truth).mean()


def test_the_week_begins_on_monday() -> None:
    monday_ms = 1_522_627_200_000  # 2018-04-02T00:00:00Z
    assert hour_of_week(np.array([monday_ms, monday_ms + 25 * HOUR_MS, monday_ms - 1])).tolist() == [0, 25, 167]


def test_a_profile_counts_by_hour_of_the_week_and_survives_json() -> None:
    values, times_ms = np.array([1.0, 2.0, math.nan, 2.0]), np.array([0, 0, HOUR_MS, 168 * HOUR_MS])
    made = profile(values, times_ms=times_ms)
    assert made.seasonal[72] == (0, 1, 2)
    assert made.seasonal[73] == (1, 0, 0)
    assert sum(map(sum, made.seasonal)) == 4
    as_read = {name: getattr(made, name) for name in FeatureProfile.__dataclass_fields__}
    assert FeatureProfile.of_json(as_read | {"seasonal": [list(each) for each in made.seasonal]}) == made
    assert FeatureProfile.of_json({k: v for k, v in as_read.items() if k != "seasonal"}).seasonal == ()


PLAN = Plan(HOUR_MS // 4, (HOUR_MS // 4, HOUR_MS), ("psi", "ks"), 2)
PROFILES = {
    "plain": profile(np.array([0.0, 1.0, 2.0, 3.0, math.nan])),
    "flag": profile(np.array([0.0, 0.0, 1.0]), times_ms=np.array([0, HOUR_MS, 5 * HOUR_MS])),
}
BINNING = Binning.of(PROFILES)


@st.composite
def streams(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], list[int]]:
    steps = draw(st.lists(st.integers(-40, 60), max_size=40))
    times_ms = np.maximum(np.cumsum([0, *steps]) * 60_000, 0) + 10 * HOUR_MS
    cells = st.sampled_from([0.0, 1.0, 1.5, 7.0, math.inf, math.nan])
    values = [[draw(cells), draw(cells)] for _ in times_ms]
    cuts = draw(st.lists(st.integers(0, len(times_ms)), max_size=4))
    return np.array(values), times_ms.astype(np.int64), sorted(cuts)


def _reference() -> ModelReference:
    """Return a reference of these columns, with nothing but what counting needs."""
    made = make_reference(
        ("plain", "flag"),
        np.array([[0.0, 1.0], [math.nan, 2.0]]),
        np.array([0.5, 0.5]),
        np.array([0, 1]),
        np.array([math.nan, math.nan]),
        Monitors(),
        decision=0.5,
        importance={},
    )
    width = BINNING.shares.shape[2]
    return replace(
        made,
        columns=("plain", "flag"),
        edges=tuple(each.edges for each in PROFILES.values()),
        seasonal=np.ones((168, 2, width), dtype=np.int64),
        low=(0.0, 0.0),
        high=(2.0, 1.0),
        levels=(),
        plan=PLAN,
    )


COUNTING = replace(Counting.of(_reference()), binning=BINNING)


def _only(matrix: NDArray[np.float64], _features: tuple[str, ...]) -> NDArray[np.float64]:
    return matrix


def _feed(values: NDArray[np.float64], times_ms: NDArray[np.int64], cuts: list[int]) -> tuple[list[Reading], bytes]:
    counts, start, told = PartitionCounts(0, PLAN.slot_ms), 0, []
    for end in [*cuts, len(values)]:
        part = slice(start, end)
        rows = np.arange(start, end)
        events = Events(
            times_ms[part],
            np.full(end - start, -1),
            times_ms[part],
            rows + 100,
            np.ones(end - start, dtype=np.int64),
            np.full(end - start, 0.5),
            np.full(end - start, ABSENT),
            partial(_only, values[part]),
        )
        told += counts.update(events, {1: COUNTING})
        start, again = end, PartitionCounts(0, PLAN.slot_ms)
        again.restore(counts.snapshot())
        counts = again
    windows, readings = Windows(BINNING, PLAN, 0), []
    for summary in told:
        for (_, slot), block in Summary.decode(summary.encode()).blocks.items():
            windows.add(0, slot, block)
        again_windows = Windows(BINNING, PLAN, 0)
        again_windows.load(json.loads(json.dumps(windows.to_json())))
        windows = again_windows
        assert summary.slot is not None
        closed = readings[-1].end_ms // PLAN.slot_ms if readings else int(times_ms[0]) // PLAN.slot_ms
        readings += [windows.read(slot) for slot in range(closed, summary.slot)]
    return readings, counts.snapshot()


def _same(one: list[Reading], two: list[Reading]) -> bool:
    return (
        len(one) == len(two)
        and all(
            np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "statistics")
            for a, b in zip(one, two, strict=True)
            for name in ("statistics", "from_ms", "events", "null_excess", "outside")
        )
        and [each.offsets for each in one] == [each.offsets for each in two]
    )


def _bin(x: float, each: FeatureProfile) -> int:
    return 0 if math.isnan(x) else 1 + sum(edge < x for edge in each.edges)


def _brute_force(values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> list[Reading]:
    """Return what is in every window as each slot closes, from the events themselves."""
    slots = (times_ms // PLAN.slot_ms).tolist()
    readings, oldest = [], None
    for row, slot in enumerate(slots):
        newest = max(slots[:row], default=slot)
        for end in range(newest, slot):
            found, begins, counts, offsets = [], [], [], []
            oldest = min(slots[:row])
            for length in PLAN.lengths:
                inside = [r for r in range(row) if end - length < slots[r] <= end]
                inside = inside if end - length + 1 >= oldest else []
                for name in PLAN.distances:
                    for c, each in enumerate(PROFILES.values()):
                        width = len(each.edges) + 2
                        seen = Counter(_bin(values[r, c], each) for r in inside)
                        want = sum(
                            (BINNING.shares[int(hour_of_week(times_ms[r])), c, :width] for r in inside),
                            np.zeros(width),
                        )
                        got = np.array([seen[i] for i in range(width)])
                        far = float(distance.DISTANCES[name](got, want, width))
                        found.append(far if len(inside) >= PLAN.least_events else math.nan)
                begins.append((end - length + 1) * PLAN.slot_ms)
                counts.append(len(inside))
                offsets.append(((0, min(inside) + 100, max(inside) + 100),) if inside else ())
            blank = np.zeros((len(PLAN.lengths), 2))
            readings.append(
                Reading(
                    (end + 1) * PLAN.slot_ms,
                    np.array(found),
                    np.array(begins),
                    np.array(counts),
                    np.repeat(np.array(counts)[:, None], 2, axis=1),
                    tuple(offsets),
                    blank,
                    blank,
                    np.zeros((2, 0), dtype=np.int64),
                )
            )
    return readings


@settings(deadline=None)
@given(streams())
def test_readings_are_those_of_a_recount_and_the_same_in_any_batches(
    stream: tuple[NDArray[np.float64], NDArray[np.int64], list[int]],
) -> None:
    values, times_ms, cuts = stream
    readings, end = _feed(values, times_ms, [])
    again, same_end = _feed(values, times_ms, cuts)
    one_by_one, _ = _feed(values, times_ms, list(range(len(values))))
    assert _same(readings, again)
    assert _same(readings, one_by_one)
    assert end == same_end
    recounted = _brute_force(values, times_ms)
    assert [r.end_ms for r in readings] == [r.end_ms for r in recounted]
    for found, want in zip(readings, recounted, strict=True):
        np.testing.assert_allclose(found.statistics, want.statistics, atol=1e-12)
        for name in ("from_ms", "events"):
            assert getattr(found, name).tolist() == getattr(want, name).tolist(), name
        assert found.offsets == want.offsets


def test_live_readings_are_those_thresholds_are_made_for() -> None:
    rng = np.random.default_rng(3)
    times_ms = np.sort(rng.integers(0, 4 * 24 * HOUR_MS, 20_000))
    values = rng.integers(0, 4, (20_000, 2)).astype(np.float64)
    live, _ = _feed(values, times_ms, [77, 5000])
    history = readings_over_time(Reference.of(values, times_ms, BINNING, PLAN), BINNING)
    got = np.array([reading.statistics for reading in live])
    np.testing.assert_allclose(got, history[: len(got)], atol=1e-12)


def test_a_snapshot_of_other_columns_is_refused() -> None:
    other = Windows(Binning.of({"plain": PROFILES["plain"]}), PLAN, 0)
    with pytest.raises(ValueError, match="shape"):
        other.load(Windows(BINNING, PLAN, 0).to_json())


def test_nulls_beyond_the_expected_and_values_never_seen_are_shares_of_the_window() -> None:
    values = np.array([[math.nan, 0.0], [5.0, 0.0], [1.0, 7.0], [1.0, 0.0], [1.0, 1.0]])
    times_ms = np.array([0, 1, 2, 3, PLAN.slot_ms])
    (reading,), _ = _feed(values, times_ms, [])
    expected = BINNING.shares[72, 0, 0]
    assert reading.null_excess[0].tolist() == pytest.approx([1 / 4 - expected, -BINNING.shares[72, 1, 0]])
    assert reading.outside[0].tolist() == [1 / 4, 1 / 4]


@pytest.mark.parametrize(
    "wrong",
    [{"slot_ms": 7}, {"windows_ms": (HOUR_MS + 1,)}, {"windows_ms": ()}, {"distances": ("euclid",)}],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Plan(**wrong)  # type: ignore[arg-type]
