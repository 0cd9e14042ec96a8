"""More partitions for a project's topics and its state: offline, exactly, and safe to repeat after a crash.

Records of a topic are appended again in the partitions that their keys belong to now, in the order of each key, and the
earlier copies are deleted once all are there; so the topic and its offsets go on, and groups that had read everything
are set to the ends. Rows of window state move to their key's partition. What measures have counted and not published
yet stays with its partition. Label ledgers are built again from the records at the next start.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from millstream.adapters.kafka.client import client_logger, extent, raise_for, read_committed, result_of
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.groups import committed_offsets, require_stopped, set_offsets
from millstream.adapters.kafka.origins import Origin
from millstream.adapters.kafka.producer import open_producer
from millstream.adapters.kafka.topic_registry import (
    Record,
    claim,
    read_journal,
    read_registry,
    tracked,
    write_journal,
    write_registry,
)
from millstream.adapters.kafka.topics import partition_counts, require_topics
from millstream.core.partitioner import partition_of
from millstream.errors import Misconfigured, Retry, Stop
from millstream.runtime.rescale import checks
from millstream.runtime.rescale.state import move_measures, move_rows, refused_offsets
from millstream.topology import MEASURE_CHANGELOG, SCORED, Topology

_HEADER: Final = "millstream.rescale"
_TIMEOUT_S: Final = 60.0
Offsets = dict[tuple[str, int], int]


class Rescale:
    """One run of `millstream topics rescale`.

    Parameters
    ----------
    kafka : mapping
        The project's cluster.
    topology : Topology
    count : int
        Partitions of every keyed topic afterwards.
    say : callable
        Reports each step.
    truncated_dead_letters : callable (topics) -> ids
        Returns the dead letters that could be sent back to these topics now and not afterwards; see
        `millstream.runtime.rescale.checks.refuse_truncated_dead_letters`.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topology: Topology,
        count: int,
        replication: int,
        say: Callable[[str], None],
        truncated_dead_letters: Callable[[Collection[str]], Sequence[str]] = lambda _topics: (),
    ) -> None:
        self._kafka = kafka
        self._topology = topology
        self._count = count
        self._replication = replication
        self._say = say
        self._cut_letters = truncated_dead_letters
        self._admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
        self._names = [topic.name for topic in topology.topics if topic.partitions is None]
        state = {stage.changelog for stage in topology.stages} | {MEASURE_CHANGELOG}
        self._logs = [name for name in self._names if name not in state]

    def run(self) -> None:
        """Move everything; after a crash, run it again.

        Raises
        ------
        Misconfigured
            Something runs, is not read to its end, or the number is none that topics can grow to.
        Retry, Stop
            Kafka cannot be read or written; run again.
        """
        journal = read_journal(self._kafka, self._topology.project)
        require_stopped(self._admin, [self._topology.group(stage) for stage in self._topology.names])
        if journal is None:
            journal = self._begin()
        if journal["to"] != self._count:
            raise Misconfigured(f"a rescale to {journal['to']} partitions was begun: complete that one first")
        require_stopped(self._admin, journal["groups"])
        self._grow()
        for name in self._logs:
            if name not in journal["copied"]:
                journal["copied"][name] = self._copy(name, journal["drained"][name], journal["bases"][name])
                write_journal(self._kafka, self._topology.project, journal)
            self._delete_before(name, journal["copied"][name]["begins"])
        self._move_state(journal)
        for group, topics in journal["groups"].items():
            read = {named(self._kafka, name): moved["read"] for name, moved in journal["copied"].items()}
            set_offsets(self._admin, group, {(t, p): at for t in topics for p, at in enumerate(read[t])})
        self._count_layout()
        write_journal(self._kafka, self._topology.project, None)
        self._say(f"{len(self._names)} topics have {self._count} partitions now; start the stages")

    def _move_state(self, journal: Mapping[str, Any]) -> None:
        def stored(name: str, what: str) -> list[int]:
            return [offset + journal["bases"][name] for offset in journal["copied"][name][what]]

        read = {name: stored(name, "read") for name in self._logs}
        for stage in self._topology.stages:
            rows = move_rows(self._kafka, stage, self._count, read)
            self._say(f"{stage.changelog}: {rows} rows of state moved")
        if MEASURE_CHANGELOG in self._names:
            move_measures(self._kafka, read[SCORED])

    def _begin(self) -> dict[str, Any]:
        checks.refuse_agents(self._topology)
        now = require_topics(self._kafka, self._topology.topics)
        checks.require_growth(now, self._count)
        checks.refuse_truncated_dead_letters(self._cut_letters(set(self._logs)))
        origins = claim(self._kafka, self._topology, self._replication)
        origins.check()
        bases = {name: origins.base(name) for name in self._names}
        ends = self._ends()
        drained = {n: [ends[named(self._kafka, n), p] for p in range(now)] for n in self._logs}
        groups = self._drained(ends)
        for stage in self._topology.stages:
            checks.require_checkpoint(self._kafka, self._admin, self._topology, stage, now, bases)
        if MEASURE_CHANGELOG in self._names:
            checks.require_measured(self._kafka, self._admin, self._topology, now, bases[SCORED])
        journal = {"to": self._count, "drained": drained, "copied": {}, "groups": groups, "bases": bases}
        write_journal(self._kafka, self._topology.project, journal)
        return journal

    def _drained(self, ends: Offsets) -> dict[str, list[str]]:
        """Return the groups that have offsets in the topics, with the topics; all must have read everything."""
        listed = result_of(self._admin.list_consumer_groups(request_timeout=_TIMEOUT_S), _TIMEOUT_S).valid
        ours = {named(self._kafka, name) for name in self._logs}
        groups: dict[str, list[str]] = {}
        read: dict[str, Offsets] = {}
        for group in sorted(each.group_id for each in listed):
            offsets = {place: at for place, at in committed_offsets(self._admin, group).items() if place[0] in ours}
            if offsets:
                groups[group], read[group] = sorted({topic for topic, _ in offsets}), offsets
        for stage in self._topology.names:
            inputs = {named(self._kafka, t.name) for t in self._topology.topics if stage in t.readers} & ours
            if inputs:  # a stage that never ran has read nothing
                group = self._topology.group(stage)
                groups[group] = sorted({*groups.get(group, []), *inputs})
        for group, topics in groups.items():
            for (topic, partition), end in ends.items():
                start = read.get(group, {}).get((topic, partition), 0)
                if topic in topics and self._any(topic, partition, start, end):
                    raise Misconfigured(
                        f"{group} has not read {topic}[{partition}] from offset {start} on: stop producers, let the "
                        "stages and other readers come to the end, stop them (SIGTERM), and run this again"
                    )
        return groups

    def _any(self, topic: str, partition: int, start: int, end: int) -> bool:
        return start < end and any(True for _ in read_committed(dict(self._kafka), topic, partition, start, end))

    def _grow(self) -> None:
        counts = partition_counts(self._kafka, self._names)
        grown = [NewPartitions(named(self._kafka, n), self._count) for n in self._names if counts[n] < self._count]
        if grown:
            for name, future in self._admin.create_partitions(grown).items():
                try:
                    result_of(future, _TIMEOUT_S)
                except KafkaException as failure:
                    raise_for(failure.args[0], f"adding partitions to {name}")
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not self._all_there():
            if time.monotonic() > deadline_s:
                raise Retry("added partitions cannot be read yet; run this again")
            time.sleep(0.1)

    def _all_there(self) -> bool:
        """Return whether all partitions show and have a leader."""
        if set(partition_counts(self._kafka, self._names).values()) != {self._count}:
            return False
        try:
            self._ends()
        except (Retry, Stop):  # an added partition whose leader does not know of it yet
            return False
        return True

    def _ends(self) -> Offsets:
        """Return the end of every partition of the topics of records, by the topics' names on the cluster."""
        consumer = Consumer({**self._kafka, "group.id": "millstream.reader", "logger": client_logger})
        try:
            counts = partition_counts(self._kafka, self._logs)
            places = [(named(self._kafka, name), p) for name in self._logs for p in range(counts[name])]
            return {place: extent(consumer, *place)[1] for place in places}
        finally:
            consumer.close()

    def _copy(self, name: str, drained: Sequence[int], base: int) -> dict[str, list[int]]:
        """Append every record where its key belongs now, those that groups have read first.

        Parameters
        ----------
        drained : sequence of int
            Up to where groups have read, per earlier partition.
        base : int
            How far stored offsets are ahead of the topic's.

        Returns
        -------
        dict
            Per partition, where the copies begin, and where those of records that were not read begin.
        """
        topic, mark = named(self._kafka, name), str(self._count).encode()
        begins = self._ends_of(topic)
        producer, failed = open_producer(self._kafka), list[str]()
        copied = [0] * self._count

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error.str())

        first = self._topology.stages[0]
        earlier = [p for p in range(len(drained)) if name == first.input]
        refused = {p: refused_offsets(self._kafka, first.changelog, p, base) for p in earlier}
        read = list[int]()
        for unread in (False, True):
            parts = [
                self._originals(topic, p, drained[p] if p < len(drained) else 0, end, unread, mark)
                for p, end in enumerate(begins)
            ]
            for _stamp_ms, partition, offset, message in heapq.merge(*parts, key=lambda each: each[:3]):
                if offset in refused.get(partition, ()):  # a dead letter; windows rebuilt later must not hold it
                    continue
                key = message.key()
                at = int(message.partition() or 0) if key is None else int(partition_of([key], self._count)[0])
                headers = [*(message.headers() or []), (_HEADER, mark)]
                while True:
                    try:
                        producer.produce(
                            topic, message.value(), key, at,
                            on_delivery=delivered, timestamp=message.timestamp()[1], headers=headers,
                        )  # fmt: skip
                        break
                    except BufferError:
                        producer.poll(0.1)
                producer.poll(0)
                copied[at] += 1
            if not unread:
                read = [begin + count for begin, count in zip(begins, copied, strict=True)]
        if producer.flush(_TIMEOUT_S) or failed:
            raise Retry(f"{topic} could not be written ({', '.join(failed[:1])}); run this again")
        if self._ends_of(topic) != [begin + count for begin, count in zip(begins, copied, strict=True)]:
            raise Misconfigured(f"records came into {topic} meanwhile: stop its producers, and run this again")
        self._say(f"{topic}: {sum(copied)} records are in their keys' partitions")
        return {"begins": begins, "read": read}

    def _ends_of(self, topic: str) -> list[int]:
        ends = self._ends()
        return [ends[topic, partition] for partition in range(self._count)]

    def _originals(
        self, topic: str, partition: int, drained: int, end: int, unread: bool, mark: bytes
    ) -> Iterator[tuple[int, int, int, Message]]:
        """Yield records by offset, not what an attempt that crashed has copied; times to merge by never go back."""
        start, stop = (drained, end) if unread else (0, min(drained, end))
        newest_ms = 0
        for messages in read_committed(dict(self._kafka), topic, partition, start, stop):
            for message in messages:
                if (_HEADER, mark) not in (message.headers() or []):
                    newest_ms = max(newest_ms, message.timestamp()[1])
                    yield newest_ms, partition, int(message.offset() or 0), message

    def _delete_before(self, name: str, begins: Sequence[int]) -> None:
        topic = named(self._kafka, name)
        asked = [TopicPartition(topic, partition, offset) for partition, offset in enumerate(begins)]
        for place, future in self._admin.delete_records(asked).items():
            try:
                result_of(future, _TIMEOUT_S)
            except KafkaException as failure:
                raise_for(failure.args[0], f"deleting earlier records of {place.topic}[{place.partition}]")

    def _count_layout(self) -> None:
        """Have label ledgers on workers' disks emptied: they hold the keys of the earlier partitions."""
        mine = read_registry(self._kafka)
        records: list[Record] = []
        for topic in tracked(self._topology):
            record = mine.get((self._topology.project, named(self._kafka, topic.name)))
            if record is not None:
                origin = Origin(record.origin.topic_id, record.origin.generation, record.origin.layout + 1)
                records.append(Record(record.project, record.topic, origin, record.owner))
        write_registry(self._kafka, records, self._replication)
