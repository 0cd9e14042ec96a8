"""Promotions: the compacted ``models`` topic, whose newest record of a name is that model's champion.

The model travels inside the record, so that scorers need neither the registry nor a shared disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np
from confluent_kafka import Message

from millstream.adapters.files.contracts import SUFFIX, read_contract, schemas_dir
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.key_follower import KeyFollower, Read, newest
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer
from millstream.adapters.kafka.producer import publish as queue
from millstream.adapters.kafka.schema_topic import SchemaResolver, read_schemas
from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch
from millstream.errors import Refused, Retry
from millstream.ports import ModelVersion
from millstream.settings import Settings
from millstream.topology import MODELS

PAPERS_MARK = "@"
"""Between name and version in the key of a record that keeps a version's manifest, without its body, for good."""

_OVERHEAD_BYTES = 1024  # of Kafka's record batch, which the topic's limit counts as well

logger = logging.getLogger(__name__)


def publish(kafka: Mapping[str, str], model: ModelVersion, promoted_at_ms: int | None = None) -> None:
    """Have every scorer serve this model; a rollback is the publication of an earlier version.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    promoted_at_ms : int, optional
        Milliseconds since the epoch; default: now.

    Raises
    ------
    Refused
        The model is too large for the topic.
    Retry
        Kafka did not acknowledge it in time.
    """
    stamp_ms = time.time_ns() // 1_000_000 if promoted_at_ms is None else promoted_at_ms
    texts = {"name": model.name, "manifest": model.manifest, "body": model.body, "sha256": model.sha256}
    # First the manifest alone, under a key of its own: a reader of what this version scored, today or in a replay in
    # a year, finds it, and before the first event that it scored.
    texts_by_record = {**texts, "body": ""}, texts
    columns = {field: np.array([each[field] for each in texts_by_record], dtype=object) for field in texts}
    numbers = {"version": np.full(2, model.version), "promoted_at_ms": np.full(2, stamp_ms)}
    values = RecordWriter(_schema()).encode(Batch(2, {**columns, **numbers}))
    keys = [f"{model.name}{PAPERS_MARK}{model.version}".encode(), model.name.encode()]
    size = len(values[1]) + len(keys[1]) + _OVERHEAD_BYTES
    if size > BIG_RECORD_BYTES:
        raise Refused(
            f"model {model.name!r} version {model.version} takes {size:,} bytes, the {MODELS} topic "
            f"{BIG_RECORD_BYTES:,}: train with fewer trees or leaves"
        )
    producer, deliveries = open_producer({**kafka, "message.max.bytes": str(BIG_RECORD_BYTES)}), Deliveries()
    queue(producer, named(kafka, MODELS), keys, values, deliveries=deliveries, tags=[0, 1])
    drain(producer, deliveries)
    if deliveries.failed:
        raise Retry(f"model {model.name!r} version {model.version} was not published: {deliveries.failed[0][1]}")


def latest(kafka: Mapping[str, str], name: str) -> ModelVersion | None:
    """Return the champion of that name as of now; None if none was promoted yet.

    Raises
    ------
    Retry, Stop
        The topic cannot be read.
    """
    return newest(kafka, MODELS, name.encode(), _reader(kafka))


def follow(kafka: Mapping[str, str], name: str) -> KeyFollower[ModelVersion]:
    """Return what hears of every promotion of that name, the present one first; `close` it."""
    return KeyFollower(kafka, MODELS, name.encode(), _reader(kafka))


def _reader(kafka: Mapping[str, str]) -> Read[ModelVersion]:
    """Return what reads a promotion; an unreadable one is logged and passed over."""
    schema = _schema()
    reader = RecordReader(schema, SchemaResolver([schema], lambda: read_schemas(kafka), None))

    def read(message: Message) -> ModelVersion | None:
        decoded = reader.decode([message.value()], BIG_RECORD_BYTES)
        for rejection in decoded.rejections:
            logger.error("the promotion at %s[0]@%s is passed over: %s", MODELS, message.offset(), rejection)
        if not decoded.batch.length:
            return None
        row = {name: column[0] for name, column in decoded.batch.columns.items()}
        return ModelVersion(row["name"], int(row["version"]), row["manifest"], row["body"], row["sha256"])

    return read


def _schema() -> Schema:
    """Return the contract as shipped: the topic is the engine's own, whatever contracts a team has for its events."""
    return read_contract(schemas_dir(Settings(schemas_dir=None)) / f"{MODELS}{SUFFIX}").schema
