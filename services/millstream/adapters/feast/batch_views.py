"""Batch feature views, materialised by other jobs: online rows read for each micro-batch in one round trip.

A store that is away must not slow scoring: its features are null from the first failure on, and a thread of its own
waits for it to come back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import redis

from millstream.adapters.feast.codec import bulk, feature_field, key_prefix, key_values
from millstream.adapters.feast.values import decode_column
from millstream.core.batch import Array, Batch, Mask
from millstream.core.declaration import BatchView, Declaration

logger = logging.getLogger(__name__)

_READ_S = 0.25
_CONNECT_S = 1.0
_RETRY_S = 0.5
_KEYS_PER_TRIP = 1000


class BatchViewReader:
    """`millstream.stages.score.step.Carried` on Redis; `close` it after use.

    Not safe for use by several threads.

    Parameters
    ----------
    declaration : Declaration
        Its project and batch views.
    redis_url : str
        redis:// or rediss:// URL.

    Attributes
    ----------
    failures : int
        Reads that failed or took longer than 250 ms; the features of those micro-batches are null.
    skipped : int
        Micro-batches that were not even asked for, because the store was away.
    """

    def __init__(self, declaration: Declaration, redis_url: str) -> None:
        self.failures = 0
        self.skipped = 0
        self._views = tuple(_Reads(declaration.project, view) for view in declaration.batch)
        self._pool = redis.ConnectionPool.from_url(
            redis_url, socket_timeout=_READ_S, socket_connect_timeout=_CONNECT_S, max_connections=2**31
        )
        self._connection: Any = None
        self._closed = threading.Event()
        self._connected = threading.Event()
        self._reconnect()
        self._connected.wait(_CONNECT_S)

    def __call__(self, batch: Batch) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Return the views' columns and null masks for these rows; never raises, waits 250 ms at most per failure."""
        columns: dict[str, Array] = {}
        nulls: dict[str, Mask] = {}
        if not self._connected.is_set():
            self.skipped += 1
        for view in self._views:
            keys, rows = view.keys(batch)
            stored = self._read(view, keys)
            for position, (column, dtype) in enumerate(view.columns):
                values = [None if row < 0 else stored[row][position] for row in rows]
                columns[column], missing = decode_column(values, dtype)
                if missing.any():
                    nulls[column] = missing
        return columns, nulls

    def close(self) -> None:
        """Close the connection."""
        self._closed.set()
        if self._connected.is_set() and self._connection is not None:
            self._connection.disconnect()

    def _read(self, view: _Reads, keys: list[bytes]) -> Sequence[Sequence[bytes | None]]:
        absent = [view.absent] * len(keys)
        if not self._connected.is_set():
            return absent
        stored: list[Sequence[bytes | None]] = []
        try:
            for first in range(0, len(keys), _KEYS_PER_TRIP):
                commands = [view.command(key) for key in keys[first : first + _KEYS_PER_TRIP]]
                self._connection.send_packed_command([b"".join(commands)])
                stored += [self._connection.read_response() for _ in commands]
        except (redis.RedisError, OSError) as error:
            self.failures += 1
            self._connected.clear()
            logger.warning("batch features are null until the online store answers again: %s", error)
            self._connection.disconnect()
            self._reconnect()
            return absent
        return stored

    def _reconnect(self) -> None:
        threading.Thread(target=self._wait_for_store, name="batch-views-reconnect", daemon=True).start()

    def _wait_for_store(self) -> None:
        while not self._closed.is_set():
            connection: Any = self._pool.make_connection()
            try:
                connection.connect()
                connection.send_command("PING")
                connection.read_response()
            except (redis.RedisError, OSError):
                connection.disconnect()
                self._closed.wait(_RETRY_S)
                continue
            self._connection = connection
            self._connected.set()
            return


class _Reads:
    """How one batch view is read."""

    def __init__(self, project: str, view: BatchView) -> None:
        self.columns = [(f"{view.name}__{name}", dtype) for name, dtype in view.features]
        self.absent: Sequence[bytes | None] = [None] * len(view.features)
        self._join_keys = sorted(view.join_keys)
        self._prefix = key_prefix(tuple(name for name, _ in self._join_keys))
        self._suffix = project.encode()
        fields = [bulk(feature_field(view.name, name)) for name, _ in view.features]
        self._head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields))
        self._fields = b"".join(fields)

    def keys(self, batch: Batch) -> tuple[list[bytes], list[int]]:
        """Return the distinct keys of the rows, and for each row the position of its own; -1 where one is null."""
        parts = [key_values(batch.columns[name], kind) for name, kind in self._join_keys]
        position: dict[bytes, int] = {}
        rows = [
            position.setdefault(b"".join((self._prefix, *values, self._suffix)), len(position))
            for values in zip(*parts, strict=True)
        ]
        for name, _ in self._join_keys:
            if name in batch.nulls:
                rows = [-1 if null else row for row, null in zip(rows, batch.nulls[name].tolist(), strict=True)]
        return list(position), rows

    def command(self, key: bytes) -> bytes:
        """Return the RESP command that reads one key's features."""
        return b"".join((self._head, bulk(key), self._fields))
