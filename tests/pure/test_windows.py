"""The window store against brute force, and its edges to the millisecond."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given

from millstream.core.declaration import KeyType
from millstream.core.windows.store import DUPLICATE, LATE, WindowStore
from window_oracle import OK, Oracle
from window_streams import (
    EXAMPLES,
    Event,
    feed,
    online,
    streams,
    two_views,
    view,
)


def same(got: Sequence[float], want: Sequence[float], names: Sequence[str]) -> None:
    for found, expected, name in zip(got, want, names, strict=True):
        if "std" in name or "var" in name:
            assert found == pytest.approx(expected, rel=1e-9, abs=0.0, nan_ok=True), name
        else:
            assert found == expected or (math.isnan(found) and math.isnan(expected)), (name, found, expected)


@pytest.mark.parametrize("key_type", ["int64", "string"])
@pytest.mark.parametrize("lateness_ms", [0, 20])
def test_every_function_equals_brute_force(key_type: KeyType, lateness_ms: int) -> None:
    @EXAMPLES
    @given(streams(key_type))
    def check(events: list[Event]) -> None:
        views = two_views(key_type, lateness_ms)
        oracle, store = Oracle(views), WindowStore(views)
        updated = feed(store, events, cuts=[7])
        for i, event in enumerate(events):
            status, features, stamp = oracle.update(*event)
            assert updated.status[i] == status, (i, event)
            assert updated.feature_time_us[i] == stamp
            if status == OK:
                same(updated.features[i].tolist(), features, store.features)
            else:
                assert np.isnan(updated.features[i]).all()
        keys, newest, stamps = store.online(store.all_slots())
        for key, row, stamp in zip(keys.tolist(), newest.reals.tolist(), stamps.tolist(), strict=True):
            same(row, oracle.features(key, int(oracle.newest(key))), store.features)
            assert stamp == oracle.stamps[key]

    check()


@pytest.mark.parametrize(("newest", "status"), [(44, DUPLICATE), (45, LATE)])
def test_a_repeat_of_what_has_left_the_retention_is_late(newest: int, status: int) -> None:
    store = WindowStore(two_views(lateness_ms=20))  # the longest window is 25
    feed(store, [Event(1, 0, 1, (1.0, 1.0)), Event(2, newest, 3, (1.0, 1.0)), Event(1, newest, 2, (1.0, 1.0))])
    assert feed(store, [Event(1, 0, 1, (1.0, 1.0))]).status.tolist() == [status]


@pytest.mark.parametrize(
    ("age_ms", "count"), [(0, 2.0), (9, 2.0), (10, 1.0), (11, 1.0)], ids=["now", "inside", "edge", "outside"]
)
def test_a_window_excludes_its_far_edge_to_the_millisecond(age_ms: int, count: float) -> None:
    store = WindowStore((view("v", [("count", "x", 10)], 100, "int64"),))
    rows = np.array([[1.0], [1.0]])
    got = store.update(np.array([7, 7]), np.array([1000 - age_ms, 1000]), np.array([1, 2]), rows)
    assert got.features[1, 0] == count


@pytest.mark.parametrize("late_ms", [10, 11, 9, 25, 24, 26])
def test_an_event_put_in_at_a_far_edge_counts_from_the_right_side(late_ms: int) -> None:
    views = two_views(lateness_ms=30)
    store, oracle = WindowStore(views), Oracle(views)
    for i, t in enumerate([60, 95, 100, 100 - late_ms, 101, 80, 110]):
        event = Event(1, t, i, (0.1 * i, float(i)))
        _, features, _ = oracle.update(*event)
        same(feed(store, [event]).features[0].tolist(), features, store.features)
        _, newest, _ = store.online(store.all_slots())
        same(newest.reals[0].tolist(), oracle.features(1, int(oracle.newest(1))), store.features)


@pytest.mark.parametrize(("lag_ms", "status"), [(20, OK), (21, LATE)])
def test_lateness_is_to_the_millisecond_and_changes_nothing(lag_ms: int, status: int) -> None:
    store = WindowStore(two_views(lateness_ms=20))
    feed(store, [Event(1, 1000, 1, (1.0, 1.0))])
    before = online(store)
    assert feed(store, [Event(1, 1000 - lag_ms, 2, (1.0, 1.0))]).status.tolist() == [status]
    assert (online(store) == before) == (status == LATE)


def test_of_equal_times_the_last_to_arrive_is_last() -> None:
    store = WindowStore((view("v", [("last", "x", 10), ("first", "x", 10)], 100, "int64"),))
    ids, values = np.array([30, 10, 20, -5]), np.array([[1.0], [2.0], [3.0], [math.nan]])
    got = store.update(np.full(4, 7), np.full(4, 50), ids, values)
    assert got.features.tolist() == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [3.0, 1.0]]  # a null is skipped
    store.update(np.full(1, 7), np.full(1, 60), np.array([1]), np.array([[9.0]]))
    behind = store.update(np.full(1, 7), np.full(1, 50), np.array([-9]), np.array([[4.0]]))  # after its equals, late
    assert behind.features.tolist() == [[4.0, 1.0]]
    restored = WindowStore((view("v", [("last", "x", 10), ("first", "x", 10)], 100, "int64"),))
    restored.load_rows([(k, v) for k, v in store.dirty_rows() if v is not None])
    behind = restored.update(np.full(1, 7), np.full(1, 50), np.array([8]), np.array([[5.0]]))
    assert behind.features.tolist() == [[5.0, 1.0]]


@pytest.mark.parametrize("t", [2**52 + 1, -(2**52) - 1, 2**63 - 1, -(2**63)])
def test_a_time_that_cannot_be_is_late(t: int) -> None:
    store = WindowStore(two_views())
    assert feed(store, [Event(1, t, 1, (1.0, 1.0)), Event(1, 5, 2, (1.0, 1.0))]).status.tolist() == [LATE, OK]
    assert store.stream_time_ms == 5


def test_touched_are_the_keys_of_the_last_batch_that_changed() -> None:
    store = WindowStore(two_views())
    feed(store, [Event(k, 100, k, (1.0, 1.0)) for k in (1, 2, 3)])
    feed(
        store,
        [
            Event(2, 101, 9, (1.0, 1.0)),
            Event(2, 102, 10, (1.0, 1.0)),
            Event(3, 100, 9, (1.0, 1.0)),
            Event(4, 1, 8, (1.0, 1.0)),
        ],
    )
    keys, _, stamps = store.online(store.touched())
    assert keys.tolist() == [2]
    assert stamps.tolist() == [102_000]
    assert sorted(store.online(store.all_slots())[0].tolist()) == [1, 2, 3]
    feed(store, [])
    assert len(store.touched()) == 0


def test_unrepresentable_values_are_refused_whole() -> None:
    store = WindowStore(two_views())
    with pytest.raises(ValueError, match="2\\*\\*90"):
        feed(store, [Event(1, 1, 1, (1.0, 1.0)), Event(1, 2, 2, (2.0**90, 1.0))])
    assert store.entries == 0


def test_a_window_of_nulls_sums_to_zero_and_has_no_mean() -> None:
    store = WindowStore((view("v", [("count", "x", 10), ("sum", "x", 10), ("mean", "x", 10)], 0, "int64"),))
    got = store.update(np.array([1]), np.array([5]), np.array([1]), np.array([[math.nan]]))
    assert got.features[0, :2].tolist() == [0.0, 0.0]
    assert math.isnan(got.features[0, 2])


@pytest.mark.parametrize(
    ("keys", "times", "ids", "shape"), [(2, 3, 3, (3, 2)), (3, 3, 1, (3, 2)), (3, 3, 3, (1, 2)), (3, 3, 3, (3, 4))]
)
def test_columns_that_do_not_fit_are_refused_whole(keys: int, times: int, ids: int, shape: tuple[int, int]) -> None:
    store = WindowStore(two_views())
    with pytest.raises(ValueError, match="expected 3 keys"):
        store.update(np.arange(keys), np.arange(times), np.arange(ids), np.ones(shape))
    assert store.entries == 0
