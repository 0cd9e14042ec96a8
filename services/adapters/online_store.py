"""Feast's online store class for `feature_store.yaml`: its Redis store, with writes that never go back in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from google.protobuf.timestamp_pb2 import Timestamp

from services.adapters.endpoints import resolve
from services.adapters.redis_cas import CAS
from services.settings import load_settings

_ROWS_PER_TRIP = 500


class MillstreamRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Settings of the store; all of Feast's Redis settings apply.

    Parameters
    ----------
    connection_string : str
        As in Feast. Empty: MILLSTREAM_REDIS_URL, else the embedded server of the state directory.
    ttl_on_read : bool
        Answer null for rows older than their view's ``ttl``, as historical joins do; Feast's own store never does.
    future_limit_seconds : int or None
        Refuse rows stamped further ahead of the wall clock: one of those would shut out all later ones.
    """

    type: Literal["services.adapters.online_store.MillstreamRedisOnlineStore"] = (
        "services.adapters.online_store.MillstreamRedisOnlineStore"
    )
    connection_string: str = ""
    ttl_on_read: bool = False
    future_limit_seconds: int | None = None


def connection_string(url: str) -> str:
    """Return a redis:// or rediss:// URL in Feast's ``host:port,name=value`` form."""
    parts = urlsplit(url)
    options = [f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"]
    if parts.path.strip("/"):
        options.append(f"db={parts.path.strip('/')}")
    if parts.username:
        options.append(f"username={parts.username}")
    if parts.password:
        options.append(f"password={parts.password}")
    if parts.scheme == "rediss":
        options.append("ssl=true")
    return ",".join(options)


class MillstreamRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """See the module."""

    def _connected(self, config: MillstreamRedisOnlineStoreConfig) -> MillstreamRedisOnlineStoreConfig:
        if not config.connection_string:
            config.connection_string = connection_string(resolve(load_settings()).redis_url)
        return config

    def _get_client(self, online_store_config: Any) -> Any:
        return super()._get_client(self._connected(online_store_config))

    async def _get_client_async(self, online_store_config: Any) -> Any:
        return await super()._get_client_async(self._connected(online_store_config))

    def _commands(self, config: RepoConfig, table: FeatureView, data: Sequence[Any]) -> list[list[Any]]:
        store = config.online_store
        stamp_field = f"_ts:{table.name}".encode()
        limit = None
        if store.future_limit_seconds is not None:
            limit = datetime.now(UTC) + timedelta(seconds=store.future_limit_seconds)
        commands = []
        for entity_key, values, event_time, _created in data:
            moment = event_time if event_time.tzinfo else event_time.replace(tzinfo=UTC)
            if limit is not None and moment > limit:
                continue
            stamp = Timestamp()
            stamp.FromDatetime(moment)
            pairs = [part for name, value in values.items() for part in self._pair(table, name, value)]
            key = _redis_key(config.project, entity_key, config.entity_key_serialization_version)
            times = [stamp.seconds, stamp.nanos, store.key_ttl_seconds or 0]
            commands.append([1, key, stamp_field, *times, *pairs, stamp_field, stamp.SerializeToString()])
        return commands

    @staticmethod
    def _pair(table: FeatureView, name: str, value: Any) -> tuple[bytes, bytes]:
        return _mmh3(f"{table.name}:{name}"), value.SerializeToString()

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows that are newer than what is stored; each in one step."""
        client = self._get_client(config.online_store)
        sha = client.script_load(CAS)
        commands = self._commands(config, table, data)
        for start in range(0, len(commands), _ROWS_PER_TRIP):
            pipe = client.pipeline(transaction=False)
            for command in commands[start : start + _ROWS_PER_TRIP]:
                pipe.execute_command("EVALSHA", sha, *command)
            pipe.execute()
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Do the same without blocking the event loop."""
        client = await self._get_client_async(config.online_store)
        sha = await client.script_load(CAS)
        commands = self._commands(config, table, data)
        for start in range(0, len(commands), _ROWS_PER_TRIP):
            pipe = client.pipeline(transaction=False)
            for command in commands[start : start + _ROWS_PER_TRIP]:
                pipe.execute_command("EVALSHA", sha, *command)
            await pipe.execute()
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[Any],
        requested_features: list[str] | None = None,
    ) -> list[Any]:
        """Read rows; with ``ttl_on_read`` the expired ones are absent."""
        rows: list[Any] = super().online_read(config, table, entity_keys, requested_features)
        if not config.online_store.ttl_on_read or not table.ttl:
            return rows
        oldest = datetime.now(UTC) - table.ttl
        return [
            (None, None)
            if moment is not None and moment.replace(tzinfo=moment.tzinfo or UTC) < oldest
            else (moment, values)
            for moment, values in rows
        ]

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """Delete all rows of an entity, of this project only: keys are parsed, not matched by their end."""
        client = self._get_client(config.online_store)
        with client.pipeline(transaction=False) as pipe:
            for key in self._own_keys(client, config, join_keys):
                pipe.delete(key)
            pipe.execute()

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete one view's fields of this project only; a hash left without any view goes too."""
        client = self._get_client(config.online_store)
        fields = [_mmh3(f"{table.name}:{feature.name}") for feature in table.features]
        fields.append(f"_ts:{table.name}".encode())
        keys = list(self._own_keys(client, config, table.join_keys))
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hdel(key, *fields)
            pipe.execute()

    @staticmethod
    def _own_keys(client: Any, config: RepoConfig, join_keys: list[str]) -> list[bytes]:
        prefix, project = serialize_entity_key_prefix(sorted(join_keys)), config.project.encode()
        found = []
        for key in client.scan_iter(_glob(prefix) + b"*"):
            at = len(prefix)
            for _ in join_keys:
                if at + 8 > len(key):
                    break
                at += 8 + int.from_bytes(key[at + 4 : at + 8], "little")
            if key[at:] == project:
                found.append(key)
        return found


def _glob(prefix: bytes) -> bytes:
    """Escape what SCAN's MATCH would take for a wildcard."""
    special = b"*?[]\\"
    return b"".join(b"\\" + bytes([byte]) if byte in special else bytes([byte]) for byte in prefix)
