"""Dead letters sent back to where they came from, each exactly once.

A fixed transactional id makes one redrive at a time the only writer: starting one fences and aborts whatever went
before. The record and the marker that it was sent are one transaction, and markers are read after the fencing; so a
crash at any point, or two operators at once, send nothing twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import KafkaException, Producer

from services.adapters.dead_letters import DeadLetter
from services.adapters.kafka_client import client_logger, raise_for, read_committed
from services.adapters.topics import create_topics, partition_counts
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.errors import MillstreamError
from services.topology import DEAD_LETTERS, Topic

REDRIVEN = f"{DEAD_LETTERS}.redriven"
_TRANSACTIONAL_ID = "millstream.redrive"
_PER_TRANSACTION = 1000
_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Redriven:
    """What became of the dead letters offered.

    Parameters
    ----------
    sent : list of DeadLetter
        Sent back now.
    already : int
        Sent back before, and so not again.
    homeless : list of DeadLetter
        Their topic is no longer there.
    """

    sent: list[DeadLetter] = field(default_factory=list)
    already: int = 0
    homeless: list[DeadLetter] = field(default_factory=list)


def redriven_ids(kafka: Mapping[str, str]) -> set[str]:
    """Return the ids of all dead letters that were sent back."""
    return {
        (message.key() or b"").decode()
        for partition in range(partition_counts(kafka, [REDRIVEN]).get(REDRIVEN, 0))
        for messages in read_committed(kafka, REDRIVEN, partition, 0, None)
        for message in messages
    }


def sort_out(letters: Iterable[DeadLetter], done: set[str], topics: Mapping[str, int]) -> Redriven:
    """Return what sending these back would do, in the original order of each partition."""
    plan = Redriven()
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
) -> Redriven:
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
            "transactional.id": _TRANSACTIONAL_ID,
            "transaction.timeout.ms": 60_000,
            "message.max.bytes": 16_777_216,
            **kafka,
            "logger": client_logger,
        }
    )
    _call(producer.init_transactions, "becoming the only redrive")
    letters = list(read())
    plan = sort_out(letters, redriven_ids(kafka), partition_counts(kafka, [each.topic for each in letters]))
    for start in range(0, len(plan.sent), _PER_TRANSACTION):
        part = plan.sent[start : start + _PER_TRANSACTION]
        _send(producer, part, writer, now_ms)
        progress(start + len(part), len(plan.sent))
    producer.close()  # not after a fatal error: confluent-kafka 2.16 then raises SystemError instead
    return plan


def _send(producer: Producer, letters: Sequence[DeadLetter], writer: RecordWriter, now_ms: int) -> None:
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
            _produce(producer, letter.topic, letter.value, letter.key)
            _produce(producer, REDRIVEN, marker, letter.id.encode())
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
