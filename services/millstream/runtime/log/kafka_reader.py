"""A stage's topics on Kafka for those who only look: no group is joined, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from millstream.adapters.kafka.client import client_logger, extent, raise_for, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.origins import Origins
from millstream.runtime.log.kafka_records import records_of
from millstream.runtime.log.records import Records

_TIMEOUT_S = 30.0


class CommittedRecords:
    """`LogReader` on a Kafka cluster, of whoever has a consumer."""

    _kafka: Mapping[str, str]
    _consumer: Consumer
    _origins: Origins

    def read(self, topic: str, partition: int, start: int, end: int | None) -> Iterator[Records]:
        """See `LogReader.read`."""
        base = self._origins.base(topic)
        until = None if end is None else end - base
        for messages in read_committed(self._kafka, topic, partition, max(0, start - base), until):
            yield records_of(topic, messages, base)

    def beginning(self, topic: str, partition: int) -> int:
        """See `LogReader.beginning`."""
        return extent(self._consumer, named(self._kafka, topic), partition)[0] + self._origins.base(topic)

    def end(self, topic: str, partition: int) -> int:
        """See `LogReader.end`."""
        return extent(self._consumer, named(self._kafka, topic), partition)[1] + self._origins.base(topic)


class KafkaReader(CommittedRecords):
    """`LogReader` that also knows what a group has committed; `close` it after use.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings common to all clients.
    group : str
        Whose committed offsets `committed` returns.
    origins : Origins, optional
        Of the topics; without them all are of generation 0.
    """

    def __init__(self, kafka: Mapping[str, str], group: str, origins: Origins | None = None) -> None:
        self._kafka = kafka
        self._origins = origins or Origins()
        self._consumer = Consumer(
            {**self._kafka, "group.id": group, "enable.auto.commit": False, "logger": client_logger}
        )

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        """Return the group's offset for each partition; None where it never committed."""
        asked = [TopicPartition(named(self._kafka, topic), partition) for partition in partitions]
        try:
            found = self._consumer.committed(asked, timeout=_TIMEOUT_S)
        except KafkaException as failure:
            raise_for(failure.args[0], f"asking for the committed offsets of {topic}")
        base = self._origins.base(topic)
        return {each.partition: each.offset + base if each.offset >= 0 else None for each in found}

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
