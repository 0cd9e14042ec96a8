"""The log's promises, kept alike by Kafka and by memory."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.topics import create_topics
from millstream.errors import Aborted, Misconfigured, Stop
from millstream.runtime.log import kafka_log
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.kafka_writer import KafkaWriter
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.protocol import Assignment, StageLog
from millstream.runtime.log.records import Output, Place, next_offsets
from millstream.topology import Topic

PARTITIONS = 2


@dataclass
class World:
    """A log of one kind: fresh topics, and as many members as wanted."""

    topic: str
    out: str
    member: Callable[[], StageLog]
    append: Callable[[Output], None]
    opened: list[StageLog] = field(default_factory=list)

    def join(self) -> StageLog:
        log = self.member()
        self.opened.append(log)
        return log


def _memory() -> World:
    broker = MemoryBroker(partitions=PARTITIONS)
    return World("in", "out", lambda: MemoryLog(broker, "group"), broker.append)


def _kafka(endpoints: Endpoints, *, exactly_once: bool = True) -> World:
    name = uuid.uuid4().hex[:8]
    topics = [Topic(f"in-{name}", "key", "w", ()), Topic(f"out-{name}", "key", "w", ())]
    create_topics(endpoints.kafka, topics, PARTITIONS, 1)

    def member() -> StageLog:
        return KafkaLog(
            endpoints.kafka,
            group=f"group-{name}",
            transactional_id=f"member-{name}",
            exactly_once=exactly_once,
            transaction_timeout_ms=10_000,
        )

    def append(output: Output) -> None:
        writer = KafkaLog(
            endpoints.kafka,
            group=f"writer-{name}",
            transactional_id=f"writer-{name}",
            exactly_once=True,
            transaction_timeout_ms=10_000,
        )
        writer.send([output])
        writer.commit({})
        writer.close()

    return World(f"in-{name}", f"out-{name}", member, append)


_REAL = [pytest.param(kind, marks=pytest.mark.kafka) for kind in ("exactly once", "at least once")]


@pytest.fixture(params=["memory", *_REAL])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        made = _memory()
    else:
        made = _kafka(request.getfixturevalue("kafka"), exactly_once=request.param == "exactly once")
    yield made
    for log in made.opened:
        log.close()


@dataclass
class Seen:
    """What a member was told and read."""

    assigned: dict[Place, int | None] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)
    revoked: list[int] = field(default_factory=list)
    values: dict[int, list[bytes | None]] = field(default_factory=dict)

    def assignment(self, begin: int = 0) -> Assignment:
        def assigned(partition: int, committed: Mapping[str, int | None]) -> Mapping[str, int]:
            self.assigned |= {(topic, partition): offset for topic, offset in committed.items()}
            return {topic: begin if offset is None else offset for topic, offset in committed.items()}

        return Assignment(assigned, self.revoked.extend, self.revoked.extend)

    def read(self, log: StageLog, count: int, max_records: int = 100) -> dict[Place, int]:
        offsets: dict[Place, int] = {}
        for _ in range(300):
            batches = log.poll(max_records, 0.1)
            assert sum(map(len, batches)) <= max_records
            for records in batches:
                self.topics |= {records.topic}
                for partition, value in zip(records.partitions.tolist(), records.values, strict=True):
                    self.values.setdefault(partition, []).append(value)
            offsets.update(next_offsets(batches))
            if sum(map(len, self.values.values())) >= count:
                return offsets
        raise AssertionError(f"{count} records wanted, read {self.values}")


def _numbered(count: int) -> Output:
    return Output("in", [b"%d" % i for i in range(count)], [b"v%d" % i for i in range(count)])


def test_every_record_arrives_once_in_order_per_partition(world: World) -> None:
    world.append(Output(world.topic, _numbered(50).keys, _numbered(50).values))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    seen.read(log, 50, max_records=7)
    assert seen.assigned == {(world.topic, 0): None, (world.topic, 1): None}
    arrived = [int(value[1:]) for values in seen.values.values() for value in values if value]
    assert sorted(arrived) == list(range(50))
    for values in seen.values.values():
        numbers = [int(value[1:]) for value in values if value]
        assert numbers == sorted(numbers)


@pytest.mark.kafka
def test_partitions_of_a_backlog_are_read_abreast(kafka: Endpoints) -> None:
    # In memory a poll is of one partition at a time, and a backlog of whole partitions comes as tests want it.
    world, count = _kafka(kafka), 4_000
    started_ms = time.time_ns() // 1_000_000 - 2 * count
    for partition in range(PARTITIONS):
        stamps = [started_ms + 2 * i + partition for i in range(count)]
        world.append(Output(world.topic, [b"k"] * count, [b"v" * 200] * count, partition, stamps))
    log, found = world.join(), []
    log.subscribe([world.topic], Seen().assignment())
    deadline_s = time.monotonic() + 60
    while len(found) < PARTITIONS * count:
        assert time.monotonic() < deadline_s
        found += [stamp for records in log.poll(500, 0.1) for stamp in records.timestamps_ms.tolist()]
        if found:
            assert sum(log.lag().values()) >= PARTITIONS * count - len(found), "what is held is not handed on yet"
    log.close()
    assert found == sorted(found)


@pytest.mark.kafka
def test_a_partition_behind_a_transaction_that_hangs_is_waited_for_once(kafka: Endpoints) -> None:
    world, count = _kafka(kafka), 3_000
    hanging = Producer({**kafka.kafka, "transactional.id": uuid.uuid4().hex})
    hanging.init_transactions(30)
    hanging.begin_transaction()
    for _ in range(count):
        hanging.produce(world.topic, b"v", b"k", 1)
    assert hanging.flush(30) == 0
    world.append(Output(world.topic, [b"k"] * count, [b"v"] * count, 0))
    log, found, polls = world.join(), 0, 0
    log.subscribe([world.topic], Seen().assignment())
    while not found:
        found += sum(map(len, log.poll(100, 0.1)))
    started_s = time.monotonic()
    while found < count:
        found, polls = found + sum(map(len, log.poll(100, 0.1))), polls + 1
    waited_s = time.monotonic() - started_s
    assert polls >= count // 100 - 1
    assert waited_s < polls / 2, "each poll waited for the partition again"
    hanging.abort_transaction(30)
    log.close()


@pytest.mark.kafka
def test_an_empty_partition_is_not_waited_for(kafka: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "_ABREAST_S", 30.0)
    world = _kafka(kafka)
    world.append(Output(world.topic, [b"k"], [b"v"], 0))
    log, started_s = world.join(), time.monotonic()
    log.subscribe([world.topic], Seen().assignment())
    while not log.poll(100, 0.1):
        assert time.monotonic() - started_s < 60
    assert time.monotonic() - started_s < 30.0
    log.close()


def test_outputs_and_offsets_are_kept_together(world: World) -> None:
    world.append(Output(world.topic, _numbered(20).keys, _numbered(20).values))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    offsets = seen.read(log, 20)
    now_ms = time.time_ns() // 1_000_000  # what is older than the topic's retention may be gone at once
    stamps = [now_ms - 2_000, now_ms - 1_000]
    log.send([Output(world.out, [b"k", b"k"], [b"one", b"two"], partition=1, timestamps_ms=stamps)])
    log.commit(offsets)
    read = list(log.read(world.out, 1, 0, None))
    assert [value for records in read for value in records.values] == [b"one", b"two"]
    assert [stamp for records in read for stamp in records.timestamps_ms.tolist()] == stamps
    log.close()
    assert sorted(seen.revoked) == [0, 1]

    again = Seen()
    log = world.join()
    log.subscribe([world.topic], again.assignment())
    world.append(Output(world.topic, [b"next"], [b"next"]))
    again.read(log, 1)
    assert again.assigned == offsets
    assert [value for values in again.values.values() for value in values] == [b"next"]


def test_after_a_rewind_what_was_not_committed_is_read_again(world: World) -> None:
    world.append(Output(world.topic, _numbered(20).keys, _numbered(20).values))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    offsets = seen.read(log, 20)
    log.send([])
    log.commit(offsets)
    world.append(Output(world.topic, [b"a", b"foobar"], [b"one", b"two"]))
    seen.read(log, 22)
    log.rewind()
    assert seen.assigned == offsets
    assert seen.revoked == []
    assert log.member
    again = {p: len(values) for p, values in seen.values.items()}
    seen.read(log, 24)
    assert sorted(value for p, values in seen.values.items() for value in values[again[p] :]) == [b"one", b"two"]


def test_reading_a_range_leaves_out_its_end(world: World) -> None:
    world.append(Output(world.topic, [b"k"] * 6, [b"%d" % i for i in range(6)], partition=0))
    log = world.join()
    found = [
        (offset, value)
        for records in log.read(world.topic, 0, 2, 5)
        for offset, value in zip(records.offsets.tolist(), records.values, strict=True)
    ]
    assert [value for _, value in found] == [b"2", b"3", b"4"]
    assert list(log.read(world.topic, 0, 4, 4)) == []
    assert list(log.read(world.topic, 1, 0, None)) == []
    assert log.beginning(world.topic, 0) == 0
    assert (log.end(world.topic, 0) >= 6, log.end(world.topic, 1)) == (True, 0)  # markers take offsets as well


def test_keys_decide_the_partition_as_in_java(world: World) -> None:
    keys = [b"21", b"foobar", b"abc"]
    world.append(Output(world.topic, keys, keys))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    seen.read(log, 3)
    # Utils.murmur2 of the Java client, positive, modulo 2.
    assert seen.values == {0: [b"21", b"foobar"], 1: [b"abc"]}


def test_tombstones_and_null_keys_pass(world: World) -> None:
    world.append(Output(world.topic, [b"k", None], [None, b""], partition=0))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    seen.read(log, 2)
    assert seen.values == {0: [None, b""]}


def test_lag_is_what_is_left_to_read(world: World) -> None:
    world.append(Output(world.topic, [b"k"] * 5, [b"v"] * 5, partition=0))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic], seen.assignment())
    seen.read(log, 2, max_records=2)
    assert sum(log.lag().values()) >= 1
    seen.read(log, 5)
    assert log.lag()[world.topic, 0] == 0


def test_partitions_of_one_number_go_to_one_member_and_are_committed_together(world: World) -> None:
    for topic in (world.topic, world.out):
        world.append(Output(topic, _numbered(20).keys, _numbered(20).values))
    log, seen = world.join(), Seen()
    log.subscribe([world.topic, world.out], seen.assignment())
    offsets = seen.read(log, 40)
    assert seen.topics == {world.topic, world.out}
    assert set(seen.assigned) == {(topic, p) for topic in (world.topic, world.out) for p in range(PARTITIONS)}
    log.send([])
    log.commit(offsets)
    log.close()

    world.append(Output(world.out, [b"next"], [b"next"]))
    log, again = world.join(), Seen()
    log.subscribe([world.topic, world.out], again.assignment())
    again.read(log, 1)
    assert again.assigned == offsets
    assert [value for values in again.values.values() for value in values] == [b"next"]


@pytest.fixture
def crowd(kafka: Endpoints) -> Iterator[World]:
    """A world on Kafka for tests of several members; they all leave in the end."""
    made = _kafka(kafka, exactly_once=False)
    yield made
    for log in made.opened:
        log.close()


@pytest.mark.kafka
def test_partitions_follow_when_a_second_member_joins(crowd: World) -> None:
    world = crowd
    logs, everyone = [world.join(), world.join()], [Seen(), Seen()]
    for log, seen in zip(logs, everyone, strict=True):
        log.subscribe([world.topic, world.out], seen.assignment())
    for _ in range(300):
        for log in logs:
            log.poll(1, 0.05)
        owned = [{place for place in seen.assigned if place[1] not in seen.revoked} for seen in everyone]
        if all(owned):
            break
    for topic in (world.topic, world.out):
        world.append(Output(topic, [b"a", b"b"], [b"a", b"b"], partition=0))
        world.append(Output(topic, [b"c"], [b"c"], partition=1))
    for log, seen in zip(logs, everyone, strict=True):
        wanted = sum(
            4 if partition == 0 else 2
            for topic, partition in seen.assigned
            if topic == world.topic and partition not in seen.revoked
        )
        seen.read(log, wanted)
    assert sorted(place for places in owned for place in places) == sorted(
        (topic, p) for topic in (world.topic, world.out) for p in range(PARTITIONS)
    )


@pytest.mark.kafka
def test_a_rewind_keeps_no_partition_that_another_member_is_given(crowd: World) -> None:
    world = crowd
    world.append(Output(world.topic, _numbered(20).keys, _numbered(20).values))
    (first, second), (one, two) = (world.join(), world.join()), (Seen(), Seen())
    first.subscribe([world.topic], one.assignment())
    offsets = one.read(first, 20)
    first.send([])
    first.commit(offsets)
    second.subscribe([world.topic], two.assignment())
    for _ in range(50):  # until the revocation of one partition waits for the first member's next poll
        second.poll(1, 0.1)
    assert (one.revoked, two.assigned) == ([], {})
    first.rewind()
    for _ in range(30):
        second.poll(1, 0.1)
    assert two.assigned == {}, "a partition has two owners"
    for _ in range(300):
        first.poll(1, 0.05)
        second.poll(1, 0.05)
        if two.assigned:
            break
    assert {partition for _, partition in two.assigned} == set(one.revoked)
    assert len(one.revoked) == 1


@pytest.mark.kafka
def test_a_spare_is_a_member_with_no_partition(crowd: World) -> None:
    world = crowd
    logs, everyone = [world.join() for _ in range(PARTITIONS + 1)], [Seen() for _ in range(PARTITIONS + 1)]
    assert not any(log.member for log in logs)
    for log, seen in zip(logs, everyone, strict=True):
        log.subscribe([world.topic], seen.assignment())
    for _ in range(300):
        for log in logs:
            log.poll(1, 0.05)
        if all(log.member for log in logs):
            break
    assert all(log.member for log in logs)


@pytest.mark.kafka
def test_a_second_owner_fences_the_first(kafka: Endpoints) -> None:
    world = _kafka(kafka)
    world.append(Output(world.topic, [b"k"], [b"v"], partition=0))
    first, seen = world.join(), Seen()
    first.subscribe([world.topic], seen.assignment())
    offsets = seen.read(first, 1)
    world.join()
    first.send([Output(world.out, [b"k"], [b"zombie"], partition=0)])
    with pytest.raises(Stop):
        first.commit(offsets)
    assert [value for records in first.read(world.out, 0, 0, None) for value in records.values] == []
    for log in world.opened:
        log.close()


@pytest.mark.kafka
def test_a_worker_whose_transaction_timed_out_goes_on_in_place(kafka: Endpoints) -> None:
    world = _kafka(kafka)
    world.append(Output(world.topic, [b"k"], [b"v"], partition=0))
    log, seen = world.join(), Seen()
    assert isinstance(log, KafkaLog)
    log.subscribe([world.topic], seen.assignment())
    offsets = seen.read(log, 1)
    log.send([Output(world.out, [b"k"], [b"lost"], partition=0)])
    world.join()  # fences it, as a broker does once the transaction has timed out
    log._writer._begun_s -= 60.0
    with pytest.raises(Aborted):
        log.commit(offsets)
    log.rejoin()
    again = Seen()
    log.subscribe([world.topic], again.assignment())
    offsets = again.read(log, 1)
    log.send([Output(world.out, [b"k"], [b"written"], partition=0)])
    log.commit(offsets)
    assert [value for records in log.read(world.out, 0, 0, None) for value in records.values] == [b"written"]
    for each in world.opened:
        each.close()


class _Hangs:
    """A producer whose offsets never get to a coordinator, and whose call does not return in time."""

    def __init__(self, producer: Producer, returns: threading.Event) -> None:
        self._producer = producer
        self._returns = returns

    def __getattr__(self, name: str) -> object:
        return getattr(self._producer, name)

    def send_offsets_to_transaction(self, *_: object) -> None:
        self._returns.wait()


@pytest.mark.kafka
def test_a_transactional_call_that_does_not_return_is_given_up_and_its_producer_replaced(kafka: Endpoints) -> None:
    world = _kafka(kafka)
    world.append(Output(world.topic, [b"k"], [b"v"], partition=0))
    log, seen, returns = world.join(), Seen(), threading.Event()
    assert isinstance(log, KafkaLog)
    log.subscribe([world.topic], seen.assignment())
    offsets = seen.read(log, 1)
    writer = log._writer
    writer._timeout_s = 6.0  # also of the new producer's first call
    writer._bound_calls(KafkaError(KafkaError._TRANSPORT))
    writer._producer = cast(Producer, _Hangs(writer._producer, returns))
    log.send([Output(world.out, [b"k"], [b"lost"], partition=0)])
    with pytest.raises(Aborted, match="did not return within 6 s"):
        log.commit(offsets)
    log.send([Output(world.out, [b"k"], [b"written"], partition=0)])
    log.commit(offsets)
    assert [value for records in log.read(world.out, 0, 0, None) for value in records.values] == [b"written"]
    returns.set()
    for each in world.opened:
        each.close()


class _Fails:
    """A consumer that cannot commit."""

    def __init__(self, code: int) -> None:
        self._code = code

    def commit(self, **_: object) -> None:
        raise KafkaException(KafkaError(self._code))


@pytest.mark.kafka
@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError._TIMED_OUT])
def test_at_least_once_goes_on_after_offsets_could_not_be_committed(kafka: Endpoints, code: int) -> None:
    world = _kafka(kafka, exactly_once=False)
    writer = KafkaWriter(kafka.kafka, None, 10_000)
    offsets = [TopicPartition(world.topic, 0, 1)]
    writer.send([Output(world.out, [b"k"], [b"one"], partition=0)])
    with pytest.raises(Aborted):
        writer.commit(offsets, cast(Consumer, _Fails(code)))
    writer.send([Output(world.out, [b"k"], [b"two"], partition=0)])
    writer.commit([], cast(Consumer, _Fails(code)))
    log = world.join()
    read = [value for records in log.read(world.out, 0, 0, None) for value in records.values]
    log.close()
    assert read == [b"one", b"two"]


@pytest.mark.kafka
@pytest.mark.parametrize("told_by", ["layout", "assignment"])
def test_a_topic_that_grew_after_it_was_checked_is_refused(kafka: Endpoints, told_by: str) -> None:
    name = f"grown-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.kafka, [Topic(name, "key", "w", ())], PARTITIONS, 1)
    log = KafkaLog(
        kafka.kafka,
        group=name,
        transactional_id=name,
        exactly_once=True,
        transaction_timeout_ms=10_000,
        partitions={name: PARTITIONS - 1},
    )
    seen = Seen()
    log.subscribe([name], seen.assignment())
    if told_by == "assignment":
        log._look_at_s = math.inf
    with pytest.raises(Misconfigured, match=f"{name} had {PARTITIONS - 1} partitions and has {PARTITIONS} now"):
        seen.read(log, 1)
    assert seen.assigned == {}
    log.close()
