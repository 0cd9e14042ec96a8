"""Read a topic as any subscriber does: committed records, decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.files.contracts import load_all
from millstream.adapters.kafka.client import PASSING, client_logger, raise_for
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.explain_record import explain_record
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.adapters.kafka.topic_names import plain_name
from millstream.app.newest import beginnings, newest_and_next

if TYPE_CHECKING:
    from millstream.core.avro.schema import Schema, SchemaId
    from millstream.settings import Settings

Row = dict[str, Any]
_POLL_S = 0.5
_AT_ONCE = 1000


class Consumption:
    """A topic's committed records, each a dict of its fields.

    Parameters
    ----------
    topic : str
        Plain name, or the one on the cluster.

    Raises
    ------
    Misconfigured, Retry
        There is no such topic, or Kafka cannot be reached.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = plain_name(settings, topic)
        self._kafka = resolve(settings, redis=False).kafka
        known = [contract.schema for contract in load_all(settings).values()]
        self._resolve = schema_resolver(settings, self._kafka, known)
        self._next = beginnings(self._kafka, self.topic)

    def newest(self, count: int) -> list[Row]:
        """Return the newest records by Kafka's timestamps, oldest first; `rest` goes on behind them."""
        found, self._next = newest_and_next(self._kafka, self.topic, count)
        return [decoded(message.value(), self._resolve) for _, message in found]

    def rest(self, follow: bool, timeout_s: float | None = None) -> Iterator[Row]:
        """Yield what comes after the records that were read already, at first all that are retained.

        Parameters
        ----------
        follow : bool
            Wait for new records, instead of stopping at the end of each partition.
        timeout_s : float, optional
            Stop once no record came for so long.

        Raises
        ------
        Retry, Stop
            The topic cannot be read.
        """
        for message in _messages(self._kafka, self.topic, self._next, follow, timeout_s):
            yield decoded(message.value(), self._resolve)


def _messages(
    kafka: Mapping[str, str], topic: str, start: Mapping[int, int], follow: bool, timeout_s: float | None
) -> Iterator[Message]:
    consumer = Consumer(
        {
            **kafka,
            "group.id": "millstream.reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "logger": client_logger,
        }
    )
    places = [TopicPartition(named(kafka, topic), partition, offset) for partition, offset in start.items()]
    open_ends, came_at_s = set(start), time.monotonic()
    try:
        consumer.assign(places)
        while follow or open_ends:
            first = consumer.poll(_POLL_S if timeout_s is None else min(_POLL_S, timeout_s))
            # What else is here already; waiting for a full batch would hold the first record back.
            for message in [first, *consumer.consume(_AT_ONCE, timeout=0)] if first is not None else []:
                error = message.error()
                if error is None:
                    yield message
                    came_at_s = time.monotonic()
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(message.partition() or 0)
                elif error.code() not in PASSING:
                    raise_for(error, f"reading {topic}")
            if timeout_s is not None and time.monotonic() - came_at_s >= timeout_s:
                return
    finally:
        consumer.close()


def decoded(value: bytes | None, resolve: Callable[[SchemaId], Schema | None]) -> Row:
    """Return a record's fields, whatever its writer's schema; its bytes and the reason if they cannot be read."""
    if value is None:
        return {"tombstone": True}
    what, fields = explain_record(value, resolve)
    return fields or {"undecodable": value.hex(), "why": what}
