"""The newest record of one key of a compacted topic: read once, or followed in a thread.

Every worker hears every record. A record that turns out to be unusable does not count: the one before it does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from millstream.adapters.kafka.client import client_logger, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.errors import MillstreamError, Retry

T = TypeVar("T")

_LOT = 10  # messages taken at once: each may be as large as that
_EARLIER = 10  # older records to fall back to

logger = logging.getLogger(__name__)

Read = Callable[[Message], T | None]
"""Turns a message into what it holds; None if it is unusable, which it has logged."""


def newest(kafka: Mapping[str, str], topic: str, key: bytes, read: Read[T]) -> T | None:
    """Return the newest usable record of a key as of now; None if there is none.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    topic : str
        Of one partition.

    Raises
    ------
    Retry, Stop
        The topic cannot be read.
    """
    messages_read = _empty_tail()
    for messages in read_committed(kafka, topic, 0, 0, None, batch_records=_LOT):
        messages_read.extend(_of_key(messages, key))
    return _first_usable(messages_read, read)


class KeyFollower(Generic[T]):
    """Follows a key; whatever was superseded before it was looked at is never read.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    topic : str
        Of one partition.
    key : bytes
    read : callable
        Called in the follower's thread, so that it may take long. `MillstreamError` from it means: once more, later.
    """

    def __init__(self, kafka: Mapping[str, str], topic: str, key: bytes, read: Read[T]) -> None:
        self._topic = topic
        self._key = key
        self._read = read
        self._consumer = Consumer(
            {
                "auto.offset.reset": "earliest",
                **{k: v for k, v in kafka.items() if not k.startswith("group.")},
                "group.id": f"millstream.{topic}",  # only named, never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": BIG_RECORD_BYTES,
                "logger": client_logger,
            }
        )
        self._consumer.assign([TopicPartition(named(kafka, topic), 0, OFFSET_BEGINNING)])
        self._newest: T | None = None
        self._lock = threading.Lock()
        self._caught_up = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=topic, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = 30.0) -> None:
        """Return once everything that was there at first has been looked at.

        Raises
        ------
        Retry
            It was not, in that time.
        """
        if not self._caught_up.wait(timeout_s):
            raise Retry(f"{self._topic} could not be read within {timeout_s:g} s; is Kafka there?")

    def take(self) -> T | None:
        """Return the newest not yet taken, or None; never waits."""
        if self._newest is None:  # asked before every micro-batch: nearly always so, and no lock is needed to see it
            return None
        with self._lock:
            taken, self._newest = self._newest, None
        return taken

    def close(self) -> None:
        """Stop following."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        messages_read, ended = _empty_tail(), False
        while not self._closing.is_set():
            try:
                messages = self._consumer.consume(_LOT, timeout=0.2)
                messages_read.extend(_of_key(self._without_errors(messages), self._key))
                ended = any(_is_end(each.error()) for each in messages) or (ended and not messages)
                if len(messages) == _LOT and not ended:
                    continue  # more is waiting, and only the newest matters
                found = _first_usable(messages_read, self._read)
            except (KafkaException, MillstreamError) as error:
                # The caller keeps its present value; the messages are kept and read again.
                logger.warning("%s cannot be read for now: %s", self._topic, error)
                self._closing.wait(1.0)
                continue
            messages_read.clear()
            if found is not None:
                with self._lock:
                    self._newest = found
            if ended:
                self._caught_up.set()

    def _without_errors(self, messages: Iterable[Message]) -> list[Message]:
        sound = []
        for message in messages:
            error = message.error()
            if error is None:
                sound.append(message)
            elif not _is_end(error):
                logger.warning("%s cannot be read for now: %s", self._topic, error.str())
        return sound


def _empty_tail() -> deque[Message]:
    return deque(maxlen=1 + _EARLIER)


def _of_key(messages: Iterable[Message], key: bytes) -> list[Message]:
    return [each for each in messages if each.key() == key and each.value() is not None]


def _first_usable(messages_read: deque[Message], read: Read[T]) -> T | None:
    """Return what the newest usable message holds."""
    for message in reversed(messages_read):
        found = read(message)
        if found is not None:
            return found
    return None


def _is_end(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._PARTITION_EOF
