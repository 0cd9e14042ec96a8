"""Measuring from outside: what the output topic shows to a ``read_committed`` consumer, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from numpy.typing import NDArray

from millstream.adapters.kafka.client import PASSING, raise_for
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.adapters.telemetry.process_usage import usage_of
from millstream.errors import Stop
from millstream_lab.bench.workload import Workload

_CHUNK = 10_000
_WARM_UP_S = 1.0
_GRACE_S = 2.0
_TRANSACTION_S = 60.0
_NAN = float("nan")
# aiokafka, under Faust, reads no lz4 as installed.
_PLAIN = {"compression.type": "none"}

Event = Callable[[Message], int]
Progress = Callable[[int], None]
CheckWorkers = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Throughput:
    """A backlog worked off.

    Parameters
    ----------
    events : int
        Distinct events seen in the output.
    doubled : int
        Outputs seen more than once.
    seconds, events_per_s : float
        From the first to the last chunk of outputs the observer received; the first chunk is not counted in.
    cpu_s_per_100k : float
        CPU seconds of the workers' process trees in that time, per 100,000 events.
    complete : bool
        False when the time limit came first.
    """

    events: int
    doubled: int
    seconds: float
    events_per_s: float
    cpu_s_per_100k: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Latency:
    """Events published at a steady rate: from when each was due to be sent to when its output was visible.

    The first second is left out. ``missing`` events were not there two seconds after the last was sent; with more than
    a tenth of a second's worth missing, the job falls behind.
    """

    rate: int
    events: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    missing: int
    falls_behind: bool
    cpu_share: float


@dataclass
class Observer:
    """Reads a topic from its present beginning, committed records only.

    Parameters
    ----------
    event_of : callable
        Returns the event id of a message, an index into the workload.
    sample : set of int
        Events whose output is kept in ``kept``.
    """

    kafka: Mapping[str, str]
    topic: str
    partitions: int
    event_of: Event
    sample: frozenset[int] = frozenset()
    kept: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._consumer = Consumer(
            {
                **self.kafka,
                "group.id": "bench-observer",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "fetch.error.backoff.ms": 5,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        self._consumer.assign([TopicPartition(named(self.kafka, self.topic), p, 0) for p in range(self.partitions)])

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def take(self, timeout_s: float) -> tuple[list[int], float]:
        """Return the events whose outputs are here, and the monotonic time at which they were received."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return [], time.monotonic()
        # Stamped after the non-blocking rest: the time is never too early.
        messages = [first, *self._consumer.consume(_CHUNK, timeout=0)]
        now_s = time.monotonic()
        events = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() not in PASSING:
                    raise_for(error, f"observing {self.topic}")
                continue
            event = self.event_of(message)
            events.append(event)
            if event in self.sample:
                self.kept[event] = message.value() or b""
        return events, now_s

    def throughput(
        self,
        events: int,
        pids: Collection[int],
        limit_s: float,
        check: CheckWorkers,
        progress: Progress,
        start_limit_s: float = 60.0,
    ) -> Throughput:
        """Watch workers work off a backlog of ``events`` (ids 0 to events - 1).

        Parameters
        ----------
        pids : collection of int
            Their processes.
        limit_s : float
            Watch no longer than this from the first output.
        check : callable
            Raises if a worker has gone.
        """
        seen = np.zeros(events, dtype=np.bool_)
        count = first_count = doubled = 0
        first_s = last_s = 0.0
        begun_s = ended_s = _cpu_s(pids)
        sampled_s = waiting_since_s = time.monotonic()
        while count < events:
            got, now_s = self.take(0.2)
            if got:
                ids = np.array(got)
                fresh = np.unique(ids[~seen[ids]])
                doubled += len(ids) - len(fresh)
                seen[fresh] = True
                count += len(fresh)
                last_s = now_s
                if not first_s:
                    first_s, first_count, begun_s = now_s, count, _cpu_s(pids)
                progress(count)
            if now_s - sampled_s > 0.5 or count >= events:
                check()
                ended_s, sampled_s = _cpu_s(pids), now_s
            if not first_s and now_s - waiting_since_s > start_limit_s:
                raise Stop(f"no output on {self.topic} within {start_limit_s:.0f} s")
            if first_s and now_s - first_s > limit_s:
                ended_s = _cpu_s(pids)
                break
        measured, seconds = count - first_count, last_s - first_s
        return Throughput(
            events=count,
            doubled=doubled,
            seconds=seconds,
            events_per_s=measured / seconds if seconds else 0.0,
            cpu_s_per_100k=(ended_s - begun_s) / measured * 100_000 if measured else _NAN,
            complete=count == events,
        )

    def latency(
        self,
        workload: Workload,
        start: int,
        rate: int,
        seconds: float,
        topic: str,
        pids: Collection[int],
        progress: Progress,
    ) -> Latency:
        """Publish events ``start`` onwards to ``topic`` at ``rate`` a second and watch for their outputs."""
        count = int(rate * seconds)
        due_s = time.monotonic() + 0.1 + np.arange(count) / rate
        publisher = threading.Thread(
            target=publish_paced, args=(self.kafka, topic, workload, start, due_s), name="publisher", daemon=True
        )
        used_before_s, begun_s = _cpu_s(pids), time.monotonic()
        publisher.start()
        arrived_s: NDArray[np.float64] = np.full(count, np.inf)
        left = count
        while left and time.monotonic() < due_s[-1] + _GRACE_S:
            got, now_s = self.take(0.05)
            ids = np.array(got, dtype=np.int64) - start
            ids = ids[(ids >= 0) & (ids < count)]
            fresh = np.unique(ids[np.isinf(arrived_s[ids])])
            arrived_s[fresh] = now_s
            left -= len(fresh)
            progress(count - left)
        publisher.join()
        elapsed_s = time.monotonic() - begun_s
        used_s = _cpu_s(pids) - used_before_s if pids else _NAN
        steady = due_s >= due_s[0] + min(_WARM_UP_S, seconds / 2)
        waits_ms = (arrived_s - due_s)[steady] * 1000
        # Events that never came count as infinitely late, so that a percentile cannot gain from them.
        p50, p95, p99 = (float(np.percentile(waits_ms, q, method="higher")) for q in (50, 95, 99))
        return Latency(rate, count, p50, p95, p99, left, left > rate / 10, used_s / elapsed_s)


