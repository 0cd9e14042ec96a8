"""Batch views read per micro-batch from a real Valkey, and what scoring sees while there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.batch_views import BatchViewReader
from millstream.adapters.feast.values import decode_column, decode_value
from millstream.core.batch import Batch
from millstream.core.declaration import BatchView, Declaration, FeatureType, Service
from millstream.settings import Settings

VALUES: dict[FeatureType, tuple[str, list[Any]]] = {
    "int64": ("INT64", [0, 1, -1, 300, 2**63 - 1, -(2**63)]),
    "int32": ("INT32", [0, 1, -1, 300, 2**31 - 1, -(2**31)]),
    "float64": ("DOUBLE", [0.0, -0.5, 1e300, float("inf")]),
    "float32": ("FLOAT", [0.0, -0.5, 2.0**100]),
    "bool": ("BOOL", [False, True]),
    "string": ("STRING", ["", "a", "é" * 200]),
    "unix_timestamp": ("UNIX_TIMESTAMP", [0, 1_533_081_600, -1]),
}
FEATURES: tuple[tuple[str, FeatureType], ...] = tuple((f"f_{dtype}", dtype) for dtype in VALUES)
VIEW = BatchView("upkeep", (("site_id", "int64"), ("machine_id", "string")), FEATURES)


def declaration(project: str) -> Declaration:
    return Declaration(project, "t", (), (), (VIEW,), Service("s", (), "0.0", 0.5, {}))


def write_as_feast(url: str, project: str, rows: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Write rows by Feast's own Redis store."""
    from datetime import UTC, datetime
    from types import SimpleNamespace

    from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    def proto(value: Any, kind: str) -> Any:
        return python_values_to_proto_values([value], ValueType[kind])[0]

    data = [
        (
            EntityKey(join_keys=["site_id", "machine_id"], entity_values=[proto(site, "INT64"), proto(name, "STRING")]),
            {feature: proto(values.get(feature), VALUES[dtype][0]) for feature, dtype in FEATURES},
            datetime(2026, 3, 1, tzinfo=UTC),
            None,
        )
        for site, name, values in rows
    ]
    config = SimpleNamespace(
        project=project,
        online_store=RedisOnlineStoreConfig(connection_string=url.removeprefix("redis://").partition("/")[0]),
        entity_key_serialization_version=3,
        registry=SimpleNamespace(enable_online_feature_view_versioning=False),
    )
    store: Any = RedisOnlineStore()
    store.online_write_batch(config, SimpleNamespace(name=VIEW.name), data, None)
    store._client.close()


def batch(*keys: tuple[int, str]) -> Batch:
    return Batch(
        len(keys),
        {
            "site_id": np.array([key[0] for key in keys]),
            "machine_id": np.array([key[1] for key in keys], dtype=object),
        },
    )


@pytest.fixture
def reader(valkey: Endpoints) -> Iterator[BatchViewReader]:
    made = BatchViewReader(declaration("batch_suite"), valkey.redis_url)
    yield made
    made.close()


@pytest.mark.redis
def test_what_feast_wrote_is_read_back_for_each_row(reader: BatchViewReader, valkey: Endpoints) -> None:
    most = max(len(values) for _, values in VALUES.values())
    written = [
        (at, f"m{at}", {f"f_{dtype}": values[at % len(values)] for dtype, (_, values) in VALUES.items()})
        for at in range(most)
    ]
    write_as_feast(valkey.redis_url, "batch_suite", [*written, (99, "nothing", {})])
    asked = [*((site, name) for site, name, _ in written), (99, "nothing"), (0, "never"), (0, "m0")]
    columns, nulls = reader(batch(*asked))
    for feature, _dtype in FEATURES:
        name = f"upkeep__{feature}"
        assert columns[name][:most].tolist() == [row[2][feature] for row in written]
        assert nulls[name].tolist() == [False] * most + [True, True, False]
        assert columns[name][-1] == written[0][2][feature]


