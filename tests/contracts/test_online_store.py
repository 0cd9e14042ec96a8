"""The store class that feature_store.yaml names, on a real Valkey, used as Feast uses it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import ValidationError

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.codec_check import feast_rows
from millstream.adapters.feast.repo import apply, load_declaration, open_store, quiet_feast
from millstream.core.declaration import View
from millstream.errors import Misconfigured
from millstream.ports import ViewRows
from millstream.settings import Settings
from repos import repo

pytestmark = pytest.mark.redis

NOW_US = 1_800_000_000_000_000


class Shop:
    """A repo of its own project on the suite's Valkey, with Feast's client on it."""

    def __init__(self, folder: Path, url: str, project: str) -> None:
        made = repo(folder, project=project)
        self.settings = Settings(feature_repo=made.feature_repo, state_dir=made.state_dir, redis_url=url)
        self.project = project
        self.view: View = load_declaration(self.settings).views[0]
        apply(self.settings)
        self.feast: Any = open_store(self.settings)
        with quiet_feast():
            self.table = self.feast.get_stream_feature_view("heat")
        self.store = self.feast._get_provider().online_store
        self.client = redis.Redis.from_url(url)

    def write(self, *rows: tuple[str, int, float]) -> None:
        """Write (machine, feature time us, hottest) as Feast's own jobs do."""
        self.store.online_write_batch(self.feast.config, self.table, self.protos(*rows), None)

    def protos(self, *rows: tuple[str, int, float]) -> list[Any]:
        keys = np.array([row[0] for row in rows], dtype=object)
        features = np.array([[row[2], row[2]] for row in rows])
        return feast_rows(self.view, ViewRows("heat", keys, features, np.array([row[1] for row in rows])))

    def read(self, *machines: str) -> list[float | None]:
        answer = self.feast.get_online_features(
            ["heat:hottest_1h"], [{"machine_id": machine} for machine in machines], full_feature_names=True
        )
        values: list[float | None] = answer.to_dict()["heat__hottest_1h"]
        return values


@pytest.fixture
def shop(tmp_path: Path, valkey: Endpoints) -> Iterator[Shop]:
    made = Shop(tmp_path, valkey.redis_url, f"shop_{uuid.uuid4().hex[:8]}")
    yield made
    made.client.close()


def test_an_older_row_never_replaces_a_newer_one(shop: Shop) -> None:
    shop.write(("a", NOW_US, 1.0), ("b", NOW_US, 1.0))
    shop.write(("a", NOW_US - 1, 2.0), ("b", NOW_US + 1, 2.0), ("c", -1, 2.0))
    assert shop.read("a", "b", "c", "d") == [1.0, 2.0, 2.0, None]
    shop.write(("a", NOW_US, 3.0), ("c", 0, 3.0))
    assert shop.read("a", "c") == [1.0, 3.0], "the first of equal times stays; 1970 is newer than the moment before"


def test_of_one_write_the_newest_row_wins_in_any_order(shop: Shop) -> None:
    shop.write(("a", NOW_US + 1, 2.0), ("a", NOW_US + 2, 3.0), ("a", NOW_US, 1.0))
    assert shop.read("a") == [3.0]


def test_the_asynchronous_path_compares_too(shop: Shop) -> None:
    async def write() -> None:
        for row in (("a", NOW_US, 1.0), ("a", NOW_US - 1, 2.0), ("b", NOW_US, 1.0)):
            await shop.store.online_write_batch_async(shop.feast.config, shop.table, shop.protos(row), None)
        await shop.store._client_async.aclose()

    asyncio.run(write())
    assert shop.read("a", "b") == [1.0, 1.0]


