"""The compacted `schemas` topic: every schema a stage writes, by fingerprint, for readers without a registry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Producer

from millstream.adapters.kafka.client import client_logger, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.core.avro.logical_type import type_name
from millstream.core.avro.resolution import indistinguishable
from millstream.core.avro.schema import Schema, SchemaError, SchemaId
from millstream.errors import Misconfigured, Retry
from millstream.settings import Settings
from millstream.topology import SCHEMAS

logger = logging.getLogger(__name__)

_AGAIN_S = 10.0
_TIMEOUT_S = 30.0


def publish_schemas(kafka: Mapping[str, str], schemas: Iterable[Schema]) -> None:
    """Write schemas, keyed by the hexadecimal fingerprint; writing one again changes nothing.

    Raises
    ------
    Retry
        Kafka did not acknowledge in time.
    Misconfigured
        A schema published before has the fingerprint of one of these and other logical types: Avro's fingerprints do
        not cover them, so that records of the two could not be distinguished.
    """
    schemas = list(schemas)
    before = read_schemas(kafka)
    for schema in schemas:
        known = before.get(schema.fingerprint)
        if not isinstance(known, Schema):
            continue
        for name in indistinguishable(known, schema):
            raise Misconfigured(
                f"field {name!r} of {schema.name} was {type_name(known[name])} and is now {type_name(schema[name])}, "
                "and Avro's fingerprint of both schemas is the same, so that records written before would be read in "
                "the new meaning. Give the field another name, or go back to the logical type it had"
            )
    producer = Producer({**kafka, "enable.idempotence": True, "logger": client_logger})
    for schema in schemas:
        key = f"{schema.fingerprint:016x}".encode()
        producer.produce(named(kafka, SCHEMAS), schema.to_json().encode(), key, partition=0)
    left = producer.flush(_TIMEOUT_S)
    if left:
        raise Retry(f"{left} schemas were not acknowledged by Kafka within {_TIMEOUT_S:g} s")


def read_schemas(kafka: Mapping[str, str]) -> dict[int, Schema | SchemaError]:
    """Return all published schemas by fingerprint, and for those that are no Avro record, why not.

    Anybody may publish here: what is no schema must not stop those who read the others.
    """
    found: dict[int, Schema | SchemaError] = {}
    for messages in read_committed(kafka, SCHEMAS, 0, 0, None):
        for message in messages:
            value = message.value()
            if value is None:
                continue
            try:
                schema = Schema.parse(value.decode())
                found[schema.fingerprint] = schema
            except (SchemaError, UnicodeDecodeError) as error:
                try:
                    # It has no fingerprint; the key holds the bytes its records begin with.
                    found[int((message.key() or b"").decode("ascii"), 16)] = SchemaError(str(error))
                except ValueError:
                    logger.warning(
                        "%s@%s: neither a schema nor keyed by a fingerprint: %s", SCHEMAS, message.offset(), error
                    )
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
        read: Callable[[], Mapping[int, Schema | SchemaError]] | None,
        registry: Callable[[SchemaId], Schema | None] | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known: dict[int, Schema | SchemaError] = {schema.fingerprint: schema for schema in known}
        self._read = read
        self._registry = registry
        self._clock_s = clock_s
        self._read_at_s = float("-inf")

    def __call__(self, schema_id: SchemaId) -> Schema | None:
        """Return the schema, or None if it is unknown.

        Raises
        ------
        SchemaError
            It is known, but is no Avro record.
        """
        if schema_id.kind == "registry":
            return self._registry(schema_id) if self._registry is not None else None
        schema = self._known.get(schema_id.number)
        if schema is None and self._read is not None and self._clock_s() - self._read_at_s >= _AGAIN_S:
            self._read_at_s = self._clock_s()
            self._known.update(self._read())
            schema = self._known.get(schema_id.number)
        if isinstance(schema, SchemaError):
            raise schema
        return schema


def schema_resolver(settings: Settings, kafka: Mapping[str, str], known: Iterable[Schema]) -> SchemaResolver:
    """Return a resolver that knows ``known``, the `schemas` topic and the settings' registry.

    Raises
    ------
    Misconfigured
        If the registry's URL or credentials are malformed.
    """
    registry: Callable[[SchemaId], Schema | None] | None = None
    if settings.schema_registry_url is not None:  # its client takes a second to import
        from millstream.adapters.kafka.schema_registry import connect

        registry = connect(settings)
    return SchemaResolver(known, lambda: read_schemas(kafka), registry)
