"""How far event time has come: no single key decides it, and a later stage waits for upstream partitions."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.core.declaration import KeyType
from millstream.core.windows.store import LATE, Sources, UpdateResult, Upstream, WindowStore
from millstream.core.windows.watermark import CONFIRMING_EVENTS
from window_oracle import OK, Entry, Oracle
from window_streams import Event, busy_stream, columns, feed, two_views

FEW = settings(max_examples=8, deadline=None)
DAY_MS = 86_400_000
KEYS = list(range(6))


def later(store: WindowStore, events: list[Event], sources: list[tuple[int, int]]) -> UpdateResult:
    partitions, keys = (np.array([source[k] for source in sources], dtype=np.int64) for k in (0, 1))
    return store.update(*columns(events), Sources(partitions, keys))


def same(got: list[float], wanted: list[float], names: tuple[str, ...]) -> None:
    for found, expected, name in zip(got, wanted, names, strict=True):
        if "std" in name or "var" in name:
            assert found == pytest.approx(expected, rel=1e-9, nan_ok=True), name
        else:
            assert found == expected or (math.isnan(found) and math.isnan(expected)), (name, found, expected)


@FEW
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3]), st.sampled_from([0, 30, 10**9]), st.lists(st.integers(0, 70)))
def test_a_later_stage_accepts_all_and_answers_from_what_it_retains(
    seed: int, partitions: int, lag_ms: int, stops: list[int]
) -> None:
    views, upstream, rng = two_views(), Upstream(40, partitions, lag_ms), random.Random(seed)
    events = [event._replace(id=i) for i, event in enumerate(busy_stream(seed, [1, 2]))]
    sources = [(at, 10 * at + rng.randrange(3)) for at in (rng.randrange(3) for _ in events)]
    oracle, store = Oracle(views, upstream), WindowStore(views, upstream)
    changelog: dict[bytes, bytes | None] = {}
    for i, (event, source) in enumerate(zip(events, sources, strict=True)):
        if i in stops:
            changelog |= dict(store.dirty_rows())
            clocks, store = store.clocks(), WindowStore(views, upstream)
            store.load_rows([(key, value) for key, value in changelog.items() if value is not None], clocks)
        updated = later(store, [event], [source])
        status, features, stamp = oracle.update(*event, source=source)
        assert updated.status.tolist() == [status] == [OK]
        assert updated.feature_time_us.tolist() == [stamp]
        assert store.watermark_ms == oracle.watermark() or oracle.watermark() == -math.inf
        same(updated.features[0].tolist(), features, store.features)


@FEW
@given(st.integers(0, 2**32), st.randoms(use_true_random=False), st.booleans())
def test_what_the_first_stage_accepts_is_exact_at_a_later_one_whichever_worker_is_away(
    seed: int, rng: random.Random, expires: bool
) -> None:
    views = two_views()
    delivered: list[list[tuple[Event, tuple[int, int]]]] = []
    for partition in range(3):
        first = WindowStore(views)
        events = [e._replace(id=1000 * partition + i) for i, e in enumerate(busy_stream(seed + partition, KEYS))]
        accepted = feed(first, events).status == OK
        at = [event._replace(key=rng.randrange(2)) for event in events]  # re-keyed
        delivered.append([(e, (partition, 10 * partition + events[i].key)) for i, e in enumerate(at) if accepted[i]])
    horizon_ms = WindowStore(views).horizon_ms
    store, oracle = WindowStore(views, Upstream(horizon_ms, 3, 10**6)), Oracle(views)
    while any(delivered):
        queue = rng.choice([each for each in delivered if each])
        for _ in range(min(len(queue), rng.choice([1, 5, 70]))):
            event, source = queue.pop(0)
            updated = later(store, [event], [source])
            assert updated.status.tolist() == [OK]
            oracle.accepted.append(Entry(event.key, event.t, event.id, event.values, source))
            same(updated.features[0].tolist(), oracle.features(event.key, event.t), store.features)
        if expires:
            store.expire()


def test_one_key_ahead_makes_no_other_key_late_and_drops_nothing() -> None:
    store = WindowStore(two_views(lateness_ms=20))
    feed(store, [Event(k, k % 20, k, (1.0, 1.0)) for k in range(100)])
    feed(store, [Event(7, 400 * DAY_MS, 1000, (1.0, 1.0))])
    assert store.expire() == 0
    rows = [(key, value) for key, value in store.dirty_rows() if value is not None]
    restored = WindowStore(two_views(lateness_ms=20))
    restored.load_rows(rows)
    assert restored.entries == store.entries == 101
    for each in (store, restored):
        after = feed(each, [Event(k, 20 + k % 20, 2000 + k, (1.0, 1.0)) for k in range(100)]).status
        assert np.flatnonzero(after == LATE).tolist() == [7]
        assert after.sum() == LATE
        assert each.stream_time_ms == 39


@given(st.permutations(range(12)))
def test_the_stream_time_is_a_function_of_the_set_of_events(order: list[int]) -> None:
    events = [Event(i % 4, 10 * (i // 4), i, (1.0, 1.0)) for i in range(11)] + [Event(3, 10**6, 11, (1.0, 1.0))]
    store = WindowStore(two_views(lateness_ms=10**6))
    feed(store, [events[i] for i in order])
    assert store.stream_time_ms == 20


def test_a_key_that_is_ahead_or_alone_keeps_its_windows_until_many_of_its_events_say_so() -> None:
    store = WindowStore(two_views(lateness_ms=20))
    feed(store, [Event(1, 0, 0, (1.0, 1.0))])
    for k in range(1, CONFIRMING_EVENTS):
        feed(store, [Event(1, 10**6 + k, k, (1.0, 1.0))])
        assert store.entries == k + 1
    feed(store, [Event(1, 10**6 + CONFIRMING_EVENTS, -1, (1.0, 1.0))])
    assert store.entries == CONFIRMING_EVENTS
    for k in range(1000):
        feed(store, [Event(1, 10**7 + k, 10**4 + k, (1.0, 1.0))])
    assert store.entries < CONFIRMING_EVENTS + 46  # a millisecond apart, over lateness and longest window


def test_an_idle_upstream_partition_is_waited_for_within_the_bound() -> None:
    store = WindowStore(two_views(), Upstream(horizon_ms=45, partitions=2, lag_ms=100))
    for t in range(2000):
        later(store, [Event(1, t, t, (1.0, 1.0))], [(0, t % 2)])
    assert store.watermark_ms == 1998 - 100 - 45  # partition 1 is silent
    assert store.entries == 100 + 45 + 25 + 1
    for t in range(2000, 2100):
        later(store, [Event(1, t, t, (1.0, 1.0))], [(t % 2, t % 4)])
    assert store.watermark_ms == 2096 - 45
    assert store.entries == 3 + 45 + 25


def test_clocks_of_another_layout_or_none_only_make_retention_wait() -> None:
    views, upstream = two_views(), Upstream(45, 2, 100)
    store = WindowStore(views, upstream)
    rows: list[Any] = []
    for t in range(3000):
        later(store, [Event(1, t, t, (1.0, 1.0))], [(t % 2, t % 4)])
    rows = store.dirty_rows()
    for clocks in ([], [[1, 2, 3]]):
        restored = WindowStore(views, upstream)
        restored.load_rows(rows, clocks)
        assert restored.expire() == 0
        later(restored, [Event(1, 3000, 3000, (1.0, 1.0))], [(0, 0)])
        assert restored.entries == store.entries + 1


@FEW
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from(["int64", "string"]))
def test_events_taken_out_leave_what_there_would_be_without_them(seed: int, stored: bool, key_type: KeyType) -> None:
    keys: list[Any] = KEYS if key_type == "int64" else [f"k{key}" for key in KEYS]
    events = [event._replace(id=i) for i, event in enumerate(busy_stream(seed, keys))]
    half, end = len(events) // 2, max(event.t for event in events)
    far = [Event(key, end + 10**6 + i, -1 - i, (2.0, 2.0)) for i, key in enumerate([keys[0], "new", keys[0]])]
    far = [event if key_type == "string" or event.key != "new" else event._replace(key=99) for event in far]
    store, without = WindowStore(two_views(key_type)), WindowStore(two_views(key_type))
    feed(without, events[:half])
    feed(store, events[:half])
    store.mark_clean()
    rows: dict[bytes, bytes | None] = dict(without.dirty_rows())
    feed(store, far[:1])
    assert store.forget_after(end).tolist() == [keys[0]]
    rows = {key: value for key, value in {**rows, **dict(store.dirty_rows())}.items() if value is not None}
    if stored:
        store = WindowStore(two_views(key_type))
        store.load_rows([(key, value) for key, value in rows.items() if value is not None])
    # The next key's clock had counted meanwhile, so what only events older than the lateness reach may be gone.
    assert store.entries <= without.entries
    newest = max(event.t for event in events[:half])
    following = [event for event in events[half:] if event.t >= newest - 20]
    ours, theirs = feed(store, following), feed(without, following)
    assert ours.status.tolist() == theirs.status.tolist()
    assert np.array_equal(ours.results.reals, theirs.results.reals, equal_nan=True)
    feed(store, far)
    assert set(store.forget_after(end).tolist()) == {event.key for event in far}
    assert store.stream_time_ms <= without.stream_time_ms


def test_a_later_stage_forgets_clocks_that_were_ahead() -> None:
    store = WindowStore(two_views(), Upstream(45, 2, 100))
    for t in range(300):
        later(store, [Event(1, t, t, (1.0, 1.0))], [(t % 2, t % 4)])
    kept = store.clocks()
    assert store.forget_after(1000).tolist() == []
    assert store.clocks() == kept
    later(store, [Event(k, 10**6, 1000 + k, (1.0, 1.0)) for k in (1, 2)], [(0, 0), (0, 2)])
    assert store.forget_after(1000).tolist() == [1, 2]
    assert store.watermark_ms < 0
    for t in range(300, 400):
        later(store, [Event(1, t, t, (1.0, 1.0))], [(t % 2, t % 4)])
    assert store.watermark_ms == 396 - 45
