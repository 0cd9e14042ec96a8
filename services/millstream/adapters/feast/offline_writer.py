"""Writes `scored` to the offline log: a consumer group of its own, files first, offsets after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from millstream.adapters.feast.offline_log import OfflineLog, view_table, with_entity
from millstream.adapters.kafka.client import PASSING, client_logger, raise_for
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topic_ids import topic_ids
from millstream.core.avro.decode import RecordReader
from millstream.core.declaration import View
from millstream.errors import Stop
from millstream.topology import SCORED

_TIMEOUT_S = 30.0
_MAX_RECORD_BYTES = 1 << 30


class OfflineWriter:
    """Appends what was served to the files of `OfflineLog`; use as one thread, `close` it after use.

    Files are named by the topic's own id and the offsets they hold. Files from the committed offset on are left over
    from a crash between files and commit: they are removed before the same rows are written again, so no row stands
    twice; those of an earlier topic of the same name stay.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings common to all clients.
    group : str
        Consumer group.
    reader : RecordReader
        Of `scored`.
    views : sequence of View
        Whose rows are kept.
    log : OfflineLog
        Where to.
    flush_records : int
        Most records held in memory.
    flush_interval_s : float
        Longest time between two flushes while records come; a file is made per partition, view and day in each.
    topic : str
        Where served rows are read.

    Attributes
    ----------
    written : int
        Scored events in files whose offsets are committed.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        group: str,
        reader: RecordReader,
        views: Sequence[View],
        log: OfflineLog,
        flush_records: int = 200_000,
        flush_interval_s: float = 300.0,
        topic: str = SCORED,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = named(kafka, topic)
        self._reader = reader
        self._views = tuple(views)
        self._log = log
        self._flush_records = flush_records
        self._flush_interval_s = flush_interval_s
        self._clock_s = clock_s
        self._held: dict[int, list[Message]] = {}
        self._ended: set[int] = set()
        self._owned: set[int] = set()
        self._flushed_at_s = clock_s()
        self.written = 0
        self._consumer = Consumer(
            {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                **kafka,
                "partition.assignment.strategy": "range",  # partitions are assigned whole, not incrementally
                "logger": client_logger,
            }
        )
        self._topic_id = _topic_id(kafka, self._topic)
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    @property
    def at_end(self) -> bool:
        """Whether every partition that this member owns has been read to its end, and there is at least one."""
        return bool(self._owned) and self._ended >= self._owned

    @property
    def held(self) -> int:
        """Records read that are in no file yet."""
        return sum(map(len, self._held.values()))

    def poll(self, timeout_s: float) -> int:
        """Read what is there, flush if it is time, and return how many records were read.

        Raises
        ------
        Retry, Stop
            The topic cannot be read, a record cannot be decoded, or files cannot be written.
        """
        count = 0
        for message in self._consumer.consume(10_000, timeout_s):
            error = message.error()
            partition = int(message.partition() or 0)
            if error is None:
                self._held.setdefault(partition, []).append(message)
                self._ended.discard(partition)
                count += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(partition)
            elif error.code() not in PASSING:
                raise_for(error, f"reading {self._topic}")
        if self.held >= self._flush_records or self._clock_s() - self._flushed_at_s >= self._flush_interval_s:
            self.flush()
        return count

    def flush(self) -> None:
        """Write what is held as files and commit its offsets."""
        self._flushed_at_s = self._clock_s()
        offsets = []
        for partition, messages in self._held.items():
            self._write(partition, messages)
            end = int(messages[-1].offset() or 0) + 1
            offsets.append(TopicPartition(self._topic, partition, end, self._topic_id))
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as failure:
            raise_for(failure.args[0], f"committing offsets of {self._topic}")
        self.written += self.held
        self._held.clear()

    def _write(self, partition: int, messages: list[Message]) -> None:
        decoded = self._reader.decode([message.value() for message in messages], _MAX_RECORD_BYTES)
        if decoded.rejections:
            first = decoded.rejections[0]
            raise Stop(
                f"{self._topic}[{partition}] offset {messages[first.row].offset()} cannot be decoded ({first.detail}); "
                "only stages may write that topic"
            )
        name = f"{self._prefix(partition)}{messages[0].offset():020d}-{messages[-1].offset():020d}"
        # What can be read first is what was scored first: `created` must not depend on when this command ran.
        for view in self._views:
            served = with_entity(view, decoded.batch)
            if served.length:
                self._log.append(view, view_table(view, served, served.columns["scored_at_ms"] * 1000), name)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []
        for known in consumer.committed(partitions, timeout=_TIMEOUT_S):
            if known.error is not None:
                raise_for(known.error, f"asking for the committed offset of {self._topic}[{known.partition}]")
            start = known.offset
            # Offsets of an earlier topic of that name say nothing of this one.
            if start < 0 or (known.metadata and known.metadata != self._topic_id):
                start, _ = consumer.get_watermark_offsets(known, timeout=_TIMEOUT_S)
            self._log.remove(self._prefix(known.partition), start)
            self._owned.add(known.partition)
            starts.append(TopicPartition(self._topic, known.partition, start))
        consumer.assign(starts)

    def _prefix(self, partition: int) -> str:
        return f"{self._topic}-{self._topic_id}-{partition}-"

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.flush()
        self._lost(consumer, partitions)

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._owned.discard(each.partition)
            self._ended.discard(each.partition)
            self._held.pop(each.partition, None)

    def close(self) -> None:
        """Flush through the hand-back of the partitions, and leave."""
        self._consumer.close()


def _topic_id(kafka: Mapping[str, str], topic: str) -> str:
    admin = AdminClient(dict(kafka))  # must outlive the answer
    return topic_ids(admin, [topic]).get(topic, "0" * 32)
