"""What must not show in the window store's results: batches, order of arrival, restarts, expiry."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.declaration import Function, KeyType
from millstream.core.windows.store import DUPLICATE, LATE, WindowStore
from millstream.core.windows.watermark import CONFIRMING_EVENTS
from window_oracle import OK
from window_streams import (
    EXAMPLES,
    Event,
    bits,
    feed,
    online,
    streams,
    two_views,
    view,
)


@EXAMPLES
@given(streams(), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_show_in_online_features(events: list[Event], rng: random.Random) -> None:
    events = [e._replace(id=i) for i, e in enumerate(events)]
    views = two_views(lateness_ms=20_000)  # so that nothing is late in any order
    one, other = WindowStore(views), WindowStore(views)
    assert not feed(one, events).status.any()
    rng.shuffle(events)
    ties: dict[tuple[object, int], list[Event]] = {}
    for event in sorted(events, key=lambda event: event.id):
        ties.setdefault((event.key, event.t), []).append(event)
    events = [ties[event.key, event.t].pop(0) for event in events]  # of equal times the order does show
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
    monkeypatch.setattr("millstream.core.windows.rows.PART_BYTES", part_bytes)

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
            restored.load_rows(rows)
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
    feed(store, [Event(1, 0, 1, (1.0, 1.0)), Event(2, 60, 2, (1.0, 1.0)), Event(3, 71, 4, (1.0, 1.0))])
    assert store.expire() == 0
    written = [key for key, _ in store.dirty_rows()]
    store.mark_clean()
    feed(store, [Event(2, 71, 3, (1.0, 1.0))])  # 71 - 20 - 2 * 25 = 1 > 0
    assert store.expire() == 1
    assert (b"1/0", None) in store.dirty_rows()
    assert written == [b"1/0", b"2/0", b"3/0"]
    assert feed(store, [Event(1, 71, 1, (1.0, 1.0))]).status.tolist() == [OK]
    assert [value is None for key, value in store.dirty_rows() if key == b"1/0"] == [True, False]


@pytest.mark.parametrize("expire", [False, True])
@pytest.mark.parametrize(("newest", "again"), [(70, DUPLICATE), (71, OK)])
def test_an_id_is_known_as_far_back_as_windows_reach(newest: int, again: int, expire: bool) -> None:
    store = WindowStore(two_views(lateness_ms=20))  # 71 - 20 - 2 * 25 = 1 > 0
    feed(store, [Event(1, 0, 1, (1.0, 1.0)), *(Event(k, newest, k, (1.0, 1.0)) for k in (2, 4))])
    if expire:
        store.expire()
    assert feed(store, [Event(1, newest, 1, (1.0, 1.0))]).status.tolist() == [again]
    if again == OK:  # and the old entry of that id does not take the new one with it when it leaves
        assert feed(store, [Event(3, newest, 1, (1.0, 1.0))]).status.tolist() == [DUPLICATE]


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
    for k in range(CONFIRMING_EVENTS):
        store.update(keys[:1], np.array([10**6 + n - 100]), np.array([-1 - k]), np.array([[1.0]]))
    assert [(key, value is None) for key, value in store.dirty_rows()] == [
        (b"a/b/0", False),
        (b"a/b/1", True),
        (b"a/b/2", True),
    ]


def test_damaged_rows_are_refused() -> None:
    store = WindowStore(two_views())
    feed(store, [Event(1, 5, 1, (1.0, 1.0)), Event(1, 6, 2, (1.0, 1.0))])
    ((key, value),) = store.dirty_rows()
    assert value is not None
    body = value[-64:]
    for damaged in (value[:-1], value[:5], b"\x09" + value[1:], value[:-64] + body[32:] + body[:32]):
        with pytest.raises(ValueError, match="state of key '1'"):
            WindowStore(two_views()).load_rows([(key, damaged)])
    with pytest.raises(ValueError, match="state of key '1'"):
        WindowStore(two_views()).load_rows([(b"1/1", value)])


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
    after.load_rows([(k, v) for k, v in before.dirty_rows() if v is not None])
    feed(always, events[:20])
    assert bits(feed(after, events[20:])) == bits(feed(always, events[20:]))


def test_a_feature_time_that_ran_ahead_keeps_its_key() -> None:
    store = WindowStore((view("v", [("count", "x", 1)], 0, "int64"),))
    n = 3000  # events of one millisecond push the feature time 2,999 us past it
    store.update(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.arange(n), np.ones((n, 1)))
    store.update(np.array([1]), np.array([3]), np.array([-1]), np.ones((1, 1)))
    store.expire()
    got = store.update(np.array([0]), np.array([2]), np.array([-2]), np.ones((1, 1)))
    assert got.feature_time_us.tolist() == [n]


@pytest.mark.parametrize("key_type", ["int64", "string"])
def test_neither_late_events_nor_keys_that_come_and_go_pile_up(key_type: KeyType) -> None:
    store, sizes = WindowStore(two_views(key_type)), []
    for day in range(40):
        numbers = np.arange(500) + 500 * day
        keys = numbers if key_type == "int64" else np.array([str(number) for number in numbers], dtype=object)
        values = np.ones((500, 2))
        assert not store.update(keys, np.full(500, 1000 * day), numbers, values).status.any()
        unknown = -1 - keys if key_type == "int64" else "-" + keys
        assert (store.update(unknown, np.full(500, 1000 * day - 900), -1 - numbers, values).status == LATE).all()
        assert store.expire() == (500 if day else 0)
        sizes.append(store.memory_bytes)
    assert len(set(sizes[5:])) == 1
