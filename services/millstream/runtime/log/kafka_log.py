"""The log on Kafka: one group member and its `KafkaWriter`, both librdkafka's."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from millstream.adapters.kafka.client import PASSING, extent, raise_for
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.origins import Origins, grown, out_of_range
from millstream.errors import Misconfigured, Retry, Stop
from millstream.runtime.alignment import Aligned
from millstream.runtime.log.group_settings import group_settings
from millstream.runtime.log.kafka_reader import CommittedRecords
from millstream.runtime.log.kafka_records import partitions_of, records_of, stamps_ms_of
from millstream.runtime.log.kafka_writer import KafkaWriter
from millstream.runtime.log.protocol import Assignment
from millstream.runtime.log.records import Output, Place, Records

logger = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 30.0
_LAYOUT_S = 5.0
_ABREAST_S = 1.0
_HELD_BATCHES = 20
_MUCH_RECORDS = 100


class KafkaLog(CommittedRecords):
    """`StageLog` on a Kafka cluster.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings common to all clients (``bootstrap.servers``, TLS, SASL ...).
    group : str
        Consumer group of the stage.
    transactional_id : str
        Stable per worker and stage, so that a restart at once aborts what a crash left open.
    exactly_once : bool
        False writes at least once: outputs are flushed, then offsets committed.
    transaction_timeout_ms : int
        After which the broker aborts the transaction of a worker that never came back.
    partitions : mapping of str to int, optional
        How many the input topics had when their layout was checked; where it is not told, what is seen first counts.
    origins : Origins, optional
        Which logs the stored offsets are of; without them, topics are not compared.
    repeats : bool
        Whether topics may hold records repeatedly although this stage writes exactly once.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        *,
        group: str,
        transactional_id: str,
        exactly_once: bool,
        transaction_timeout_ms: int,
        partitions: Mapping[str, int] | None = None,
        origins: Origins | None = None,
        repeats: bool = False,
    ) -> None:
        self._kafka = kafka
        self._origins = origins or Origins()
        self.member = self._leaving = False
        self.atomic = exactly_once and not repeats
        self._topics: tuple[str, ...] = ()
        self._inside: dict[str, str] = {}
        self._assignment: Assignment | None = None
        self._owned: set[int] = set()
        self._held: Aligned[Message] = Aligned()
        self._given_up: set[Place] = set()
        self._starts: dict[Place, int] = {}
        self._partitions = dict(partitions or {})
        self._look_at_s = 0.0
        self._settings = group_settings(kafka, group)
        self._consumer = Consumer(self._settings)
        self._writer = KafkaWriter(self._kafka, transactional_id if exactly_once else None, transaction_timeout_ms)

    def subscribe(self, topics: Sequence[str], assignment: Assignment) -> None:
        """See `StageLog.subscribe`."""
        self._topics, self._assignment = tuple(topics), assignment
        self._inside = {named(self._kafka, topic): topic for topic in topics}

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            if self._leaving:
                return  # assigned while we close: nobody will read them
            self._origins.check()
            # A partition that was added has no state and no changelog to read it from: that would be waited for.
            self._refuse_growth(self._topics[0], 1 + max((each.partition for each in partitions), default=-1))
            consumer.incremental_assign(self._recovered(consumer, assignment, [each.partition for each in partitions]))
            self.member = True

        def gone(tell: Callable[[Sequence[int]], None], consumer: Consumer, partitions: list[TopicPartition]) -> None:
            numbers = [each.partition for each in partitions]
            tell(numbers)
            self._owned.difference_update(numbers)
            self._held.drop(numbers)
            consumer.incremental_unassign([self._at(topic, p) for topic in self._topics for p in numbers])

        # The group knows of the first topic only. No assignor is cooperative and gives partitions of one number to one
        # member; so the others' partitions go where the first one's go.
        self._consumer.subscribe(
            [named(self._kafka, self._topics[0])],
            on_assign=assigned,
            on_revoke=functools.partial(gone, assignment.revoked),
            on_lost=functools.partial(gone, assignment.lost),
        )

    def _recovered(self, consumer: Consumer, assignment: Assignment, partitions: Sequence[int]) -> list[TopicPartition]:
        """Let the stage recover these partitions; return where to read on."""
        starts: list[TopicPartition] = []
        for partition in partitions:
            begun = assignment.assigned(partition, self._committed(consumer, partition))
            at = {topic: begun[topic] - self._origins.base(topic) for topic in self._topics}
            starts += [self._at(topic, partition, at[topic]) for topic in self._topics]
            self._starts |= {(topic, partition): at[topic] for topic in self._topics}
            self._owned.add(partition)
        return starts

    def rewind(self) -> None:
        """See `StageLog.rewind`."""
        partitions = sorted(self._owned)
        if self._assignment is None or not partitions:
            return
        self._held = Aligned()
        try:
            # The assignment itself must stay as it is: to change it would answer a revocation that waits for the next
            # poll, and partitions that belong to another member would be kept.
            for start in self._recovered(self._consumer, self._assignment, partitions):
                self._consumer.seek(start)
        except KafkaException as failure:
            raise Retry(f"recovering in place: {failure.args[0].str()}") from failure

    def _at(self, topic: str, partition: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(named(self._kafka, topic), partition, offset)

    def _committed(self, consumer: Consumer, partition: int) -> dict[str, int | None]:
        asked = [self._at(topic, partition) for topic in self._topics]
        found: dict[str, int | None] = {}
        try:
            answered = consumer.committed(asked, timeout=_CALL_TIMEOUT_S)
        except KafkaException as failure:
            raise_for(failure.args[0], f"asking for the committed offsets of partition {partition}")
        for known in answered:
            if known.error is not None:
                raise_for(known.error, f"asking for the committed offset of {known.topic}[{partition}]")
            topic = self._inside[known.topic]
            found[topic] = known.offset + self._origins.base(topic) if known.offset >= 0 else None
        return found

    def rejoin(self) -> None:
        """See `StageLog.rejoin`."""
        self._leaving = True
        self._consumer.close()
        self._leaving = self.member = False
        self._owned.clear()
        self._held = Aligned()
        self._consumer = Consumer(self._settings)
        if self._assignment is not None:
            self.subscribe(self._topics, self._assignment)

    def _check_layout(self) -> None:
        """Leave when a topic was created again, or has grown: keys would go to partitions without their state."""
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _LAYOUT_S
        self._origins.check()
        for topic in self._topics:
            try:
                name = named(self._kafka, topic)
                count = len(self._consumer.list_topics(name, timeout=1.0).topics[name].partitions)
            except KafkaException:
                return  # the broker is away, which is told elsewhere; looked at again in a while
            self._partitions.setdefault(topic, count)
            self._refuse_growth(topic, count)

    def _refuse_growth(self, topic: str, count: int) -> None:
        known = self._partitions.get(topic)
        if known and count > known:
            raise Misconfigured(grown(topic, known, count))

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """See `StageLog.poll`."""
        self._check_layout()
        give_up_s, wait_s = time.monotonic() + _ABREAST_S, 0.0 if len(self._held) else timeout_s
        while self._fetch(max_records, wait_s) or len(self._held):
            behind = self._behind()
            if not behind:
                break
            if len(self._held) > _HELD_BATCHES * max_records or time.monotonic() > give_up_s:
                self._given_up |= behind
                break
            wait_s = 0.02
        taken = self._by_topic(self._held.take(max_records))
        return [records_of(topic, mine, self._origins.base(topic)) for topic, mine in taken]

    def _fetch(self, max_records: int, timeout_s: float) -> bool:
        """Hold what there is, at most so many records; return whether there was any."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        before = frozenset(self._owned)
        messages = [first]
        if max_records > 1:
            # Whatever is already here: small batches when idle, large ones under load.
            messages += self._consumer.consume(max_records - 1, timeout=0)
        errors = map(Message.error, messages)
        good = [m for m, error in zip(messages, errors, strict=True) if error is None or self._is_record(m, error)]
        if not before <= self._owned:
            # The second call may have handed back the partition that the first one's record is of.
            good = [m for m in good if m.partition() in self._owned]
        for topic, mine in self._by_topic(good):
            partitions, stamps_ms = partitions_of(mine), stamps_ms_of(mine)
            ends = [*(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(mine)]
            for start, end in itertools.pairwise([0, *ends]):
                place = topic, int(partitions[start])
                self._held.add(place, mine[start:end], stamps_ms[start:end])
                self._given_up.discard(place)
        return bool(good)

    def _by_topic(self, messages: list[Message]) -> list[tuple[str, list[Message]]]:
        if len(self._topics) == 1:
            return [(self._topics[0], messages)] if messages else []
        by_topic: dict[str, list[Message]] = {topic: [] for topic in self._topics}
        for message in messages:
            by_topic[self._inside[str(message.topic())]].append(message)
        return [(topic, mine) for topic, mine in by_topic.items() if mine]

    def _behind(self) -> set[Place]:
        """Return the partitions of which nothing is held though they have much to give: others wait for them.

        Not those that were waited for in vain, as behind a transaction that hangs, until they give something. Markers
        of transactions count as records; so a few that are left are nothing to wait for.
        """
        places = {(topic, partition) for partition in self._owned for topic in self._topics} - self._given_up
        missing = [self._at(*place) for place in sorted(places) if not self._held.count(place)]
        found = set()
        for at in self._consumer.position(missing) if missing else ():
            place = self._inside[at.topic], at.partition
            _low, high = self._consumer.get_watermark_offsets(at, cached=True)
            position = at.offset if at.offset >= 0 else self._starts[place]
            # Of one whose end is not known the first fetch is still on its way.
            if high < 0 or high - position >= _MUCH_RECORDS:
                found.add(place)
        return found

    def _is_record(self, message: Message, error: KafkaError) -> bool:
        """Return False, an error being no record; raise what does not pass by itself."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._origins.check()
            place, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
            raise Stop(out_of_range(*place, offset, *extent(self._consumer, *place)))
        if error.code() not in PASSING:
            raise_for(error, f"reading {message.topic()}")
        if error.code() != KafkaError._PARTITION_EOF:
            logger.warning("reading %s: %s; librdkafka goes on trying", message.topic(), error.str())
        return False

    def send(self, outputs: Sequence[Output]) -> None:
        """See `StageLog.send`."""
        self._writer.send(outputs)

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """See `StageLog.commit`."""
        base = self._origins.base
        offsets = [self._at(topic, p, offset - base(topic)) for (topic, p), offset in next_offsets.items()]
        self._writer.commit(offsets, self._consumer)

    def lag(self) -> dict[Place, int]:
        """See `StageLog.lag`."""
        lags = {}
        owned = [self._at(topic, p) for topic in self._topics for p in sorted(self._owned)]
        try:
            for at in self._consumer.position(owned):
                _low, high = self._consumer.get_watermark_offsets(at, cached=True)
                if high >= 0 and at.offset >= 0:
                    place = self._inside[at.topic], at.partition
                    lags[place] = max(0, high - at.offset) + self._held.count(place)
        except RuntimeError:
            # Asked from another thread, while the stage's own one closes the consumer or makes it anew: so it is told.
            return {}
        return lags

    def close(self) -> None:
        """See `StageLog.close`."""
        self._leaving = True
        self._consumer.close()
