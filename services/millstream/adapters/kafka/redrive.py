"""Dead letters sent back to where they came from, each exactly once.

A fixed transactional id makes one redrive at a time the only writer: starting one fences and aborts whatever went
before. The record and the marker that it was sent are one transaction, and markers are read after the fencing; so a
crash at any point, or two operators at once, send nothing twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from confluent_kafka import KafkaException, Producer

from millstream.adapters.kafka.client import client_logger, raise_for, read_committed
from millstream.adapters.kafka.cluster import Cluster, named
from millstream.adapters.kafka.dead_letters import DeadLetter, digest_of
from millstream.adapters.kafka.topics import create_topics, partition_counts
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.generations import GENERATION
from millstream.errors import MillstreamError
from millstream.topology import REDRIVEN, Topic

_TRANSACTIONAL_ID = "millstream.redrive"
_PER_TRANSACTION = 1000
_BYTES_PER_TRANSACTION = 64 * 1024 * 1024
_TIMEOUT_S = 30.0


@dataclass(slots=True)
class RedriveResult:
    """The outcome by dead letter.

    Parameters
    ----------
    sent : list of DeadLetter
        Sent back now.
    already : int
        Sent back before, and so not again.
    homeless : list of DeadLetter
        Their topic is no longer there.
    gone : list of DeadLetter
        Too large for a dead letter, which holds a part of them, and the original was deleted by retention.
    """

    sent: list[DeadLetter] = field(default_factory=list)
    already: int = 0
    homeless: list[DeadLetter] = field(default_factory=list)
    gone: list[DeadLetter] = field(default_factory=list)


def redriven_ids(kafka: Mapping[str, str]) -> set[str]:
    """Return the ids of all dead letters that were sent back."""
    return {
        (message.key() or b"").decode()
        for partition in range(partition_counts(kafka, [REDRIVEN]).get(REDRIVEN, 0))
        for messages in read_committed(kafka, REDRIVEN, partition, 0, None)
        for message in messages
    }


def sort_out(letters: Iterable[DeadLetter], done: set[str], topics: Mapping[str, int]) -> RedriveResult:
    """Return what sending these back would do, in the original order of each partition."""
    plan = RedriveResult()
    for letter in sorted(letters, key=lambda each: (each.topic, each.partition, each.offset)):
        if letter.id in done:
            plan.already += 1
        elif letter.topic not in topics:
            plan.homeless.append(letter)
        else:
            plan.sent.append(letter)
    return plan


def redrive(
    kafka: Mapping[str, str],
    read: Callable[[], Iterable[DeadLetter]],
    writer: RecordWriter,
    now_ms: int,
    replication: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RedriveResult:
    """Publish the original key and bytes to the original topic, and remember it.

    Parameters
    ----------
    read : callable
        Returns the dead letters meant; called once this is the only writer.
    writer : RecordWriter
        Of ``schemas/dead-letters.redriven.avsc``.
    now_ms : int
        Written into the markers, milliseconds since the epoch.
    replication : int
        Of the marker topic, should it have to be created.
    progress : callable (sent, total)
        Called after each transaction.

    Raises
    ------
    Fenced
        Another redrive was started; it goes on where this one stopped.
    Retry, Stop
        Kafka did not take everything; what was committed stays sent, and running again sends the rest.
    """
    create_topics(kafka, [Topic(REDRIVEN, "id", "redrive", ("redrive",), "compact", 1)], 1, replication)
    producer = Producer(
        {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "transactional.id": transactional_id(kafka),
            "transaction.timeout.ms": 60_000,
            "message.max.bytes": 16_777_216,
            **kafka,
            "logger": client_logger,
        }
    )
    _call(producer.init_transactions, "becoming the only redrive")
    letters = list(read())
    plan = sort_out(letters, redriven_ids(kafka), partition_counts(kafka, [each.topic for each in letters]))
    done = 0
    for part in _parts(kafka, plan):
        _send(kafka, producer, part, writer, now_ms)
        done += len(part)
        progress(done, len(plan.sent))
    lost = {letter.id for letter in plan.gone}
    plan.sent = [letter for letter in plan.sent if letter.id not in lost]
    producer.close()  # not after a fatal error: confluent-kafka 2.16 then raises SystemError instead
    return plan


def transactional_id(kafka: Mapping[str, str]) -> str:
    """Return the transactional id of the project's redrives."""
    project = kafka.project if isinstance(kafka, Cluster) else ""
    return f"{project}.redrive" if project else _TRANSACTIONAL_ID


def _parts(kafka: Mapping[str, str], plan: RedriveResult) -> Iterator[list[DeadLetter]]:
    """Yield what is to be sent, whole, a transaction's worth at a time; note in the plan what is gone."""
    part: list[DeadLetter] = []
    size_bytes = 0
    for letter in plan.sent:
        whole = restored(kafka, letter) if letter.whole_sha256 else letter
        if whole is None:
            plan.gone.append(letter)
            continue
        part.append(whole)
        size_bytes += len(whole.key or b"") + len(whole.value or b"")
        if len(part) == _PER_TRANSACTION or size_bytes >= _BYTES_PER_TRANSACTION:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part


def restored(kafka: Mapping[str, str], letter: DeadLetter) -> DeadLetter | None:
    """Return a truncated dead letter with the original's key and value, None if the original was deleted."""
    at = letter.offset % GENERATION
    for messages in read_committed(kafka, letter.topic, letter.partition, at, at + 1):
        for message in messages:
            key, value = message.key(), message.value()
            # A topic that was deleted and created again has another record there.
            if message.offset() == at and digest_of(key, value) == letter.whole_sha256:
                return replace(letter, key=key, value=value, whole_sha256=b"")
    return None


def _send(
    kafka: Mapping[str, str], producer: Producer, letters: Sequence[DeadLetter], writer: RecordWriter, now_ms: int
) -> None:
    count = len(letters)
    columns = {
        "id": np.array([letter.id for letter in letters], dtype=object),
        "topic": np.array([letter.topic for letter in letters], dtype=object),
        "redriven_at_ms": np.full(count, now_ms, dtype=np.int64),
    }
    markers = writer.encode(Batch(count, columns))
    try:
        producer.begin_transaction()
        for letter, marker in zip(letters, markers, strict=True):
            _produce(producer, named(kafka, letter.topic), letter.value, letter.key)
            _produce(producer, named(kafka, REDRIVEN), marker, letter.id.encode())
        _call(producer.commit_transaction, f"sending {letters[0].id} and those after it back")
    except MillstreamError:
        # If this fails too, the next redrive aborts the transaction before it reads a marker.
        with contextlib.suppress(KafkaException):
            producer.abort_transaction(_TIMEOUT_S)
        raise


def _produce(producer: Producer, topic: str, value: bytes | None, key: bytes | None) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
            return
        except BufferError:
            producer.poll(0.1)
        except KafkaException as failure:
            raise_for(failure.args[0], f"sending a dead letter back to {topic}")


def _call(call: Callable[[float], None], doing: str) -> None:
    try:
        call(_TIMEOUT_S)
    except KafkaException as failure:
        raise_for(failure.args[0], doing)
