"""The online model's scores against their own past: what is told of them, when, and the same after any restart."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from millstream.core.drift.alert import ONLINE, Signal
from millstream.core.drift.budget import Budget
from millstream.core.drift.declared import Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.online_scores import OnlineScores, online_block
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.watch import Watch

WINDOWS_MS = 6 * HOUR_MS, 24 * HOUR_MS
RARELY = Budget(1, 3650)
MONDAY = 24 * 4  # slots since the epoch
PER_HOUR = 60

Change = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]


def watched() -> OnlineScores:
    return OnlineScores(WINDOWS_MS, RARELY, "scored")


@functools.cache
def logits(days: int) -> tuple[NDArray[np.float64], ...]:
    """Return logits by hour, with a rhythm of the day."""
    rng = np.random.default_rng(3)
    return tuple(rng.normal(-4 + math.sin(2 * math.pi * hour / 24), 1.0, PER_HOUR) for hour in range(24 * days))


def nothing(_hour: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores


def told(days: int, change: Change = nothing, restart_every: int = 0) -> list[list[Signal]]:
    """Return what is said at the end of each hour; every so many hours, by another that goes on from its state."""
    watch, found = watched(), []
    for hour, drawn in enumerate(logits(days)):
        scores = change(hour, 1 / (1 + np.exp(-drawn)))
        slot = MONDAY + hour
        if len(scores):
            watch.add(hour % 2, slot, online_block(scores, np.arange(hour * PER_HOUR, (hour + 1) * PER_HOUR)))
        found.append(watch.judge(slot))
        if restart_every and hour % restart_every == 0:
            again = watched()
            again.load(json.loads(json.dumps(watch.to_json())))
            watch = again
    return found


def loud(found: list[list[Signal]]) -> list[int]:
    """Return the hours at which something was above its threshold."""
    return [hour for hour, said in enumerate(found) if any(each.ratio > 1 for each in said)]


def test_nothing_is_said_before_four_weeks_and_nothing_is_above_while_nothing_changes() -> None:
    found = told(44)
    assert not any(found[: 28 * 24 - 1])
    assert all(found[28 * 24 - 1 :])
    assert loud(found) == []


def test_a_learner_that_goes_wrong_is_told_with_its_evidence_until_it_is_right_again() -> None:
    began, ended = 32 * 24, 33 * 24

    def off(hour: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-np.log(scores / (1 - scores)) - 1.5)) if began <= hour < ended else scores

    found = told(36, off)
    hours = loud(found)
    assert began <= hours[0] < began + 12
    assert hours == list(range(hours[0], hours[-1] + 1))
    assert ended <= hours[-1] < ended + 24
    first = max(found[hours[0]], key=lambda each: each.ratio)
    assert (first.kind, first.model, first.model_version, first.feature) == ("score", ONLINE, 0, "score")
    assert first.evidence.to_ms == (MONDAY + hours[0] + 1) * HOUR_MS
    assert {partition for partition, _, _ in first.evidence.offsets} == {0, 1}
    assert max(last for _, _, last in first.evidence.offsets) == (hours[0] + 1) * PER_HOUR - 1
    assert "40,320 events from 1970-01-05 to 1970-02-02" in first.reference


def test_falling_silent_is_a_change_and_being_absent_is_none() -> None:
    began = 30 * 24
    silent = loud(told(31, lambda hour, scores: np.full(len(scores), math.nan) if hour >= began else scores))
    assert began <= silent[0] < began + 6
    assert loud(told(70, lambda _hour, scores: np.full(len(scores), math.nan))) == [], "it never said anything"
    absent = told(31, lambda hour, scores: scores[:0] if hour >= began else scores)
    assert loud(absent) == []
    assert absent[-1] == [], "windows without events say nothing"


def test_scores_that_stay_where_they_went_become_the_past() -> None:
    began = 30 * 24
    hours = loud(told(100, lambda hour, scores: scores / (scores + 5 * (1 - scores)) if hour >= began else scores))
    assert began <= hours[0] < began + 24
    assert hours == list(range(hours[0], hours[-1] + 1)), "it is told as long as it is no past to go by"
    assert began + 28 * 24 <= hours[-1] < began + 56 * 24


@pytest.mark.parametrize("restart_every", [5, 24, 24 * 11])
def test_a_restart_at_any_moment_changes_nothing(restart_every: int) -> None:
    def off(hour: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return scores / (scores + 5 * (1 - scores)) if hour >= 33 * 24 else scores

    found = told(44, off, restart_every)
    assert loud(found)
    assert found == told(44, off)


def test_too_few_events_for_thresholds_is_silence() -> None:
    watch = watched()
    for hour in range(24 * 30):
        watch.add(0, MONDAY + hour, online_block(np.array([0.1]), np.array([hour])))
        assert watch.judge(MONDAY + hour) == []


def test_a_watch_goes_on_from_a_snapshot_that_an_earlier_version_made() -> None:
    watch = Watch("m", lambda _version: None, 1, Monitors(), "scored", Policy())
    raw = watch.to_json()
    del raw["online"]
    again = Watch("m", lambda _version: None, 1, Monitors(), "scored", Policy())
    again.load(json.loads(json.dumps(raw)))
    assert again.to_json() == watch.to_json()


def test_the_state_of_other_windows_is_refused() -> None:
    other = OnlineScores((24 * HOUR_MS * 30,), RARELY, "scored")
    with pytest.raises(ValueError, match="shape"):
        watched().load(other.to_json())
