"""The evaluation itself: streams as published, figures as defined; and what detectors must make of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.drift import PageHinkley

from millstream.core.drift.evidence_sums import cusum_alarms
from millstream_lab.detectors.cost import measure
from millstream_lab.detectors.detector import Cusum, detect
from millstream_lab.detectors.drift_streams import BLANK, circles, learn_and_predict, sine1, two_levels
from millstream_lab.detectors.evaluation import (
    CONTENDERS,
    VALUE_CONTENDERS,
    DetectorCandidate,
    detections,
    fed,
    judge,
    least_cautious,
    levels_table,
    table,
)
from millstream_lab.detectors.windowed_psi import WindowedPsi


def test_sine1_turns_round_at_each_drift_and_a_tenth_of_labels_is_wrong() -> None:
    stream = sine1(1)
    below = stream.features[:, 1] <= np.sin(stream.features[:, 0])
    wrong = [float((stream.labels != below)[start : start + 19_000].mean()) for start in range(1000, 100_000, 20_000)]
    assert wrong == pytest.approx([0.1, 0.9, 0.1, 0.9, 0.1], abs=0.01)
    assert stream.drifts == (20_000, 40_000, 60_000, 80_000)


def test_circles_moves_on_slowly() -> None:
    stream = circles(1)
    x, y = stream.features.T
    second = np.hypot(x - 0.4, y - 0.5) <= 0.2
    assert (stream.labels != second)[26_000:49_000].mean() == pytest.approx(0.1, abs=0.01)
    changing = (stream.labels != second)[25_000:25_500].mean()
    assert 0.11 < changing < 0.2
    assert stream.drifts == (25_000, 50_000, 75_000)


def test_the_two_levels() -> None:
    values = two_levels(3)
    assert set(values[:1000]) == {0, 1}
    assert set(values[1000:]) == {4, 5, 6, 7}


rows = st.lists(st.integers(0, 99), max_size=8, unique=True).map(sorted)


@given(rows, st.lists(st.sampled_from([10, 40, 80]), unique=True).map(sorted), st.integers(1, 30))
def test_changes_are_found_once_or_missed_and_the_rest_is_false(
    found: list[int], drifts: list[int], within: int
) -> None:
    delays, missed, false = judge(found, drifts, within)
    hits = [[row - drift for row in found if drift <= row < drift + within] for drift in drifts]
    assert delays == [each[0] for each in hits if each]
    assert missed == sum(not each for each in hits)
    assert false == len(found) - len(delays)


def test_the_loop_is_that_of_one_event_at_a_time() -> None:
    stream, setting = sine1(5, length=6000, every=2000), 100.0
    contender = next(each for each in CONTENDERS if each.name == "HDDM-W")
    detector, state, want = contender.make(setting), np.zeros(BLANK), []
    for row in range(6000):
        chance = np.empty(1)
        learn_and_predict(state, stream.features[row : row + 1], stream.labels[row : row + 1], chance)
        detector.update(float(fed(stream, chance, slice(row, row + 1), contender.feed)[0]))
        if detector.drift_detected:
            want.append(row)
            state = np.zeros(BLANK)
    assert detections(stream, contender, setting) == want
    assert judge(want, stream.drifts, stream.within)[1] == 0


def test_at_one_rate_each_detector_keeps_to_it_and_finds_what_changes_at_once() -> None:
    some = [each for each in CONTENDERS if each.name in {"risk-adjusted CUSUM", "HDDM-W"}]
    outcomes = table(
        lambda seed: sine1(seed, 20_000, 5_000), lambda seed: sine1(seed, 20_000, 10**9), some, 20_000.0, 2
    )
    assert [(o.detector, o.calibrated) for o in outcomes] == [
        ("risk-adjusted CUSUM", True),
        ("HDDM-W", False),
        ("HDDM-W", True),
    ]
    for outcome in outcomes:
        assert (outcome.drifts, outcome.missed) == (6, 0), outcome
        assert outcome.false <= 8, outcome
        assert outcome.median_delay < 100, outcome


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0, 8.0]), st.integers(0, 300))
def test_a_cusum_starts_again_after_each_alarm(seed: int, threshold: float, length: int) -> None:
    column, total, want = np.random.default_rng(seed).normal(0.1, 1.0, length), 0.0, []
    for row, x in enumerate(column.tolist()):
        total = max(0.0, total + x)
        if total > threshold:
            want.append(row)
            total = 0.0
    assert cusum_alarms(column, threshold) == want
    assert list(detect(Cusum(threshold, 0.0, two_sided=False), column)) == want
    assert set(detect(Cusum(threshold, 0.0), -column)) >= set(want[:1])


def test_a_streaming_detector_is_set_to_the_rate_wanted() -> None:
    rng = np.random.default_rng(5)
    columns = [rng.normal(size=10_000) for _ in range(4)]

    def drifts(threshold: float) -> int:
        return sum(len(list(detect(Cusum(threshold), each))) for each in columns)

    threshold = least_cautious(drifts, 0.5, 500.0, 20, 15)
    assert 15 <= drifts(threshold) <= 20
    fresh = sum(len(list(detect(Cusum(threshold), rng.normal(size=10_000)))) for _ in range(8))
    assert 15 <= fresh <= 75


def test_two_levels_are_found_by_psi_and_by_page_hinkley() -> None:
    for contender, latest in (
        (DetectorCandidate("psi", lambda h: WindowedPsi(h, 200, 10), 0.25, 0.1, 10.0), 1100),
        (DetectorCandidate("ph", lambda h: PageHinkley(threshold=h), 50.0, 1.0, 100.0), 1020),
    ):
        assert contender.default is not None
        assert 1000 <= next(detect(contender.make(contender.default), two_levels(1))) < latest


def test_at_one_rate_two_levels_are_found_by_all() -> None:
    outcomes = levels_table(VALUE_CONTENDERS[:-1], 20_000.0, 2)
    assert [(each.detector, each.calibrated) for each in outcomes] == [
        ("CUSUM of standardised values", True),
        ("Page-Hinkley", False),
        ("Page-Hinkley", True),
        ("windowed PSI", False),
        ("windowed PSI", True),
    ]
    for outcome in outcomes:
        assert (outcome.drifts, outcome.missed) == (2, 0), outcome
    assert outcomes[0].median_delay < 10 < outcomes[-1].median_delay


def test_the_cost_is_events_by_the_given_clock() -> None:
    ticks: Iterator[float] = iter([10.0, 14.0])
    cost = measure(lambda: next(ticks), events=2000, batch=1000, features=3, models=2, events_per_day=4800)
    assert (cost.events, cost.seconds, cost.events_per_s) == (2000, 4.0, 500.0)
    assert cost.readings == 2 * 14