def _cpu_s(pids: Collection[int]) -> float:
    return sum(usage_of(pid).cpu_s for pid in pids)


def publish_paced(
    kafka: Mapping[str, str], topic: str, workload: Workload, start: int, due_s: NDArray[np.float64]
) -> None:
    """Publish events ``start`` onwards, each at its time on the monotonic clock."""
    producer = open_producer({**kafka, **_PLAIN, "linger.ms": "1"}, paced=True)
    sent = 0
    while sent < len(due_s):
        ready = int(np.searchsorted(due_s, time.monotonic(), side="right"))
        for event in range(start + sent, start + ready):
            producer.produce(named(kafka, topic), workload.values[event], workload.keys[event])
        sent = max(sent, ready)
        producer.poll(0)
        if sent < len(due_s):
            time.sleep(min(0.001, max(0.0, due_s[sent] - time.monotonic())))
    producer.flush(30)


def publish_backlog(
    kafka: Mapping[str, str],
    topic: str,
    workload: Workload,
    start: int,
    end: int,
    progress: Progress,
    at_once: bool = False,
) -> None:
    """Publish events [start, end) as fast as they go.

    Parameters
    ----------
    at_once : bool
        In one transaction: a ``read_committed`` reader sees nothing of them, then all.
    """
    publish_topics(kafka, {topic: (workload.keys[start:end], workload.values[start:end])}, progress, at_once)


def publish_topics(
    kafka: Mapping[str, str],
    topics: Mapping[str, tuple[list[bytes], list[bytes]]],
    progress: Progress,
    at_once: bool = False,
) -> None:
    """Publish keys and values of several topics, one after the other; ``at_once`` as of `publish_backlog`."""
    transaction = {"transactional.id": "bench-backlog", "transaction.timeout.ms": "600000"} if at_once else {}
    producer = open_producer({**kafka, **_PLAIN, **transaction})
    if at_once:
        producer.init_transactions(_TRANSACTION_S)
        producer.begin_transaction()
    deliveries, sent = Deliveries(), 0
    for topic, (keys, values) in topics.items():
        for at in range(0, len(keys), _CHUNK):
            some = keys[at : at + _CHUNK]
            tags = range(sent, sent + len(some))
            publish(producer, topic, some, values[at : at + _CHUNK], deliveries=deliveries, tags=tags)
            sent += len(some)
            progress(sent)
    drain(producer, deliveries)
    if at_once:
        producer.commit_transaction(_TRANSACTION_S)


def plain(measured: Throughput | Latency) -> dict[str, Any]:
    """Return a measurement as JSON values; what is not finite becomes null."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(measured).items()}
