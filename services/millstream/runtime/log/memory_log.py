"""The log in memory: the same promises as Kafka's for one process, for replay and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from millstream.adapters.kafka.origins import Origins
from millstream.core.partitioner import partition_of
from millstream.runtime.log.protocol import Assignment
from millstream.runtime.log.records import Output, Place, Records

Entry = tuple[int, bytes | None, bytes | None]


@dataclass
class Partition:
    """Records from offset ``beginning`` on; earlier ones were dropped."""

    beginning: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Offset the next record will get."""
        return self.beginning + len(self.entries)


@dataclass
class MemoryBroker:
    """Topics, partitions and committed offsets; ``now_ms`` stamps records that bring no time of their own."""

    partitions: int = 1
    ids: dict[str, str] = field(default_factory=dict)
    now_ms: int = 0
    topics: dict[str, list[Partition]] = field(default_factory=dict)
    committed: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def log(self, topic: str) -> list[Partition]:
        """Return the partitions of a topic, created on first use."""
        return self.topics.setdefault(topic, [Partition() for _ in range(self.partitions)])

    def recreate(self, topic: str, topic_id: str) -> None:
        """Delete a topic and create it again, with what Kafka forgets of it: committed offsets go along."""
        self.topics.pop(topic, None)
        self.ids[topic] = topic_id
        self.committed = {place: offset for place, offset in self.committed.items() if place[1] != topic}

    def append(self, output: Output) -> None:
        """Append records to their partitions, by key unless the output names one."""
        log = self.log(output.topic)
        stamps = output.timestamps_ms or [self.now_ms] * len(output.values)
        entries = zip(stamps, output.keys, output.values, strict=True)
        if output.partition is not None or len(log) == 1:
            log[output.partition or 0].entries.extend(entries)
            return
        places = partition_of([key or b"" for key in output.keys], len(log)).tolist()
        for place, entry in zip(places, entries, strict=True):
            log[place].entries.append(entry)

    def records(self, topic: str, partition: int, start: int, end: int) -> Records:
        """Return the records with start <= offset < end."""
        held = self.log(topic)[partition]
        start = max(start, held.beginning)
        entries = held.entries[start - held.beginning : max(0, end - held.beginning)]
        count = len(entries)
        return Records(
            topic,
            np.full(count, partition, dtype=np.int64),
            np.arange(start, start + count, dtype=np.int64),
            np.fromiter((entry[0] for entry in entries), dtype=np.int64, count=count),
            [entry[1] for entry in entries],
            [entry[2] for entry in entries],
        )

    def drain(self, topic: str) -> list[Records]:
        """Return all records of a topic, partition by partition, and drop them."""
        drained = []
        for number, held in enumerate(self.log(topic)):
            drained.append(self.records(topic, number, held.beginning, held.end))
            held.beginning, held.entries = held.end, []
        return drained


class MemoryLog:
    """`StageLog` on a `MemoryBroker`: the only member of its group."""

    def __init__(self, broker: MemoryBroker, group: str, origins: Origins | None = None) -> None:
        self._broker = broker
        self._origins = origins or Origins()
        self._group = group
        self.member = False
        self.atomic = True
        self._topics: tuple[str, ...] = ()
        self._assignment: Assignment | None = None
        self._positions: dict[Place, int] = {}
        self._turn = 0
        self._sent: Sequence[Output] = ()

    def subscribe(self, topics: Sequence[str], assignment: Assignment) -> None:
        """See `StageLog.subscribe`."""
        self._topics, self._assignment = tuple(topics), assignment

    def _assign(self) -> None:
        if self._assignment is None or self._positions:
            return
        self._origins.check()
        for partition in range(len(self._broker.log(self._topics[0]))):
            self._recover(partition)
        self.member = True

    def _recover(self, partition: int) -> None:
        assert self._assignment is not None
        found = {topic: self._broker.committed.get((self._group, topic, partition)) for topic in self._topics}
        committed = {t: None if at is None else at + self._origins.base(t) for t, at in found.items()}
        for topic, offset in self._assignment.assigned(partition, committed).items():
            self._positions[topic, partition] = offset - self._origins.base(topic)

    def rewind(self) -> None:
        """See `StageLog.rewind`."""
        self._positions.clear()
        self._assign()

    def rejoin(self) -> None:
        """See `StageLog.rejoin`."""
        self._positions.clear()
        self.member = False

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """See `StageLog.poll`; partitions take turns, and nothing is waited for."""
        self._assign()
        partitions = sorted({partition for _, partition in self._positions})
        for step in range(len(partitions)):
            turn = (self._turn + step) % len(partitions)
            found = self._take(partitions[turn], max_records)
            if found:
                self._turn = turn + 1
                return found
        return []

    def _take(self, partition: int, max_records: int) -> list[Records]:
        found = []
        for topic in self._topics:
            start = self._positions[topic, partition]
            records = self._broker.records(topic, partition, start, start + max_records)
            if len(records):
                self._positions[topic, partition] = start + len(records)
                max_records -= len(records)
                found.append(self._stored(records))
        return found

    def send(self, outputs: Sequence[Output]) -> None:
        """See `StageLog.send`."""
        self._sent = outputs

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """See `StageLog.commit`."""
        for output in self._sent:
            self._broker.append(output)
        self._sent = ()
        for (topic, partition), offset in next_offsets.items():
            self._broker.committed[self._group, topic, partition] = offset - self._origins.base(topic)

    def read(self, topic: str, partition: int, start: int, end: int | None) -> Iterator[Records]:
        """See `StageLog.read`."""
        base = self._origins.base(topic)
        first, stop = max(0, start - base), self._broker.log(topic)[partition].end if end is None else end - base
        if stop > first:
            yield self._stored(self._broker.records(topic, partition, first, stop))

    def _stored(self, records: Records) -> Records:
        return replace(records, offsets=records.offsets + self._origins.base(records.topic))

    def beginning(self, topic: str, partition: int) -> int:
        """See `StageLog.beginning`."""
        return self._broker.log(topic)[partition].beginning + self._origins.base(topic)

    def end(self, topic: str, partition: int) -> int:
        """See `StageLog.end`."""
        return self._broker.log(topic)[partition].end + self._origins.base(topic)

    def lag(self) -> dict[Place, int]:
        """See `StageLog.lag`."""
        return {(topic, p): self._broker.log(topic)[p].end - at for (topic, p), at in self._positions.items()}

    def close(self) -> None:
        """See `StageLog.close`."""
        if self._assignment is not None and self._positions:
            self._assignment.revoked(sorted({partition for _, partition in self._positions}))
        self._positions.clear()
        self._assignment = None