def test_a_race_of_writers_leaves_the_newest(shop: Shop) -> None:
    rng = np.random.default_rng(7)
    keys = [f"m{number}" for number in range(20)]
    batches = [
        [(keys[k], NOW_US + int(t), float(t)) for k, t in zip(rng.integers(0, 20, 60), rng.integers(0, 500, 60))]  # noqa: B905
        for _ in range(12)
    ]
    stores = [shop.store.__class__() for _ in range(3)]

    def run(store: Any, mine: list[list[tuple[str, int, float]]]) -> None:
        for batch in mine:
            store.online_write_batch(shop.feast.config, shop.table, shop.protos(*batch), None)

    threads = [threading.Thread(target=run, args=(store, batches[n::3])) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest: dict[str, float] = {}
    for key, _, value in (row for batch in batches for row in batch):
        newest[key] = max(value, newest.get(key, -1.0))
    assert shop.read(*newest) == list(newest.values())


@pytest.mark.parametrize("honoured", [True, False])
def test_the_ttl_counts_on_read_where_asked_for(shop: Shop, honoured: bool) -> None:
    shop.feast.config.online_store.honour_ttl = honoured
    now_us = round(datetime.now(UTC).timestamp() * 1e6)
    two_days_us = 2 * 86_400_000_000
    shop.write(("new", now_us - two_days_us + 60_000_000, 1.0), ("old", now_us - two_days_us - 60_000_000, 1.0))
    assert shop.read("new", "old") == [1.0, None if honoured else 1.0]


@pytest.mark.parametrize(("asked", "status"), [(True, "NOT_FOUND"), (False, "PRESENT")])
def test_what_was_never_written_is_not_found_where_asked_for(shop: Shop, asked: bool, status: str) -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    shop.feast.config.online_store.absent_is_not_found = asked
    shop.write(("there", NOW_US, 1.0))
    answer = shop.feast.get_online_features(["heat:hottest_1h"], [{"machine_id": "there"}, {"machine_id": "absent"}])
    assert [FieldStatus.Name(each) for each in answer.proto.results[1].statuses] == ["PRESENT", status]


def test_rows_from_the_future_are_refused_where_asked_for(shop: Shop) -> None:
    ahead_us = round((datetime.now(UTC) + timedelta(days=3650)).timestamp() * 1e6)
    shop.feast.config.online_store.most_seconds_ahead = 60.0
    shop.write(("a", ahead_us, 1.0), ("b", NOW_US - 10**15, 2.0))
    assert shop.read("a", "b") == [None, 2.0]
    assert shop.store.refused_ahead == 1


def test_deleting_touches_no_other_project(shop: Shop, tmp_path: Path, valkey: Endpoints) -> None:
    # Its name ends like the other's, so that a pattern by the end of keys matches both.
    longer = Shop(tmp_path / "longer", valkey.redis_url, f"x{shop.project}")
    for each in (shop, longer):
        each.write(("a", NOW_US, 1.0), ("b", NOW_US, 2.0))
    shop.store.delete_table(shop.feast.config, shop.table)
    assert shop.read("a", "b") == [None, None]
    assert longer.read("a", "b") == [1.0, 2.0]
    shop.write(("a", NOW_US, 1.0))
    shop.store.teardown(shop.feast.config, [shop.table], [])
    assert shop.read("a") == [None]
    assert longer.read("a", "b") == [1.0, 2.0]
    longer.client.close()


def test_deleting_a_view_leaves_what_other_views_hold_of_the_row(shop: Shop) -> None:
    shop.write(("a", NOW_US, 1.0))
    (key,) = shop.store._generate_redis_keys_for_entities(
        shop.feast.config, [row[0] for row in shop.protos(("a", NOW_US, 1.0))]
    )
    shop.client.hset(key, "_ts:other", b"x")
    shop.store.delete_table(shop.feast.config, shop.table)
    assert shop.client.hgetall(key) == {b"_ts:other": b"x"}
    shop.client.delete(key)


def test_keys_that_are_no_rows_are_left_alone(shop: Shop) -> None:
    from millstream.adapters.feast.online_store import after_values

    assert after_values(b"\x02\x00\x00\x00\x03\x00\x00\x00abcshop", 0, 1) == b"shop"
    assert after_values(b"\x02\x00\x00\x00\xff\x00\x00\x00abcshop", 0, 1) is None
    assert after_values(b"\x02\x00", 0, 1) is None


@pytest.mark.parametrize("setting", [{"skip_dedup": True}, {"redis_type": "redis_cluster"}])
def test_settings_that_would_break_its_promise_are_refused(setting: dict[str, Any]) -> None:
    from millstream.adapters.feast.online_store import MillstreamRedisOnlineStoreConfig

    with pytest.raises(ValidationError, match=next(iter(setting))):
        MillstreamRedisOnlineStoreConfig(**setting)


def test_no_server_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    from millstream.adapters.feast.online_store import MillstreamRedisOnlineStoreConfig, server_url

    with pytest.raises(Misconfigured, match="millstream up"):
        server_url(MillstreamRedisOnlineStoreConfig(state_dir=tmp_path))
    config = MillstreamRedisOnlineStoreConfig(state_dir=tmp_path, url="redis://:secret@example.org:1/0")
    assert server_url(config) == "redis://:secret@example.org:1/0"
    assert "secret" not in repr(config)
