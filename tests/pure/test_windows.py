"""The window store against brute force, and what must not show in its results: batches, order, restarts, expiry."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from window_oracle import OK, Oracle

from services.core.declaration import Aggregate, Function, KeyType, View
from services.core.windows import LATE, Updated, WindowStore

FUNCTIONS = get_args(Function)
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Event(NamedTuple):
    key: Any
    t: int
    id: int
    values: tuple[float, float]


def view(name: str, aggregates: Sequence[tuple[Function, str, int]], lateness_ms: int, key_type: KeyType) -> View:
    made = tuple(Aggregate(f"{f}_{c}_{w}", "float64", c, f, w) for f, c, w in aggregates)
    return View(name, "thing", "thing_id", key_type, "events", "at_ms", lateness_ms, made)


def two_views(key_type: KeyType = "int64", lateness_ms: int = 20) -> tuple[View, ...]:
    every: list[tuple[Function, str, int]] = [(f, "x", 10) for f in FUNCTIONS]
    some: list[tuple[Function, str, int]] = [("sum", "y", 25), ("mean", "x", 25), ("count", "x", 1), ("last", "y", 10)]
    return view("every", every, lateness_ms, key_type), view("some", [*some, ("var", "y", 25)], 0, key_type)


NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.1, 1e-30, -3e-40, 5e-324, 1e15, 1e26, -1e26, 0.1 + 0.2, -7.25, math.nan, math.nan]
KEYS: dict[KeyType, list[Any]] = {"int64": [-1, 0, 2], "string": ["", "a/0", "é/1"]}


def busy_stream(seed: int, keys: list[Any]) -> list[Event]:
    """Return a long stream with disorder about the lateness, ties, windows meeting at edges, gaps and repeats."""
    rng = random.Random(seed)
    now, pace, events = 0, rng.choice([0, 1, 3, 8]), list[Event]()
    for i in range(rng.randint(20, 70)):
        now += rng.randint(0, pace) + (rng.randint(0, 120) if rng.random() < 0.04 else 0)
        lag = rng.choice([0, 0, rng.randint(0, 24), rng.choice([1, 5, 9, 10, 11, 20, 21])])
        values = [rng.choice(NUMBERS) if rng.random() < 0.4 else round(rng.gauss(0, 100), 2) for _ in range(2)]
        events.append(Event(rng.choice(keys), now - lag, rng.choice([i, -i]), (values[0], values[1])))
        if rng.random() < 0.15:
            again = rng.choice(events)
            events.append(again._replace(t=again.t + rng.choice([0, 0, 30])))
    return events


def streams(key_type: KeyType = "int64") -> st.SearchStrategy[list[Event]]:
    """Mostly long and busy, some short, free and easy to shrink."""
    number = st.one_of(st.sampled_from(NUMBERS), st.floats(min_value=-1e9, max_value=1e9))
    events = st.builds(
        Event, st.sampled_from(KEYS[key_type]), st.integers(0, 200), st.integers(-5, 60), st.tuples(number, number)
    )
    busy = st.builds(busy_stream, st.integers(0, 2**32), st.just(KEYS[key_type]))
    return st.one_of(busy, busy, busy, st.lists(events, max_size=30))


def columns(events: Sequence[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    text = bool(events) and isinstance(events[0].key, str)
    keys = np.array([e.key for e in events], dtype=object if text else np.int64)
    times, ids = (np.array([e[k] for e in events], dtype=np.int64) for k in (1, 2))
    return keys, times, ids, np.array([e.values for e in events], dtype=np.float64).reshape(-1, 2)


def feed(store: WindowStore, events: Sequence[Event], cuts: Sequence[int] = ()) -> Updated:
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    parts = [store.update(*columns(events[a:b])) for a, b in pairwise(edges)]
    return Updated(
        np.concatenate([part.status for part in parts]),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.feature_time_us for part in parts]),
    )


def bits(updated: Updated) -> tuple[bytes, bytes, bytes]:
    return (
        updated.status.tobytes(),
        np.where(np.isnan(updated.features), np.nan, updated.features).tobytes(),
        updated.feature_time_us.tobytes(),
    )


def online(store: WindowStore) -> dict[Any, tuple[bytes, int]]:
    keys, features, stamps = store.online(store.all_slots())
    features = np.where(np.isnan(features), np.nan, features)
    rows = zip(keys.tolist(), features, stamps.tolist(), strict=True)
    return {key: (row.tobytes(), stamp) for key, row, stamp in rows}


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
        for key, row, stamp in zip(*(part.tolist() for part in store.online(store.all_slots())), strict=True):
            same(row, oracle.features(key, int(oracle.newest(key))), store.features)
            assert stamp == oracle.stamps[key]

    check()


@EXAMPLES
@given(streams(), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_show_in_online_features(events: list[Event], rng: random.Random) -> None:
    events = [e._replace(id=i) for i, e in enumerate(events)]
    views = two_views(lateness_ms=20_000)  # so that nothing is late in any order
    one, other = WindowStore(views), WindowStore(views)
    assert not feed(one, events).status.any()
    rng.shuffle(events)
    assert not feed(other, events).status.any()
    assert {k: row for k, (row, _) in online(one).items()} == {k: row for k, (row, _) in online(other).items()}


@EXAMPLES
@given(streams(), st.lists(st.integers(0, 70), max_size=6))
def test_batches_do_not_show(events: list[Event], cuts: list[int]) -> None:
    one, other = WindowStore(two_views()), WindowStore(two_views())
    assert bits(feed(one, events)) == bits(feed(other, events, cuts))
    assert online(one) == online(other)
    assert dict(one.dirty_rows()) == dict(other.dirty_rows())


@pytest.mark.parametrize("key_type", ["int64", "string"])
@pytest.mark.parametrize("part_bytes", [64, 256_000])
def test_a_restart_does_not_show(key_type: KeyType, part_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.core.window_rows.PART_BYTES", part_bytes)

    @EXAMPLES
    @given(streams(key_type), st.lists(st.integers(0, 70), min_size=1, max_size=3), st.randoms(use_true_random=False))
    def check(events: list[Event], stops: list[int], rng: random.Random) -> None:
        views = two_views(key_type)
        steady, store = WindowStore(views), WindowStore(views)
        changelog: dict[bytes, bytes] = {}
        at = 0
        for stop in [*sorted(stops), len(events)]:
            assert bits(feed(store, events[at:stop])) == bits(feed(steady, events[at:stop]))
            assert online(store) == online(steady)
            at = max(at, stop)
            store.expire()
            steady.expire()
            for key, value in store.dirty_rows():
                changelog.pop(key, None)
                if value is not None:
                    changelog[key] = value
            store.mark_clean()
            assert store.dirty_rows() == []
            rows = list(changelog.items())
            rng.shuffle(rows)
            restored = WindowStore(views)
            restored.load_rows(rows, store.stream_time_ms)
            assert restored.stream_time_ms == store.stream_time_ms
            assert restored.entries == store.entries
            store = restored

    check()


@EXAMPLES
@given(streams(), st.integers(1, 5))
def test_expiry_does_not_show(events: list[Event], every: int) -> None:
    kept, expired = WindowStore(two_views()), WindowStore(two_views())
    for i, event in enumerate(events):
        assert bits(feed(kept, [event])) == bits(feed(expired, [event]))
        if i % every == 0:
            expired.expire()
    newest = online(kept)
    assert all(newest[key] == row for key, row in online(expired).items())


def test_idle_keys_go_with_their_rows_and_ids() -> None:
    store = WindowStore(two_views(lateness_ms=20))
    feed(store, [Event(1, 0, 1, (1.0, 1.0)), Event(2, 60, 2, (1.0, 1.0))])
    assert store.expire() == 0
    written = [key for key, _ in store.dirty_rows()]
    store.mark_clean()
    feed(store, [Event(2, 71, 3, (1.0, 1.0))])  # 71 - 20 - 2 * 25 = 1 > 0
    assert store.expire() == 1
    assert (b"1/0", None) in store.dirty_rows()
    assert written == [b"1/0", b"2/0"]
    assert feed(store, [Event(1, 71, 1, (1.0, 1.0))]).status.tolist() == [OK]
    assert [value is None for key, value in store.dirty_rows() if key == b"1/0"] == [True, False]


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
        same(newest[0].tolist(), oracle.features(1, int(oracle.newest(1))), store.features)


@pytest.mark.parametrize(("lag_ms", "status"), [(20, OK), (21, LATE)])
def test_lateness_is_to_the_millisecond_and_changes_nothing(lag_ms: int, status: int) -> None:
    store = WindowStore(two_views(lateness_ms=20))
    feed(store, [Event(1, 1000, 1, (1.0, 1.0))])
    before = online(store)
    assert feed(store, [Event(1, 1000 - lag_ms, 2, (1.0, 1.0))]).status.tolist() == [status]
    assert (online(store) == before) == (status == LATE)


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


def test_a_heavy_key_is_cut_into_parts_and_grows_through_every_segment_size() -> None:
    store, n = WindowStore((view("v", [("sum", "x", 10**6), ("count_distinct", "x", 100)], 0, "string"),)), 30_000
    times, ids = np.arange(n), np.arange(n)
    keys = np.array(["a/b"] * n, dtype=object)
    got = store.update(keys, times, ids, (np.arange(n) % 1000 * 0.1)[:, None])
    assert got.features[-1].tolist() == [pytest.approx(n / 1000 * 49950, rel=1e-15), 100.0]
    rows = store.dirty_rows()
    assert [key for key, _ in rows] == [b"a/b/0", b"a/b/1", b"a/b/2"]
    assert all(len(value or b"") <= 256_100 for _, value in rows)
    store.mark_clean()
    store.update(keys[:1], np.array([10**6 + n - 100]), np.array([-1]), np.array([[1.0]]))
    assert [(key, value is None) for key, value in store.dirty_rows()] == [
        (b"a/b/0", False),
        (b"a/b/1", True),
        (b"a/b/2", True),
    ]


def test_unrepresentable_values_are_refused_whole() -> None:
    store = WindowStore(two_views())
    with pytest.raises(ValueError, match="2\\*\\*90"):
        feed(store, [Event(1, 1, 1, (1.0, 1.0)), Event(1, 2, 2, (2.0**90, 1.0))])
    assert store.entries == 0


def test_damaged_rows_are_refused() -> None:
    store = WindowStore(two_views())
    feed(store, [Event(1, 5, 1, (1.0, 1.0)), Event(1, 6, 2, (1.0, 1.0))])
    ((key, value),) = store.dirty_rows()
    assert value is not None
    body = value[-64:]
    for damaged in (value[:-1], value[:5], b"\x09" + value[1:], value[:-64] + body[32:] + body[:32]):
        with pytest.raises(ValueError, match="state of key '1'"):
            WindowStore(two_views()).load_rows([(key, damaged)], 6)
    with pytest.raises(ValueError, match="state of key '1'"):
        WindowStore(two_views()).load_rows([(b"1/1", value)], 6)


def test_fingerprint_follows_what_is_stored() -> None:
    base = (view("v", [("mean", "x", 30), ("count", "x", 10)], 5, "int64"),)
    fingerprint = WindowStore(base).fingerprint

    def of(aggregates: Sequence[tuple[Function, str, int]], lateness_ms: int = 5, key_type: KeyType = "int64") -> str:
        return WindowStore((view("w", aggregates, lateness_ms, key_type),)).fingerprint

    assert of([("mean", "x", 30), ("max", "x", 7)]) == fingerprint
    assert of([("mean", "x", 31)]) != fingerprint
    assert of([("mean", "x", 30)], lateness_ms=6) != fingerprint
    assert of([("mean", "x", 30)], key_type="string") != fingerprint
    assert of([("mean", "x", 30), ("mean", "y", 30)]) != fingerprint


def test_a_window_added_inside_the_retention_is_served_from_stored_rows() -> None:
    events = [Event(k % 3, 10 * k, k, (0.1 * k, 1.0)) for k in range(40)]
    old = (view("v", [("mean", "x", 300), ("sum", "y", 300)], 5, "int64"),)
    new = (view("v", [("mean", "x", 300), ("sum", "y", 300), ("max", "x", 70), ("mean", "x", 100)], 5, "int64"),)
    before, after, always = WindowStore(old), WindowStore(new), WindowStore(new)
    feed(before, events[:20])
    after.load_rows([(k, v) for k, v in before.dirty_rows() if v is not None], before.stream_time_ms)
    feed(always, events[:20])
    assert bits(feed(after, events[20:])) == bits(feed(always, events[20:]))
