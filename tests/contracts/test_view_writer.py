"""Writing behind the stages: the newest row per key, through outages and losses, without ever holding a stage up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes_online_view import FakeOnlineView
from millstream.adapters.redis.newest_rows import newest
from millstream.adapters.redis.view_writer import ViewWriter
from millstream.errors import Stop
from millstream.ports import ViewRows


def rows(view: str, given: Sequence[tuple[int | str, int]], mark: float = 0.0) -> ViewRows:
    """Return rows of (key, feature time us); their feature tells the time, plus a mark."""
    text = any(isinstance(key, str) for key, _ in given)
    times_us = np.array([time_us for _, time_us in given], dtype=np.int64)
    keys = np.array([key for key, _ in given], dtype=object if text else np.int64)
    return ViewRows(view, keys, (times_us + mark).reshape(-1, 1), times_us)


def eventually(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.002)


@pytest.fixture
def store() -> FakeOnlineView:
    held = FakeOnlineView()
    held.mark = "known"
    return held


@pytest.fixture
def writer(store: FakeOnlineView) -> Iterator[ViewWriter]:
    made = ViewWriter(store, ["customer", "terminal"], check_interval_s=0.005).start()
    yield made
    made.close()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 50)), min_size=1, unique_by=lambda row: row[0]),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_of_many_rows_the_newest_of_each_key_is_kept(offers: list[list[tuple[int, int]]], text: bool) -> None:
    named = [[(f"k{key}" if text else key, at) for key, at in offer] for offer in offers]
    kept = newest([rows("v", offer) for offer in named])
    best: dict[int | str, int] = {}
    for key, at in (row for offer in named for row in offer):
        best[key] = max(at, best.get(key, at))
    assert dict(zip(kept.keys.tolist(), kept.feature_time_us.tolist(), strict=True)) == best
    assert len(kept.keys) == len(best)
    assert kept.features[:, 0].tolist() == kept.feature_time_us.tolist()


def test_what_is_offered_arrives(store: FakeOnlineView, writer: ViewWriter) -> None:
    writer.offer([rows("c", [(1, 10), (2, 11)]), rows("t", [("a", 12)])])
    assert writer.drain(20)
    assert store.rows == {("c", 1): (10, (10.0,)), ("c", 2): (11, (11.0,)), ("t", "a"): (12, (12.0,))}
    assert writer.written_by_view == {"c": 2, "t": 1}
    assert (writer.pending, writer.staleness_ms, writer.failures) == (0, 0.0, 0)


def test_an_outage_costs_memory_per_key_and_loses_nothing(store: FakeOnlineView, writer: ViewWriter) -> None:
    store.away = True
    order = list(range(1, 301))
    random.Random(7).shuffle(order)
    for at in order:
        writer.offer([rows("c", [(key, at) for key in range(5)])])
    eventually(lambda: writer.failures > 0 and writer.pending == 5)
    assert writer.staleness_ms > 0
    assert store.rows == {}
    store.away = False
    assert writer.drain(20)
    assert store.rows == {("c", key): (300, (300.0,)) for key in range(5)}
    assert store.writes == 5
    assert writer.conflated == 5 * 299


def test_a_store_that_hangs_holds_no_stage_up() -> None:
    answer, asked = threading.Event(), threading.Event()

    class Hanging(FakeOnlineView):
        def write(self, rows: Sequence[ViewRows]) -> int:
            asked.set()
            answer.wait()
            return super().write(rows)

    store = Hanging()
    store.mark = "known"
    writer = ViewWriter(store, ["customer"]).start()
    writer.offer([rows("c", [(1, 1)])])
    assert asked.wait(20)
    for at in range(2, 1000):
        writer.offer([rows("c", [(1, at)])])  # would never return if it waited for the store
    assert not writer.drain(0.01)
    answer.set()
    assert writer.drain(20)
    assert store.rows["c", 1][0] == 999
    writer.close()


def test_rows_of_one_view_that_are_refused_do_not_block_another(store: FakeOnlineView, writer: ViewWriter) -> None:
    taken = store.write

    def picky(each: Sequence[ViewRows]) -> int:
        store.away = each[0].view == "bad"
        try:
            return taken(each)
        finally:
            store.away = False

    store.write = picky  # type: ignore[method-assign] # one view's rows are refused
    writer.offer([rows("bad", [(1, 1)]), rows("good", [(1, 1)])])
    eventually(lambda: ("good", 1) in store.rows)
    assert writer.pending == 1


def test_rows_that_were_lost_are_asked_for_once_from_each_source(store: FakeOnlineView, writer: ViewWriter) -> None:
    writer.offer([rows("c", [(1, 1)])])
    assert writer.drain(20)
    eventually(lambda: writer._looked)
    assert writer.refill_required("customer") is None
    store.flush()
    eventually(lambda: writer.refill_required("customer") is not None)
    epoch = writer.refill_required("customer")
    assert epoch is not None
    assert writer.refill_required("terminal") == epoch
    assert writer.refill_required("stranger") is None
    writer.offer([rows("c", [(1, 1)])])
    writer.refilled(epoch, "customer")
    assert writer.refill_required("customer") is None
    assert writer.refill_required("terminal") == epoch
    writer.refilled(epoch, "terminal")
    assert writer.refill_required("terminal") is None
    assert writer.drain(20)
    assert ("c", 1) in store.rows
    assert store.mark == epoch


def test_a_loss_in_the_middle_of_refilling_shows(store: FakeOnlineView, writer: ViewWriter) -> None:
    store.flush()
    eventually(lambda: writer.refill_required("customer") is not None)
    first = writer.refill_required("customer")
    assert first is not None
    writer.refilled(first, "customer")
    store.flush()
    eventually(lambda: writer.refill_required("customer") not in {None, first})
    writer.refilled(first, "customer")  # of the rows that are lost again
    assert writer.refill_required("customer") is not None


def test_every_worker_offers_its_rows_although_only_one_leaves_the_mark(store: FakeOnlineView) -> None:
    writers = [ViewWriter(store, ["customer"], check_interval_s=0.005).start() for _ in range(3)]
    eventually(lambda: all(writer._looked for writer in writers))
    store.flush()
    for writer in writers:
        eventually(lambda writer=writer: writer.refill_required("customer") is not None)
    eventually(lambda: len({writer.refill_required("customer") for writer in writers}) == 1)
    for writer in writers:
        writer.refilled(str(store.mark), "customer")
    assert all(writer.refill_required("customer") is None for writer in writers)
    for writer in writers:
        writer.close()


def test_a_store_that_was_away_is_looked_at_before_rows_are_written(store: FakeOnlineView) -> None:
    writer = ViewWriter(store, ["customer"], check_interval_s=3600).start()
    eventually(lambda: writer._looked)
    store.away = True
    writer.offer([rows("c", [(1, 1)])])
    eventually(lambda: writer.failures > 0)
    store.flush()
    store.away = False
    eventually(lambda: writer.refill_required("customer") is not None)
    writer.close()


def test_a_writer_that_ended_by_a_fault_stops_its_stages(
    store: FakeOnlineView, writer: ViewWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.append(told.exc_type))
    monkeypatch.setattr(store, "write", lambda _rows: {}["a fault"])
    writer.offer([rows("c", [(1, 1)])])
    eventually(lambda: bool(raised))
    eventually(lambda: not writer._thread.is_alive())
    with pytest.raises(Stop, match="restart"):
        writer.offer([rows("c", [(1, 1)])])
    assert raised == [KeyError]


def test_closing_while_the_store_is_away_does_not_wait(store: FakeOnlineView) -> None:
    writer = ViewWriter(store, ["customer"]).start()
    store.away = True
    writer.offer([rows("c", [(1, 1)])])
    eventually(lambda: writer.failures > 0)
    writer.close()
    assert not writer._thread.is_alive()
    assert writer.pending == 1


def test_whole_numbers_stay_with_their_rows() -> None:
    first = ViewRows("v", np.array([1, 2]), np.zeros((2, 1)), np.array([5, 6]), np.array([[2**53 + 1], [7]]))
    second = ViewRows("v", np.array([1]), np.zeros((1, 1)), np.array([9]), np.array([[2**60 + 1]]))
    kept = newest([first, second])
    assert kept.wholes is not None
    assert dict(zip(kept.keys.tolist(), kept.wholes[:, 0].tolist(), strict=True)) == {1: 2**60 + 1, 2: 7}
    taken = kept.take(slice(0, 1)).wholes
    assert taken is not None
    assert taken.shape == (1, 1)