@pytest.mark.redis
def test_more_rows_than_one_trip_takes_are_all_read(reader: BatchViewReader, valkey: Endpoints) -> None:
    write_as_feast(valkey.redis_url, "batch_suite", [(site, "many", {"f_int64": site}) for site in range(1000, 3500)])
    columns, nulls = reader(batch(*((site, "many") for site in range(1000, 3500))))
    assert columns["upkeep__f_int64"].tolist() == list(range(1000, 3500))
    assert "upkeep__f_int64" not in nulls


@pytest.mark.redis
def test_a_row_without_a_key_has_no_features(reader: BatchViewReader, valkey: Endpoints) -> None:
    write_as_feast(valkey.redis_url, "batch_suite", [(5, "m", {"f_int64": 5})])
    asked = batch((5, "m"), (5, "m"))
    columns, nulls = reader(Batch(2, asked.columns, {"site_id": np.array([False, True])}))
    assert columns["upkeep__f_int64"][0] == 5
    assert nulls["upkeep__f_int64"].tolist() == [False, True]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.redis
def test_a_store_that_goes_away_gives_nulls_and_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, kafka={"bootstrap.servers": "127.0.0.1:1"})
    url = servers.start(settings, print).redis_url
    try:
        write_as_feast(url, "p", [(1, "m", {"f_int64": 7})])
        reader = BatchViewReader(declaration("p"), url)
        assert "upkeep__f_int64" not in reader(batch((1, "m")))[1]
        servers.stop(settings)
        assert reader(batch((1, "m")))[1]["upkeep__f_int64"].tolist() == [True]
        assert reader(batch((1, "m")))[1]["upkeep__f_int64"].tolist() == [True]
        assert (reader.failures, reader.skipped) == (1, 1), "the second was not even tried"
        servers.start(settings, print)
        wait_until(lambda: "upkeep__f_int64" not in reader(batch((1, "m")))[1])
        assert reader(batch((1, "m")))[0]["upkeep__f_int64"].tolist() == [7]
        reader.close()
    finally:
        servers.stop(settings)


@pytest.mark.redis
def test_a_hung_store_costs_one_wait_and_then_nothing(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, kafka={"bootstrap.servers": "127.0.0.1:1"})
    url = servers.start(settings, print).redis_url
    client = redis.Redis.from_url(url)
    try:
        reader = BatchViewReader(declaration("p"), url)
        client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
        for _ in range(50):
            assert reader(batch((1, "m")))[1]["upkeep__f_int64"].tolist() == [True]
        assert (reader.failures, reader.skipped) == (1, 49)
        reader.close()
    finally:
        client.close()
        servers.stop(settings)


def test_what_is_of_another_kind_than_declared_is_null() -> None:
    stored = [b"\x20\x05", b"\x29" + b"\0" * 8, b"\x12\x01a", b"\x38\x01", None, b"", b"\x8a\x01\x00"]
    # Feast writes a time that is null as the least int64.
    least = b"\x40" + b"\x80" * 9 + b"\x01"
    assert decode_column([least, b"\x40\x05"], "unix_timestamp")[1].tolist() == [True, False]
    assert decode_column(stored, "int64")[1].tolist() == [False, True, True, True, True, True, True]
    assert decode_column(stored, "float64")[1].tolist() == [False, False, True, True, True, True, True]
    assert decode_column(stored, "string")[1].tolist() == [True, True, False, True, True, True, True]
    assert decode_column(stored, "bool")[1].tolist() == [True, True, True, False, True, True, True]


def test_a_stored_nan_is_null() -> None:
    values, nulls = decode_column([b"\x29" + np.array([np.nan]).tobytes()], "float64")
    assert nulls.tolist() == [True]
    assert values.dtype == np.float64


def test_negative_numbers_take_ten_bytes() -> None:
    assert decode_value(b"\x20" + b"\xff" * 9 + b"\x01") == -1
