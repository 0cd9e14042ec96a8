"""Reading the dead-letter topic, for commands: each dead letter once, with filters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.topics import partition_counts
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.schema import Schema, SchemaId
from millstream.topology import DEAD_LETTERS

_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected record; fields as in ``schemas/dead-letters.avsc``.

    Where ``whole_sha256`` is not empty, key and value are only the beginning of what is still at the record's place.
    """

    id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    field: str
    detail: str
    stage: str
    received_at_ms: int
    failed_at_ms: int
    whole_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter of dead letters; what is None or empty does not restrict.

    Parameters
    ----------
    reason, topic, stage : str or None
        Exactly these.
    since_ms : int or None
        Turned away at this time or later, milliseconds since the epoch.
    ids : collection of str
        Only these.
    """

    reason: str | None = None
    topic: str | None = None
    stage: str | None = None
    since_ms: int | None = None
    ids: Collection[str] = ()

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether this one is meant."""
        return (
            (self.reason is None or letter.reason == self.reason)
            and (self.topic is None or letter.topic == self.topic)
            and (self.stage is None or letter.stage == self.stage)
            and (self.since_ms is None or letter.failed_at_ms >= self.since_ms)
            and (not self.ids or letter.id in self.ids)
        )


def digest_of(key: bytes | None, value: bytes | None) -> bytes:
    """Return the SHA-256 of a record's key followed by its value."""
    return hashlib.sha256((key or b"") + (value or b"")).digest()


def read_dead_letters(
    kafka: Mapping[str, str],
    schema: Schema,
    resolve: Callable[[SchemaId], Schema | None],
    unreadable: Callable[[str], None],
) -> Iterator[DeadLetter]:
    """Yield all committed dead letters, each id once.

    Parameters
    ----------
    schema : Schema
        Today's, to which older writers' are resolved.
    resolve : callable
        Finds a writer's schema.
    unreadable : callable
        Called with a message for each record in the topic that is no dead letter.

    Raises
    ------
    Retry, Stop
        The topic cannot be read.
    """
    reader = RecordReader(schema, resolve)
    seen: set[str] = set()
    for partition in range(partition_counts(kafka, [DEAD_LETTERS]).get(DEAD_LETTERS, 0)):
        for messages in read_committed(kafka, DEAD_LETTERS, partition, 0, None):
            decoded = reader.decode([message.value() for message in messages], _MOST_BYTES)
            for rejection in decoded.rejections:
                unreadable(f"{DEAD_LETTERS}[{partition}]@{messages[rejection.row].offset()}: {rejection.detail}")
            batch = decoded.batch
            columns = [
                [
                    None if null else value
                    for null, value in zip(batch.is_null(name), batch.columns[name].tolist(), strict=True)
                ]
                for name in DeadLetter.__slots__
            ]
            for cells in zip(*columns, strict=True):
                letter = DeadLetter(*cells)
                if letter.id not in seen:
                    seen.add(letter.id)
                    yield letter
