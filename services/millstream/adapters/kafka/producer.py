"""Publishing to Kafka from outside the stages: idempotent, with back-pressure, every record's fate known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.cluster import named
from millstream.errors import Retry, Stop

_CLOSE_S = 30.0
_WRITE_S = 60.0


class Client(Protocol):
    """The part of ``confluent_kafka.Producer`` that publishing needs."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        *,
        on_delivery: Callable[[KafkaError | None, Any], None],
        timestamp: int,
    ) -> None:
        """Queue a record; BufferError when the queue is full. Timestamp 0 is now."""

    def poll(self, timeout: float) -> int:
        """Serve delivery reports."""

    def flush(self, timeout: float) -> int:
        """Wait for what is queued; return how many are left."""


@dataclass(slots=True)
class Deliveries:
    """What became of the records published so far.

    Parameters
    ----------
    sent : int
        Handed to the client.
    acked : int
        Acknowledged by all in-sync replicas.
    next_tag : int
        One more than the tag of the newest record handed over.
    failed : list of (int, str)
        Tag and error of records that were given up.
    waiting : dict with int keys
        Tags of records whose fate is not known yet, oldest first.
    """

    sent: int = 0
    acked: int = 0
    next_tag: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    waiting: dict[int, None] = field(default_factory=dict)

    def report(self, tag: int, error: KafkaError | None, _message: object) -> None:
        """Note one delivery report."""
        self.waiting.pop(tag, None)
        if error is None:
            self.acked += 1
        else:
            self.failed.append((tag, error.str()))


def open_producer(kafka: Mapping[str, str], *, paced: bool = False) -> Producer:
    """Return an idempotent producer.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings; they win over the ones chosen here.
    paced : bool
        True sends each record at once instead of filling batches.
    """
    return Producer(
        {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5 if paced else 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 200_000,
            "message.max.bytes": 16_777_216,
            "delivery.timeout.ms": 60_000,
            **kafka,
            "logger": client_logger,
        }
    )


def write_rows(
    kafka: Mapping[str, str], topic: str, rows: Iterable[tuple[int, bytes, bytes | None]], timeout_s: float = _WRITE_S
) -> None:
    """Write rows (partition, key, value) to a topic, by the engine's name of it, and wait until all are acknowledged.

    Raises
    ------
    Retry, Stop
        Kafka did not take every row; writing all of them again is safe for a compacted topic.
    """
    producer, name, failed = open_producer(kafka), named(kafka, topic), Deliveries()
    for number, (partition, key, value) in enumerate(rows):
        while True:
            try:
                producer.produce(name, value, key, partition, on_delivery=partial(failed.report, number))
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    left = producer.flush(timeout_s)
    if failed.failed:
        raise Stop(f"{topic} could not be written: {failed.failed[0][1]}")
    if left:
        raise Retry(f"{left} records of {topic} were not acknowledged by Kafka within {timeout_s:g} s; run this again")


def publish(
    client: Client,
    topic: str,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps_ms: Sequence[int] | None = None,
    *,
    deliveries: Deliveries,
    tags: Sequence[int],
) -> None:
    """Queue records, waiting where the client's queue is full.

    Parameters
    ----------
    keys, values : sequence of bytes or None, each of length n
        The records.
    timestamps_ms : sequence of int of length n, or None
        Kafka timestamps, milliseconds since the epoch; None is now.
    deliveries : Deliveries
        Where delivery reports are counted, during this call and later ones, and `drain`.
    tags : sequence of int of length n
        Names each record in ``deliveries``, as a row number; distinct.

    Raises
    ------
    Stop
        A record was given up or cannot be sent at all; ``deliveries`` says which are written.
    """
    produce, waiting, report = client.produce, deliveries.waiting, deliveries.report
    for i, (key, value, tag) in enumerate(zip(keys, values, tags, strict=True)):
        timestamp = 0 if timestamps_ms is None else timestamps_ms[i]
        waiting[tag] = None
        while True:
            try:
                produce(topic, value, key, on_delivery=partial(report, tag), timestamp=timestamp)
                break
            except BufferError:
                client.poll(0.05)
            except KafkaException as failure:
                raise Stop(f"row {tag} cannot be sent to {topic}: {failure.args[0].str()}") from failure
        deliveries.sent += 1
        deliveries.next_tag = tag + 1
    client.poll(0)
    if deliveries.failed:
        # Going on would put later rows before these.
        tag, error = deliveries.failed[0]
        raise Stop(f"Kafka did not take row {tag} of {topic}: {error}")


def drain(client: Client, deliveries: Deliveries, timeout_s: float = _CLOSE_S) -> None:
    """Wait until every record has its delivery report.

    Raises
    ------
    Retry
        If some are still unacknowledged after ``timeout_s``; they may or may not have been written.
    """
    deadline = time.monotonic() + timeout_s
    left = client.flush(timeout_s)
    while left and time.monotonic() < deadline:
        left = client.flush(0.5)
    if left:
        raise Retry(
            f"{left} of {deliveries.sent} records were not acknowledged within {timeout_s:g} s; is Kafka there?"
        )
