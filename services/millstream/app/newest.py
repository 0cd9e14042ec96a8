"""The newest committed records of a topic, across its partitions."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, Message, TopicPartition

from millstream.adapters.kafka.client import client_logger, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topics import partition_counts
from millstream.errors import Misconfigured

_TIMEOUT_S = 30.0


def partitions_of(kafka: Mapping[str, str], topic: str) -> int:
    """Return a topic's number of partitions.

    Raises
    ------
    Misconfigured
        There is no such topic.
    Retry
        Kafka does not answer.
    """
    count = partition_counts(kafka, [topic]).get(topic)
    if count is None:
        raise Misconfigured(f"there is no topic {topic!r}; create the topology's with `millstream init`")
    return count


def newest(
    kafka: Mapping[str, str], topic: str, count: int, ends: Mapping[int, int] | None = None
) -> list[tuple[int, Message]]:
    """Return the newest committed records by Kafka's timestamps, oldest first, each with its partition.

    Parameters
    ----------
    count : int
        How many at most.
    ends : mapping of partition to offset, optional
        Read below these only, and no partition without one; default: all there is.

    Raises
    ------
    Misconfigured, Retry, Stop
        There is no such topic, or it cannot be read.
    """
    partitions = range(partitions_of(kafka, topic)) if ends is None else sorted(ends)
    found = []
    consumer = Consumer({**kafka, "group.id": "millstream.reader", "logger": client_logger})
    try:
        for partition in partitions:
            place = TopicPartition(named(kafka, topic), partition)
            low, high = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
            end = high if ends is None else min(high, ends[partition])
            # Markers of transactions take offsets too, and so do aborted records: look back further until it is enough.
            reach, records = count + 100, list[Message]()
            while len(records) < count and end > low:
                start = max(low, end - reach)
                records = [each for part in read_committed(kafka, topic, partition, start, end) for each in part]
                if start == low:
                    break
                reach *= 4
            found += [(partition, record) for record in records[-count:]]
    finally:
        consumer.close()
    return sorted(found, key=lambda each: (each[1].timestamp()[1], each[1].offset() or 0))[-count:]
