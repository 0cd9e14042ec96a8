"""librdkafka's messages as columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from confluent_kafka import Message

from millstream.core.batch import Rows
from millstream.runtime.log.records import Records


def records_of(topic: str, messages: Sequence[Message], base: int = 0) -> Records:
    """Lay librdkafka's messages out as columns; ``base`` is added to their offsets, see `Origins.base`."""
    count = len(messages)
    return Records(
        topic,
        partitions_of(messages),
        np.fromiter(map(Message.offset, messages), dtype=np.int64, count=count) + base,
        stamps_ms_of(messages),
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
    )


def partitions_of(messages: Sequence[Message]) -> Rows:
    """Return their partitions, int64 of shape (n,)."""
    return np.fromiter(map(Message.partition, messages), dtype=np.int64, count=len(messages))


def stamps_ms_of(messages: Sequence[Message]) -> Rows:
    """Return their timestamps, int64 of shape (n,)."""
    return np.fromiter((at_ms for _, at_ms in map(Message.timestamp, messages)), dtype=np.int64, count=len(messages))
