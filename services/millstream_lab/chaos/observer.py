"""Looks on while it happens: what a read_committed consumer sees when, and how far groups have committed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.cluster import inside, named

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a group had committed, and up to where its output topics were written right after.

    Parameters
    ----------
    at_s : float
        Monotonic time.
    committed : dict of int to int
        Next offset by partition of the group's topic.
    written : dict of (str, int) to int
        End of the log by output topic and partition. Not the last stable offset: a transaction that a killed worker
        left open holds back the readers of everything behind it, committed or not.
    ends : dict of int to int
        Last stable offset of the group's topic, by partition.
    """

    group: str
    topic: str
    at_s: float
    committed: dict[int, int]
    written: dict[tuple[str, int], int]
    ends: dict[int, int]

    @property
    def lag(self) -> int:
        """Records not yet committed."""
        return sum(max(0, end - self.committed.get(partition, 0)) for partition, end in self.ends.items())


@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A group, what it reads and what it writes."""

    group: str
    topic: str
    outputs: tuple[str, ...]


@dataclass
class Observer:
    """Two threads: one consumes topics as a subscriber would, one samples offsets every half second.

    Attributes
    ----------
    seen : dict of (topic, partition, offset) to bytes
        Key of every record received.
    answered_at_s : dict of int to float
        When an event's prediction was first received, seconds since the epoch.
    backwards : list of str
        Offsets that were not larger than the one before.
    """

    kafka: Mapping[str, str]
    watched: Sequence[WatchedGroup]
    topics: Sequence[str]
    partitions: int
    predictions: str
    seen: dict[Place, bytes] = field(default_factory=dict)
    answered_at_s: dict[int, float] = field(default_factory=dict)
    backwards: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=200_000))

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._consume, name="observer", daemon=True),
            threading.Thread(target=self._sample_all, name="sampler", daemon=True),
        ]

    def start(self) -> None:
        """Start looking."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def lag(self, topic: str, since_s: float) -> int | None:
        """Return the lag on a topic as sampled last, None if that was before ``since_s`` (monotonic)."""
        for sample in reversed(self.samples):
            if sample.topic == topic:
                return sample.lag if sample.at_s >= since_s else None
        return None

    def _client(self, group: str, isolation: str = "read_committed") -> Consumer:
        return Consumer(
            {
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "fetch.wait.max.ms": 20,
                "log_level": "0",
                "socket.timeout.ms": 5_000,
                **self.kafka,
                "logger": client_logger,
            }
        )

    def _consume(self) -> None:
        consumer = self._client("chaos-observer")
        consumer.assign(
            [TopicPartition(named(self.kafka, topic), p, 0) for topic in self.topics for p in range(self.partitions)]
        )
        last: dict[tuple[str, int], int] = {}
        while not self._ending.is_set():
            messages = consumer.consume(5_000, timeout=0.05)
            now_s = time.time()
            for message in messages:
                if message.error() is not None:
                    continue  # the broker is away: librdkafka reconnects
                topic, partition, offset = (
                    inside(self.kafka, str(message.topic())),
                    int(message.partition() or 0),
                    int(message.offset() or 0),
                )
                if offset <= last.get((topic, partition), -1):
                    self.backwards.append(f"{topic}[{partition}]@{offset} after {last[topic, partition]}")
                last[topic, partition] = offset
                key = message.key() or b""
                self.seen[topic, partition, offset] = key
                if topic == self.predictions:
                    self.answered_at_s.setdefault(int(key), now_s)
                    self.recent.append((now_s, int(key)))
        consumer.close()

    def _sample_all(self) -> None:
        clients = {each.group: self._client(each.group) for each in self.watched}
        log = self._client("chaos-log-ends", "read_uncommitted")
        while not self._ending.wait(0.5):
            for each in self.watched:
                try:
                    self.samples.append(self._sample(clients[each.group], log, each))
                except KafkaException:
                    continue  # the broker is away: no sample is taken
        for client in (log, *clients.values()):
            client.close()

    def _sample(self, client: Consumer, log: Consumer, watched: WatchedGroup) -> Sample:
        at_s = time.monotonic()
        asked = [TopicPartition(named(self.kafka, watched.topic), p) for p in range(self.partitions)]
        committed = {p.partition: p.offset for p in client.committed(asked, timeout=5) if p.offset >= 0}
        ends = {p: self._end(client, watched.topic, p) for p in range(self.partitions)}
        written = {(topic, p): self._end(log, topic, p) for topic in watched.outputs for p in range(self.partitions)}
        return Sample(watched.group, watched.topic, at_s, committed, written, ends)

    def _end(self, client: Consumer, topic: str, partition: int) -> int:
        _low, high = client.get_watermark_offsets(TopicPartition(named(self.kafka, topic), partition), timeout=5)
        return int(high)
