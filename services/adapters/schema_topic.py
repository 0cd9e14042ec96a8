"""The compacted `schemas` topic: every schema a stage writes, by fingerprint, for readers without a registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Producer

from services.adapters.kafka_client import client_logger, read_committed
from services.core.avro.schema import Schema, SchemaId
from services.errors import Retry
from services.topology import SCHEMAS

_AGAIN_S = 10.0
_TIMEOUT_S = 30.0


def publish_schemas(kafka: Mapping[str, str], schemas: Iterable[Schema]) -> None:
    """Write schemas, keyed by the hexadecimal fingerprint; writing one again changes nothing.

    Raises
    ------
    Retry
        Kafka did not acknowledge in time.
    """
    producer = Producer({**kafka, "enable.idempotence": True, "logger": client_logger})
    for schema in schemas:
        producer.produce(SCHEMAS, schema.to_json().encode(), f"{schema.fingerprint:016x}".encode(), partition=0)
    left = producer.flush(_TIMEOUT_S)
    if left:
        raise Retry(f"{left} schemas were not acknowledged by Kafka within {_TIMEOUT_S:g} s")


def read_schemas(kafka: Mapping[str, str]) -> dict[int, Schema]:
    """Return all published schemas by fingerprint."""
    found = {}
    for messages in read_committed(kafka, SCHEMAS, 0, 0, None):
        for message in messages:
            value = message.value()
            if value is not None:
                schema = Schema.parse(value.decode())
                found[schema.fingerprint] = schema
    return found


class SchemaResolver:
    """Finds a writer's schema: known ones first, then the `schemas` topic, then the registry if there is one.

    Parameters
    ----------
    known : iterable of Schema
        Contracts and the topology's own schemas.
    read : callable
        Reads the `schemas` topic; asked at most every 10 s, so that poison with made-up fingerprints costs nothing.
    registry : callable or None
        Looks a registry id up.
    """

    def __init__(
        self,
        known: Iterable[Schema],
        read: Callable[[], Mapping[int, Schema]] | None,
        registry: Callable[[SchemaId], Schema | None] | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = {schema.fingerprint: schema for schema in known}
        self._read = read
        self._registry = registry
        self._clock_s = clock_s
        self._read_at_s = float("-inf")

    def __call__(self, schema_id: SchemaId) -> Schema | None:
        """Return the schema, or None when nobody knows it."""
        if schema_id.kind == "registry":
            return self._registry(schema_id) if self._registry is not None else None
        schema = self._known.get(schema_id.number)
        if schema is None and self._read is not None and self._clock_s() - self._read_at_s >= _AGAIN_S:
            self._read_at_s = self._clock_s()
            self._known.update(self._read())
            schema = self._known.get(schema_id.number)
        return schema
