"""A Confluent-compatible schema registry: register what is written, look up what is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from millstream.core.avro.schema import Schema, SchemaError, SchemaId
from millstream.errors import Misconfigured, Retry
from millstream.settings import Settings

_log = logging.getLogger(__name__)

_UNKNOWN_FOR_S = 60.0
_MOST_UNKNOWN = 10_000
_TIMEOUT_S = 5.0


def connect(settings: Settings) -> SchemaRegistry | None:
    """Return the registry of the settings, or None when none is set; nothing is sent yet.

    Raises
    ------
    Misconfigured
        If the URL or the credentials are malformed.
    """
    if settings.schema_registry_url is None:
        return None
    config: dict[str, object] = {
        "url": settings.schema_registry_url,
        "timeout": _TIMEOUT_S,
        "max.retries": 1,  # the caller retries in place, knowing its own deadline
        "retries.wait.ms": 50,
    }
    if settings.schema_registry_user_info is not None:
        config["basic.auth.user.info"] = settings.schema_registry_user_info.get_secret_value()
    try:
        return SchemaRegistry(SchemaRegistryClient(config))
    except ValueError as error:
        raise Misconfigured(
            "MILLSTREAM_SCHEMA_REGISTRY_URL must be http(s)://host:port and MILLSTREAM_SCHEMA_REGISTRY_USER_INFO "
            "user:password"
        ) from error


def registry_prefix(schema_id: SchemaId) -> bytes:
    """Return the Confluent framing of a registry id: a zero byte and the id, four bytes big-endian."""
    return b"\0" + schema_id.number.to_bytes(4, "big")


class SchemaRegistry:
    """Registry ids to schemas and back, cached for the life of the process.

    Parameters
    ----------
    client : SchemaRegistryClient
        How the registry is reached.
    clock_s : callable
        Monotonic seconds; an unknown id is looked up again after a minute, so that malformed records cost no request
        each.
    """

    def __init__(self, client: SchemaRegistryClient, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock_s = clock_s
        self._schemas: dict[int, Schema | SchemaError] = {}
        self._unknown: dict[int, float] = {}

    def register(self, topic: str, schema: Schema) -> SchemaId:
        """Register a schema as ``{topic}-value`` and return its id; registering it again returns the same one.

        Raises
        ------
        Retry
            The registry cannot be reached for now.
        Misconfigured
            It refuses the schema or the credentials.
        """
        with _translated(f"register the schema of {topic!r}"):
            number = int(self._client.register_schema(f"{topic}-value", RegistrySchema(schema.to_json(), "AVRO")))
        self._schemas[number] = schema
        return SchemaId("registry", number)

    def __call__(self, schema_id: SchemaId) -> Schema | None:
        """Return the schema of a registry id, or None if there is none.

        Raises
        ------
        SchemaError
            The registry has it, but it is no Avro record.
        Retry, Misconfigured
            As `register`.
        """
        number = schema_id.number
        if schema_id.kind != "registry":
            return None
        known = self._schemas.get(number)
        if known is None:
            known = self._look_up(number)
        if isinstance(known, SchemaError):
            raise known
        return known

    def _look_up(self, number: int) -> Schema | SchemaError | None:
        now_s = self._clock_s()
        if now_s - self._unknown.get(number, float("-inf")) < _UNKNOWN_FOR_S:
            return None
        schema = self._fetch(number)
        if schema is not None:
            self._schemas[number] = schema
            return schema
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[number] = now_s
        return None

    def _fetch(self, number: int) -> Schema | SchemaError | None:
        with _translated(f"look schema {number} up"):
            try:
                found = self._client.get_schema(number)
            except SchemaRegistryError as error:
                if error.http_status_code == 404:
                    return None
                raise
        if found.schema_type not in (None, "AVRO"):
            return self._refused(number, f"is {found.schema_type}; only Avro is read")
        try:
            return Schema.parse(found.schema_str or "")
        except SchemaError as error:
            return self._refused(number, f"cannot be used: {error}")

    def _refused(self, number: int, why: str) -> SchemaError:
        _log.warning("schema %d of the registry %s; its records become dead letters", number, why)
        return SchemaError(f"schema {number} of the registry {why}")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except SchemaRegistryError as error:
        if error.http_status_code >= 500 or error.http_status_code in (408, 429):
            raise Retry(f"the schema registry cannot {doing} now: {error}") from error
        raise Misconfigured(
            f"the schema registry refuses to {doing}: {error}. Check MILLSTREAM_SCHEMA_REGISTRY_URL, "
            "MILLSTREAM_SCHEMA_REGISTRY_USER_INFO and the subject's compatibility"
        ) from error
    except httpx2.TransportError as error:
        raise Retry(f"the schema registry cannot be reached to {doing}: {error!r}") from error
