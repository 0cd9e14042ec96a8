"""Follows topics as a subscriber and passes their messages to handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from millstream.adapters.kafka.client import PASSING, client_logger, raise_for
from millstream.adapters.kafka.cluster import inside, named
from millstream.adapters.kafka.topics import partition_counts

Handler = Callable[[Sequence[Message]], None]


class Counter:
    """Counts messages."""

    def __init__(self) -> None:
        self.count = 0

    def came(self, messages: Sequence[Message]) -> None:
        """Count some."""
        self.count += len(messages)


class Follower:
    """A plain read_committed consumer in a thread of its own.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    handlers : mapping of str to callable
        By topic: takes the messages of each poll, in that thread.
    whole : collection of str
        Topics that are read from their beginning; the others from now on.

    Attributes
    ----------
    failure : Exception or None
        What ended the thread before its time.
    """

    def __init__(self, kafka: Mapping[str, str], handlers: Mapping[str, Handler], whole: Collection[str]) -> None:
        self.failure: Exception | None = None
        self._kafka = kafka
        self._handlers = handlers
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": "millstream.demo.watcher",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "logger": client_logger,
                "auto.offset.reset": "latest",
                "fetch.min.bytes": 65_536,
                "fetch.wait.max.ms": 10,
            }
        )
        places = []
        for topic, count in partition_counts(kafka, list(handlers)).items():
            for partition in range(count):
                place = TopicPartition(named(kafka, topic), partition)
                low, high = self._consumer.get_watermark_offsets(place, timeout=30)
                places.append(TopicPartition(place.topic, partition, low if topic in whole else high))
        self._consumer.assign(places)
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join(10)
        self._consumer.close()

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(0.1)
                if first is None:
                    continue
                by_topic: dict[str, list[Message]] = {}
                for message in [first, *self._consumer.consume(5000, timeout=0)]:
                    error = message.error()
                    if error is None:
                        by_topic.setdefault(message.topic() or "", []).append(message)
                    elif error.code() not in PASSING:
                        raise_for(error, "following the topics")
                for topic, messages in by_topic.items():
                    self._handlers[inside(self._kafka, topic)](messages)
        except Exception as error:  # noqa: BLE001 shown by the screen, which then ends the demo
            self.failure = error
