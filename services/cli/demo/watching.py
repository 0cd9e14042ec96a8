"""What a subscriber sees: predictions and dead letters as they become visible, joined with the truth."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from confluent_kafka import Consumer, TopicPartition

from services.adapters.kafka_client import PASSING, client_logger, raise_for
from services.adapters.topics import partition_counts
from services.core.avro.decode import RecordReader
from services.core.batch import Batch
from services.topology import DEAD_LETTERS, PREDICTIONS

_LATENCIES = 200_000


@dataclass
class Seen:
    """Counts and samples, updated under ``lock``."""

    predictions: int = 0
    dead_letters: int = 0
    frauds: int = 0
    flagged: int = 0
    caught: int = 0
    caught_eur: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    arms: Counter[str] = field(default_factory=Counter)
    last: deque[tuple[str, int, float, float, str, bool]] = field(default_factory=lambda: deque(maxlen=10))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    event_time_ms: int = 0
    doubled: int = 0
    positive: str = "positive"
    ids: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def outcomes(self) -> int:
        """Events that were answered, one way or the other."""
        return self.predictions + self.dead_letters


class Watcher:
    """A plain read_committed consumer of `predictions` and `dead-letters`, from now on, in a thread of its own."""

    def __init__(
        self,
        kafka: Mapping[str, str],
        predictions: RecordReader,
        dead_letters: RecordReader,
        truth: pl.DataFrame,
        positive: str,
    ) -> None:
        self.seen = Seen(positive=positive)
        self.failure: Exception | None = None
        self._readers = {PREDICTIONS: predictions, DEAD_LETTERS: dead_letters}
        self._is_fraud = truth["is_fraud"].to_numpy()
        self._amount = truth["amount"].to_numpy()
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
        for topic, count in partition_counts(kafka, [PREDICTIONS, DEAD_LETTERS]).items():
            for partition in range(count):
                _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
                places.append(TopicPartition(topic, partition, high))
        self._consumer.assign(places)
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join(10)
        self._consumer.close()

    def _watch(self) -> None:
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(0.1)
                if first is None:
                    continue
                by_topic: dict[str, list[bytes | None]] = {}
                for message in [first, *self._consumer.consume(5000, timeout=0)]:
                    error = message.error()
                    if error is None:
                        by_topic.setdefault(message.topic() or "", []).append(message.value())
                    elif error.code() not in PASSING:
                        raise_for(error, "watching predictions")
                now_ms = time.time_ns() / 1e6
                for topic, values in by_topic.items():
                    batch = self._readers[topic].decode(values, 1 << 30).batch
                    with self.seen.lock:
                        self._predicted(batch, now_ms) if topic == PREDICTIONS else self._died(batch)
        except Exception as error:  # noqa: BLE001 shown by the screen, which then ends the demo
            self.failure = error

    def _predicted(self, batch: Batch, now_ms: float) -> None:
        seen = self.seen
        ids = batch.columns["event_id"]
        scores = batch.columns["score"]
        decisions = batch.columns["decision"]
        flagged = decisions == seen.positive
        rows = np.array([int(each) if each.isdecimal() else -1 for each in ids], dtype=np.int64)
        known = (rows >= 0) & (rows < len(self._is_fraud))
        rows = np.where(known, rows, 0)
        fraud = (self._is_fraud[rows] == 1) & known
        seen.predictions += batch.length
        seen.frauds += int(fraud.sum())
        seen.flagged += int(flagged.sum())
        seen.caught += int((fraud & flagged).sum())
        seen.caught_eur += float(self._amount[rows][fraud & flagged].sum())
        seen.arms.update(batch.columns["arm"].tolist())
        seen.latencies_ms.extend((now_ms - batch.columns["received_at_ms"]).tolist())
        seen.event_time_ms = max(seen.event_time_ms, int(batch.columns["event_time_ms"].max()))
        before = len(seen.ids)
        seen.ids.update(ids.tolist())
        seen.doubled += batch.length - (len(seen.ids) - before)
        for at in range(max(0, batch.length - 3), batch.length):
            moment = int(batch.columns["event_time_ms"][at])
            amount = float(self._amount[rows[at]])
            seen.last.append((ids[at], moment, amount, float(scores[at]), str(decisions[at]), bool(fraud[at])))

    def _died(self, batch: Batch) -> None:
        self.seen.dead_letters += batch.length
        self.seen.reasons.update(batch.columns["reason"].tolist())
