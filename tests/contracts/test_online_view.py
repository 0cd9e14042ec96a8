"""What every online view promises, on the fake and on a real Valkey; and what only a real server can show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import redis

from fakes_online_view import FakeOnlineView
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.redis.compare_and_set import SHA
from millstream.adapters.redis.feature_times import FeatureTimes
from millstream.adapters.redis.online_view import RedisOnlineView
from millstream.core.declaration import Aggregate, View
from millstream.errors import Retry
from millstream.ports import OnlineView, ViewRows

PROJECT = "online_view_suite"
AGGREGATES = (
    Aggregate("count_1d", "int64", "amount", "count", 86_400_000),
    Aggregate("mean_1d", "float64", "amount", "mean", 86_400_000),
)
VIEWS = {
    "by_number": View("by_number", "customer", "customer_id", "int64", "t", "ms", 0, AGGREGATES),
    "by_name": View("by_name", "machine", "machine_id", "string", "t", "ms", 0, AGGREGATES),
}
CODECS = {name: ViewCodec(PROJECT, view) for name, view in VIEWS.items()}


@dataclass
class Subject:
    """An online view, and a look at what it holds that goes another way."""

    view: OnlineView
    stored: Callable[[str, object], dict[bytes, bytes] | None]
    away: Callable[[], OnlineView]


def rows(view: str, *given: tuple[object, int, float, float]) -> ViewRows:
    """Return rows of (key, feature time us, count, mean)."""
    dtype = np.int64 if view == "by_number" else object
    return ViewRows(
        view,
        np.array([each[0] for each in given], dtype=dtype),
        np.array([each[2:] for each in given], dtype=np.float64).reshape(-1, 2),
        np.array([each[1] for each in given], dtype=np.int64),
    )


def as_stored(view: str, key: object, time_us: int, count: float, mean: float) -> dict[bytes, bytes]:
    """Return the hash that a row should have become."""
    ((_, fields),) = CODECS[view].entries(rows(view, (key, time_us, count, mean)))
    return fields


def fake() -> Subject:
    held = FakeOnlineView()

    def stored(view: str, key: object) -> dict[bytes, bytes] | None:
        found = held.rows.get((view, key))
        return None if found is None else as_stored(view, key, found[0], *found[1])

    def away() -> OnlineView:
        held.away = True
        return held

    return Subject(held, stored, away)


def real(url: str) -> Iterator[Subject]:
    client = redis.Redis.from_url(url)
    view = RedisOnlineView(url, PROJECT, CODECS)

    def clean() -> None:
        client.delete(f"millstream:{PROJECT}:epoch", *client.scan_iter(f"*{PROJECT}"))

    def stored(name: str, key: object) -> dict[bytes, bytes] | None:
        ((redis_key, _),) = CODECS[name].entries(rows(name, (key, 1, 0.0, 0.0)))
        return client.hgetall(redis_key) or None

    clean()
    yield Subject(view, stored, lambda: RedisOnlineView("redis://127.0.0.1:1", PROJECT, CODECS))
    clean()
    view.close()
    client.close()


@pytest.fixture(params=["fake", pytest.param("valkey", marks=pytest.mark.redis)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield fake()
    else:
        yield from real(request.getfixturevalue("valkey").redis_url)


def test_rows_of_several_views_are_written_and_counted(subject: Subject) -> None:
    written = subject.view.write(
        [rows("by_number", (1, 10, 1.0, 2.5), (-2, 11, 2.0, np.nan)), rows("by_name", ("pump é", 12, 0.0, -1.0))]
    )
    assert written == 3
    assert subject.stored("by_number", 1) == as_stored("by_number", 1, 10, 1.0, 2.5)
    assert subject.stored("by_number", -2) == as_stored("by_number", -2, 11, 2.0, np.nan)
    assert subject.stored("by_name", "pump é") == as_stored("by_name", "pump é", 12, 0.0, -1.0)


@pytest.mark.parametrize(
    ("stored_us", "offered_us", "taken"),
    [
        (1_000_000, 1_000_001, True),  # one microsecond newer
        (1_000_001, 1_000_000, False),
        (1_000_000, 1_000_000, False),
        (999_999, 1_000_000, True),  # across a second
        (-1, 0, True),  # across the epoch
        (0, -1, False),
        (127_999_999, 128_000_000, True),  # where the varint grows
        (1_533_081_600_000_000, 1_533_081_600_000_001, True),
        (253_402_300_799_000_000, 1_533_081_600_000_000, False),
    ],
)
def test_only_a_newer_row_replaces_one(subject: Subject, stored_us: int, offered_us: int, taken: bool) -> None:
    subject.view.write([rows("by_number", (5, stored_us, 1.0, 1.0))])
    assert subject.view.write([rows("by_number", (5, offered_us, 2.0, 2.0))]) == int(taken)
    expected = as_stored("by_number", 5, max(stored_us, offered_us), *((2.0, 2.0) if taken else (1.0, 1.0)))
    assert subject.stored("by_number", 5) == expected


def test_many_rows_are_all_written(subject: Subject) -> None:
    many = rows("by_number", *((key, 1_000_000 + key, float(key), key / 7) for key in range(1000)))
    assert subject.view.write([many]) == 1000
    assert subject.view.write([many]) == 0
    for key in (0, 63, 64, 65, 127, 128, 999):
        assert subject.stored("by_number", key) == as_stored("by_number", key, 1_000_000 + key, float(key), key / 7)


def test_no_rows_are_no_write(subject: Subject) -> None:
    assert subject.view.write([]) == 0
    assert subject.view.write([rows("by_number")]) == 0


def test_the_mark_is_what_was_left(subject: Subject) -> None:
    assert subject.view.epoch() is None
    subject.view.mark_epoch("first")
    assert subject.view.epoch() == "first"
    subject.view.mark_epoch("second")
    assert subject.view.epoch() == "second"


def test_a_store_that_is_away_asks_to_try_again(subject: Subject) -> None:
    view = subject.away()
    with pytest.raises(Retry):
        view.write([rows("by_number", (1, 1, 1.0, 1.0))])
    with pytest.raises(Retry):
        view.epoch()
    with pytest.raises(Retry):
        view.mark_epoch("x")


@pytest.mark.redis
def test_a_server_that_forgot_the_script_is_told_again(valkey: Endpoints) -> None:
    for subject in real(valkey.redis_url):
        subject.view.write([rows("by_number", (1, 1, 1.0, 1.0))])
        with redis.Redis.from_url(valkey.redis_url) as client:
            client.script_flush()
            assert client.script_exists(SHA.decode()) == [False]
        many = rows("by_number", *((key, 2, 1.0, 1.0) for key in range(200)))
        assert subject.view.write([many]) == 200


@pytest.mark.redis
def test_a_connection_that_was_cut_is_made_anew(valkey: Endpoints) -> None:
    for subject in real(valkey.redis_url):
        subject.view.write([rows("by_number", (1, 1, 1.0, 1.0))])
        with redis.Redis.from_url(valkey.redis_url) as client:
            own = client.client_id()
            for each in client.client_list():
                if int(each["id"]) != own and each["db"] == "0":
                    client.client_kill_filter(_id=each["id"])
        with pytest.raises(Retry):
            subject.view.write([rows("by_number", (1, 2, 2.0, 2.0))])
        assert subject.view.write([rows("by_number", (1, 2, 2.0, 2.0))]) == 1


@pytest.mark.redis
def test_a_mark_of_another_run_of_the_server_does_not_count(valkey: Endpoints) -> None:
    for subject in real(valkey.redis_url):
        subject.view.mark_epoch("known")
        with redis.Redis.from_url(valkey.redis_url) as client:
            client.set(f"millstream:{PROJECT}:epoch", "known 0000000000000000000000000000000000000000")
        assert subject.view.epoch() is None


@pytest.mark.redis
def test_a_key_of_another_kind_refuses_its_rows_only(valkey: Endpoints) -> None:
    for subject in real(valkey.redis_url):
        ((key, _),) = CODECS["by_number"].entries(rows("by_number", (7, 1, 0.0, 0.0)))
        with redis.Redis.from_url(valkey.redis_url) as client:
            client.set(key, "somebody else's")
            with pytest.raises(Retry, match="WRONGTYPE"):
                subject.view.write([rows("by_number", (7, 1, 1.0, 1.0)), rows("by_name", ("a", 1, 1.0, 1.0))])
            client.delete(key)
        assert subject.stored("by_name", "a") is not None
        assert subject.view.write([rows("by_number", (7, 1, 1.0, 1.0))]) == 1


@pytest.mark.redis
def test_two_writers_at_once_leave_the_newest(valkey: Endpoints) -> None:
    for subject in real(valkey.redis_url):

        def write(first: int) -> None:
            view = RedisOnlineView(valkey.redis_url, PROJECT, CODECS)
            for at in range(first, 200, 2):
                view.write([rows("by_number", *((key, 10 + at, float(at), 0.0) for key in range(20)))])
            view.close()

        threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key in range(20):
            assert subject.stored("by_number", key) == as_stored("by_number", key, 209, 199.0, 0.0)


def test_the_times_of_rows_are_read_as_they_were_written_and_never_raise(valkey: Endpoints) -> None:
    view = RedisOnlineView(valkey.redis_url, PROJECT, CODECS)
    times, away = (
        FeatureTimes(url, PROJECT, list(VIEWS.values())) for url in (valkey.redis_url, "redis://127.0.0.1:1")
    )
    try:
        view.write([rows("by_number", (901, 1_533_081_600_123_456, 1, 2.0)), rows("by_name", ("m9", 7, 1, 2.0))])
        assert times("by_number", np.array([901, 902])) == [1_533_081_600_123_456, None]
        assert times("by_name", np.array(["m9"], dtype=object)) == [7]
        assert away("by_number", np.array([901])) == [None]
    finally:
        view.close()
        times.close()
        away.close()
