"""Feast's own writer of a view's rows: our codec is validated against it, and it is used if the two differ."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from millstream.adapters.feast.codec import ViewCodec
from millstream.core.declaration import FeatureType, View
from millstream.ports import ViewRows

if TYPE_CHECKING:
    from millstream.settings import Settings

logger = logging.getLogger(__name__)

_VALUE_TYPES: dict[FeatureType, str] = {
    "int64": "INT64",
    "int32": "INT32",
    "float64": "DOUBLE",
    "float32": "FLOAT",
    "bool": "BOOL",
    "string": "STRING",
    "unix_timestamp": "UNIX_TIMESTAMP",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FeastRow = tuple[Any, dict[str, Any], datetime, datetime | None]
_FallbackWrite = Callable[[ViewRows], int]


def feast_rows(view: View, rows: ViewRows) -> list[FeastRow]:
    """Return the rows as ``OnlineStore.online_write_batch`` takes them."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    key_type = ValueType.INT64 if view.key_type == "int64" else ValueType.STRING
    keys = [
        EntityKey(join_keys=[view.join_key], entity_values=[value])
        for value in python_values_to_proto_values(rows.keys.tolist(), key_type)
    ]
    columns = {
        aggregate.feature: python_values_to_proto_values(
            _python_values(rows, position, aggregate.dtype), ValueType[_VALUE_TYPES[aggregate.dtype]]
        )
        for position, aggregate in enumerate(view.aggregates)
    }
    # Microseconds as a timedelta are exact; as a float of seconds they are not.
    times = [_EPOCH + timedelta(microseconds=time_us) for time_us in rows.feature_time_us.tolist()]
    return [
        (key, {name: values[row] for name, values in columns.items()}, time, None)
        for row, (key, time) in enumerate(zip(keys, times, strict=True))
    ]


def _python_values(rows: ViewRows, position: int, dtype: FeatureType) -> list[Any]:
    whole = dtype in {"int64", "int32", "unix_timestamp"}
    convert: Callable[[float], Any] = int if whole else bool if dtype == "bool" else float
    reals = rows.features[:, position]
    values = reals if not whole or rows.wholes is None else rows.wholes[:, position]
    pairs = zip(np.isnan(reals).tolist(), values.tolist(), strict=True)
    return [None if missing else convert(value) for missing, value in pairs]


class _Recorder:
    """A Redis client that answers as an empty server would and remembers what was set."""

    def __init__(self) -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self._asked = 0

    def pipeline(self, transaction: bool = True) -> _Recorder:
        return self

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._asked = 0

    def hmget(self, _key: bytes, _field: str) -> None:
        self._asked += 1

    def hset(self, key: bytes, mapping: dict[Any, bytes]) -> None:
        plain = {name.encode() if isinstance(name, str) else bytes(name): value for name, value in mapping.items()}
        self.hashes.setdefault(key, {}).update(plain)

    def execute(self) -> list[list[None]]:
        return [[None]] * self._asked


def written_by_feast(project: str, view: View, rows: ViewRows) -> dict[bytes, dict[bytes, bytes]]:
    """Return the hashes that Feast's own Redis store sets for these rows, by key."""
    from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

    recorder = _Recorder()
    store: Any = RedisOnlineStore()
    store._client = recorder
    config = SimpleNamespace(
        project=project,
        online_store=RedisOnlineStoreConfig(),
        entity_key_serialization_version=3,
        registry=SimpleNamespace(enable_online_feature_view_versioning=False),
    )
    table = SimpleNamespace(name=view.name)
    store.online_write_batch(config, table, feast_rows(view, rows), None)
    return recorder.hashes


def sample_rows(view: View) -> ViewRows:
    """Return rows with nulls, zeros, signs, and small and large numbers in every feature."""
    numbers = {
        "bool": [0.0, 1.0],
        "int32": [0.0, 1.0, -1.0, 127.0, 128.0, 2.0**31 - 1, -(2.0**31)],
        "float64": [0.0, -0.0, 0.1, -1e300, 5e-324],
        "float32": [0.0, -0.0, 0.5, -1e30, 1e-45],
    }
    whole = [0, 1, -1, 127, 1_533_081_600, 2**53 + 1, 2**63 - 1, -(2**63)]
    count = 9
    columns, wholes = [], []
    for position, aggregate in enumerate(view.aggregates):
        values = [float("nan"), *numbers.get(aggregate.dtype, whole)]
        turned = [values[(row + position) % len(values)] for row in range(count)]
        columns.append(turned)
        wholes.append([int(value) if abs(value) < 2**64 else 0 for value in turned])
    if view.key_type == "int64":
        keys = np.array([0, 1, -1, 42, 255, 256, 2**31, -(2**63), 2**63 - 1], dtype=np.int64)
    else:
        keys = np.array(["", "a", "é", "0", "x" * 300, "a b", "\r\n", "\0", "*?["], dtype=object)
    times_us = np.array([1, 10**6, 1_533_081_600_000_000, 1_533_081_600_000_001] * 3, dtype=np.int64)[:count]
    features = np.column_stack([np.array(column, dtype=np.float64) for column in columns])
    return ViewRows(view.name, keys, features, times_us, np.array(wholes, dtype=np.int64).T)


def difference(codec: ViewCodec, project: str) -> str | None:
    """Return in words where our codec's rows differ from Feast's own, None if every byte is the same."""
    rows = sample_rows(codec.view)
    theirs = written_by_feast(project, codec.view, rows)
    ours = dict(codec.entries(rows))
    if ours.keys() != theirs.keys():
        return f"keys differ, e.g. {next(iter(ours.keys() ^ theirs.keys()))!r}"
    for key, fields in theirs.items():
        for field in fields.keys() | ours[key].keys():
            if fields.get(field) != ours[key].get(field):
                return (
                    f"field {field!r} of key {key!r}: Feast writes {fields.get(field)!r}, we {ours[key].get(field)!r}"
                )
    return None


def feast_fallback(settings: Settings, view: View) -> _FallbackWrite:
    """Return a function that writes rows of a view through the online store class of the repo: right, but slow."""
    from millstream.adapters.feast.repo import open_store

    opened = open_store(settings)
    table = opened.get_stream_feature_view(view.name)

    def write(rows: ViewRows) -> int:
        opened._get_provider().online_write_batch(opened.config, table, feast_rows(view, rows), None)
        return len(rows.keys)

    return write


def check_codecs(settings: Settings, project: str, codecs: Sequence[ViewCodec]) -> dict[str, _FallbackWrite]:
    """Hold each codec against Feast and return, for the views that differ, what must write them instead."""
    started_s = time.perf_counter()
    fallbacks = {}
    for codec in codecs:
        found = difference(codec, project)
        if found is not None:
            logger.error(
                "view %s: this Feast writes Redis rows in another way (%s); its rows are written through Feast itself, "
                "ten times slower. Install a Millstream release made for this Feast",
                codec.view.name,
                found,
            )
            fallbacks[codec.view.name] = feast_fallback(settings, codec.view)
    logger.debug("codecs checked in %.2f s", time.perf_counter() - started_s)
    return fallbacks
