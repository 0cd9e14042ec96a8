"""Feast's Redis online store, made safe to share: what `feature_store.yaml` names as ``online_store.type``.

The layout is Feast's own, so that plain ``type: redis`` reads it too. Writes compare event times and set in one step,
so that ``feast materialize`` can not replace a newer streamed row; deletes touch exactly the named project's rows.
Feast imports this module; nothing else in Millstream may do so before it needs Feast.
"""

from __future__ import annotations

import logging
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from feast.infra.online_stores import redis as feast_redis
from feast.infra.online_stores.helpers import compute_versioned_name
from pydantic import SecretStr, field_validator
from redis import Redis, asyncio

from millstream.adapters.feast.codec import feature_field, key_prefix, time_field
from millstream.adapters.redis.compare_and_set import SCRIPT, SHA, view_arguments

logger = logging.getLogger(__name__)

# Feast warns each time it reads such a view from its registry; plain Feast clients of our repos meet only this module.
warnings.filterwarnings("ignore", "Stream feature views are experimental", RuntimeWarning)

_Rows = list[tuple[Any, dict[str, Any], datetime, datetime | None]]
_TIMEOUTS_S: dict[str, Any] = {"socket_connect_timeout": 2.0, "socket_timeout": 10.0}
_SCAN = 1000
_CLASS = "millstream.adapters.feast.online_store.MillstreamRedisOnlineStore"


class MillstreamRedisOnlineStoreConfig(feast_redis.RedisOnlineStoreConfig):
    """Settings under ``online_store`` in feature_store.yaml, besides those of Feast's Redis store.

    Where the server is: ``connection_string`` or ``url``, else what Millstream uses (MILLSTREAM_REDIS_URL, else the
    embedded server of ``state_dir``, by default that of the environment's settings, looked for here and above).
    """

    type: Literal[_CLASS] = _CLASS  # type: ignore[valid-type] # one name per class is Feast's convention
    connection_string: str = ""
    url: SecretStr | None = None
    state_dir: Path | None = None
    honour_ttl: bool = False
    """Read rows older than their view's ``ttl`` as absent, as the offline store does."""
    absent_is_not_found: bool = False
    """Report features of an entity that was never written as NOT_FOUND, not as PRESENT and null."""
    most_seconds_ahead: float | None = None
    """Refuse rows whose event time is further than this in the future: one of them would pin its key."""

    @field_validator("redis_type")
    @classmethod
    def _one_server(cls, value: feast_redis.RedisType) -> feast_redis.RedisType:
        if value == feast_redis.RedisType.redis_cluster:
            raise ValueError("redis_cluster is not supported here; use redis or redis_sentinel")
        return value

    @field_validator("skip_dedup")
    @classmethod
    def _compared(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "skip_dedup would let older rows replace newer ones; leave it out, comparing is cheap here"
            )
        return value


