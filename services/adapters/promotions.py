"""Promotions: the compacted ``models`` topic, whose newest record of a name is that model's champion.

The model travels inside the record, so that scorers need neither the registry nor a shared disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from services.adapters.contracts import SUFFIX, read_contract, schemas_dir
from services.adapters.kafka_client import client_logger, read_committed
from services.adapters.producer import Deliveries, drain, open_producer
from services.adapters.producer import publish as queue
from services.adapters.schema_topic import SchemaResolver, read_schemas
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.avro.schema import Schema
from services.core.batch import Batch
from services.errors import MillstreamError, Refused, Retry
from services.ports import ModelVersion
from services.settings import Settings
from services.topology import MODELS

MAX_RECORD_BYTES = 16_777_216
_FROM_THE_START = [TopicPartition(MODELS, 0, OFFSET_BEGINNING)]
_OVERHEAD_BYTES = 1024  # of Kafka's record batch, which the topic's limit counts as well

logger = logging.getLogger(__name__)


def publish(kafka: Mapping[str, str], model: ModelVersion, promoted_at_ms: int | None = None) -> None:
    """Tell every scorer to serve this model; a rollback is the publication of an earlier version.

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
    columns = {field: np.array([text], dtype=object) for field, text in texts.items()}
    numbers = {"version": np.array([model.version]), "promoted_at_ms": np.array([stamp_ms])}
    values = RecordWriter(_schema()).encode(Batch(1, {**columns, **numbers}))
    key = model.name.encode()
    size = len(values[0]) + len(key) + _OVERHEAD_BYTES
    if size > MAX_RECORD_BYTES:
        raise Refused(
            f"model {model.name!r} version {model.version} takes {size:,} bytes, the {MODELS} topic "
            f"{MAX_RECORD_BYTES:,}: train with fewer trees or leaves"
        )
    producer, deliveries = open_producer({**kafka, "message.max.bytes": str(MAX_RECORD_BYTES)}), Deliveries()
    queue(producer, MODELS, [key], values, deliveries=deliveries, tags=[0])
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
    read = _Promotions(kafka, name)
    found = None
    for messages in read_committed(kafka, MODELS, 0, 0, None, batch_records=10):
        found = read.newest(messages) or found
    return found


class PromotionWatcher:
    """Follows promotions of one name in a thread of its own, outside any consumer group.

    Every worker hears every promotion. The first one heard may be the one `latest` has already returned.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    name : str
        Of the model.
    """

    def __init__(self, kafka: Mapping[str, str], name: str) -> None:
        self._promotions = _Promotions(kafka, name)
        self._consumer = Consumer(
            {
                "auto.offset.reset": "earliest",
                **{k: v for k, v in kafka.items() if not k.startswith("group.")},
                "group.id": "millstream.promotions",  # only named, never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": MAX_RECORD_BYTES,
                "logger": client_logger,
            }
        )
        self._consumer.assign(_FROM_THE_START)
        self._newest: ModelVersion | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="promotions", daemon=True)
        self._thread.start()

    def take(self) -> ModelVersion | None:
        """Return the newest promotion not yet taken, or None; never waits."""
        if self._newest is None:  # asked before every micro-batch: nearly always so, and no lock is needed to see it
            return None
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                messages = self._consumer.consume(10, timeout=0.2)
                newest = self._promotions.newest(self._sound(messages))
            except (KafkaException, MillstreamError) as error:
                # Scoring goes on with the model it has; the topic is small, so what was missed is read again.
                logger.warning("promotions cannot be read for now: %s", error)
                self._closing.wait(1.0)
                self._consumer.assign(_FROM_THE_START)
                continue
            if newest is not None:
                with self._lock:
                    self._newest = newest

    def _sound(self, messages: Iterable[Message]) -> list[Message]:
        sound = []
        for message in messages:
            error = message.error()
            if error is None:
                sound.append(message)
            else:
                logger.warning("promotions cannot be read for now: %s", error.str())
        return sound


class _Promotions:
    """Records of the `models` topic as model versions of one name."""

    def __init__(self, kafka: Mapping[str, str], name: str) -> None:
        self._key = name.encode()
        schema = _schema()
        self._reader = RecordReader(schema, SchemaResolver([schema], lambda: read_schemas(kafka), None))

    def newest(self, messages: Iterable[Message]) -> ModelVersion | None:
        """Return the last readable promotion among the messages; others are logged and passed over."""
        mine = [each for each in messages if each.key() == self._key and each.value() is not None]
        decoded = self._reader.decode([each.value() for each in mine], MAX_RECORD_BYTES)
        for rejection in decoded.rejections:
            logger.error(
                "the promotion at %s[0]@%s is passed over: %s", MODELS, mine[rejection.row].offset(), rejection
            )
        if not decoded.batch.length:
            return None
        row = {name: column[-1] for name, column in decoded.batch.columns.items()}
        return ModelVersion(row["name"], int(row["version"]), row["manifest"], row["body"], row["sha256"])


def _schema() -> Schema:
    """Return the contract as shipped: the topic is the engine's own, whatever contracts a team has for its events."""
    return read_contract(schemas_dir(Settings(schemas_dir=None)) / f"{MODELS}{SUFFIX}").schema
