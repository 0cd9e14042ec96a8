"""The newest committed records of a topic, across its partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, Message

from millstream.adapters.kafka.client import client_logger, extent, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topics import partition_counts
from millstream.errors import Misconfigured


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
    return newest_and_next(kafka, topic, count, ends)[0]


def newest_and_next(
    kafka: Mapping[str, str], topic: str, count: int, ends: Mapping[int, int] | None = None
) -> tuple[list[tuple[int, Message]], dict[int, int]]:
    """Return what `newest` does, and by partition the offset that comes after the last record read."""
    partitions = range(partitions_of(kafka, topic)) if ends is None else sorted(ends)
    found, following = [], {}
    with _reader(kafka) as consumer:
        for partition in partitions:
            low, high = extent(consumer, named(kafka, topic), partition)
            end = high if ends is None else min(high, ends[partition])
            # Markers of transactions take offsets too, and so do aborted records: look back further until it is enough.
            reach, records = count + 100, list[Message]()
            while len(records) < max(1, count) and end > low:
                start = max(low, end - reach)
                records = [each for part in read_committed(kafka, topic, partition, start, end) for each in part]
                if start == low:
                    break
                reach *= 4
            found += [(partition, record) for record in records[max(0, len(records) - count) :]]
            following[partition] = (records[-1].offset() or 0) + 1 if records else low
    ordered = sorted(found, key=lambda each: (each[1].timestamp()[1], each[1].offset() or 0))
    return ordered[max(0, len(ordered) - count) :], following


def beginnings(kafka: Mapping[str, str], topic: str) -> dict[int, int]:
    """Return the first offset of each partition that is still retained; raises as `newest` does."""
    partitions = range(partitions_of(kafka, topic))
    with _reader(kafka) as consumer:
        return {partition: extent(consumer, named(kafka, topic), partition)[0] for partition in partitions}


@contextmanager
def _reader(kafka: Mapping[str, str]) -> Iterator[Consumer]:
    consumer = Consumer({**kafka, "group.id": "millstream.reader", "logger": client_logger})
    try:
        yield consumer
    finally:
        consumer.close()