class MillstreamRedisOnlineStore(feast_redis.RedisOnlineStore):
    """Feast's Redis store with compare-and-set writes, exact deletes and, opt-in, ttl and NOT_FOUND on read.

    Attributes
    ----------
    refused_ahead : int
        Rows refused because their event time was too far in the future.
    """

    refused_ahead = 0

    def __init__(self) -> None:
        super().__init__()
        self._ttl_s: dict[str, float] = {}
        self._absent_is_not_found = False

    # ---- where the server is

    def _get_client(self, online_store_config: Any) -> Any:
        if not self._client and not online_store_config.connection_string:
            self._client = Redis.from_url(server_url(online_store_config), **_TIMEOUTS_S)
        return super()._get_client(online_store_config)

    async def _get_client_async(self, online_store_config: Any) -> Any:
        if not self._client_async and not online_store_config.connection_string:
            self._client_async = asyncio.Redis.from_url(server_url(online_store_config), **_TIMEOUTS_S)
        return await super()._get_client_async(online_store_config)

    # ---- writing

    def online_write_batch(self, config: Any, table: Any, data: _Rows, progress: Callable[[int], Any] | None) -> None:
        """Write rows unless newer ones are stored.

        Of rows with the same entity key the newest wins, whatever their order.
        """
        kept = self._not_ahead(config, table, data)
        if kept:
            with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
                self._queue(pipe, config, table, kept)
                pipe.execute()
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: Any, table: Any, data: _Rows, progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows unless newer ones are stored, as `online_write_batch` does."""
        kept = self._not_ahead(config, table, data)
        if kept:
            client = await self._get_client_async(config.online_store)
            async with client.pipeline(transaction=False) as pipe:
                self._queue(pipe, config, table, kept)
                await pipe.execute()
        if progress:
            progress(len(data))

    def _queue(self, pipe: Any, config: Any, table: Any, data: _Rows) -> None:
        from feast import utils
        from google.protobuf.timestamp_pb2 import Timestamp

        view = _stored_name(config, table)
        ttl_s = config.online_store.key_ttl_seconds or 0
        keys = self._generate_redis_keys_for_entities(config, [entity for entity, _, _, _ in data])
        # In the same pipeline, so that a server that was restarted meanwhile knows the script.
        pipe.script_load(SCRIPT)
        for key, (_, values, timestamp, _) in zip(keys, data, strict=True):
            time = Timestamp()
            time.FromDatetime(utils.make_tzaware(timestamp))
            fields = [feature_field(view, name) for name in values]
            contents = [value.SerializeToString() for value in values.values()]
            arguments = view_arguments(ttl_s, time_field(view), fields)
            pipe.evalsha(SHA.decode(), 1, key, *arguments, time.SerializeToString(), *contents)

    def _not_ahead(self, config: Any, table: Any, data: _Rows) -> _Rows:
        limit_s = config.online_store.most_seconds_ahead
        if limit_s is None:
            return data
        from feast import utils

        latest_s = datetime.now(UTC).timestamp() + limit_s
        kept = [row for row in data if utils.make_tzaware(row[2]).timestamp() <= latest_s]
        refused = len(data) - len(kept)
        if refused:
            self.refused_ahead += refused
            logger.warning(
                "%s: refused %s rows with event times more than %s s in the future", table.name, refused, limit_s
            )
        return kept

    # ---- reading

    def online_read(self, config: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
        """Read rows as Feast does, under this store's rules for what counts as absent."""
        self._remember(config, [table])
        return super().online_read(config, table, *args, **kwargs)

    async def online_read_async(self, config: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
        """Read rows as `online_read` does."""
        self._remember(config, [table])
        return await super().online_read_async(config, table, *args, **kwargs)

    def _read_features_per_fv(self, config: Any, grouped_refs: Any, *args: Any, **kwargs: Any) -> None:
        self._remember(config, [table for table, _ in grouped_refs])
        super()._read_features_per_fv(config, grouped_refs, *args, **kwargs)

    async def _read_features_per_fv_async(self, config: Any, grouped_refs: Any, *args: Any, **kwargs: Any) -> None:
        self._remember(config, [table for table, _ in grouped_refs])
        await super()._read_features_per_fv_async(config, grouped_refs, *args, **kwargs)

    def _remember(self, config: Any, tables: Sequence[Any]) -> None:
        """Note what `_get_features_for_entity`, which is only given the view's name, must know about the views."""
        self._absent_is_not_found = config.online_store.absent_is_not_found
        if config.online_store.honour_ttl:
            for table in tables:
                self._ttl_s[_stored_name(config, table)] = table.ttl.total_seconds() if table.ttl else 0.0

    def _get_features_for_entity(self, values: Sequence[Any], feature_view: str, requested_features: list[str]) -> Any:
        time, features = super()._get_features_for_entity(values, feature_view, requested_features)
        absent = self._absent_is_not_found and values[-1] is None  # the time field comes last
        ttl_s = self._ttl_s.get(feature_view, 0.0)
        if absent or (ttl_s and time is not None and datetime.now(UTC).timestamp() - time.timestamp() > ttl_s):
            return None, None
        return time, features

    # ---- deleting

    def update(self, config: Any, tables_to_delete: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """Delete the rows of views that are no longer there; one that is not online has none, and needs no server."""
        super().update(config, [table for table in tables_to_delete if table.online], *args, **kwargs)

    def delete_entity_values(self, config: Any, join_keys: list[str]) -> None:
        """Delete all rows of this project with these join keys, and no other project's."""
        client = self._get_client(config.online_store)
        deleted = 0
        for keys in _chunks(rows_of(client, config.project, join_keys)):
            deleted += client.unlink(*keys)
        logger.debug("deleted %s rows of %s", deleted, ", ".join(join_keys))

    def delete_table(self, config: Any, table: Any) -> None:
        """Delete a view's part of this project's rows; a row with nothing left goes altogether."""
        client = self._get_client(config.online_store)
        view = _stored_name(config, table)
        fields = [feature_field(view, feature.name) for feature in table.features]
        for keys in _chunks(rows_of(client, config.project, table.join_keys)):
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hdel(key, time_field(view), *fields)
                pipe.execute()


def server_url(config: MillstreamRedisOnlineStoreConfig) -> str:
    """Return the URL of the server Millstream uses.

    Raises
    ------
    Misconfigured
        If none is set and the embedded one does not run; says what to do.
    """
    if config.url is not None:
        return config.url.get_secret_value()
    from millstream.adapters.redis.location import redis_url
    from millstream.settings import PREFIX, load_settings

    settings = load_settings(state_dir=config.state_dir)
    if config.state_dir is None and f"{PREFIX}STATE_DIR" not in os.environ:
        # Feast's commands change into the repo, below which nothing is kept.
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / settings.state_dir / "endpoints.json").is_file():
                settings = load_settings(state_dir=folder / settings.state_dir)
                break
    return redis_url(settings)


def rows_of(client: Any, project: str, join_keys: Sequence[str]) -> Iterator[bytes]:
    """Yield the keys of exactly this project's rows with these join keys.

    A pattern alone also matches projects whose names end like this one's, so each key is parsed to its end.
    """
    prefix = key_prefix(tuple(sorted(join_keys)))
    name = project.encode()
    escaped = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in prefix)
    for key in client.scan_iter(escaped + b"*", count=_SCAN):
        if after_values(key, len(prefix), len(join_keys)) == name:
            yield key


def after_values(key: bytes, at: int, count: int) -> bytes | None:
    """Return what follows ``count`` entity values from ``at`` on, None if the key is no such thing."""
    for _ in range(count):
        if len(key) < at + 8:
            return None
        (length,) = struct.unpack_from("<I", key, at + 4)
        at += 8 + length
    return key[at:] if at <= len(key) else None


def _chunks(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == _SCAN:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _stored_name(config: Any, table: Any) -> str:
    return str(compute_versioned_name(table, config.registry.enable_online_feature_view_versioning))
