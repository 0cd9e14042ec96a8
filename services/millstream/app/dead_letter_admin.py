"""Where the dead-letter commands get their letters from, and who sends them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.files.contracts import load_all
from millstream.adapters.kafka.dead_letters import DeadLetter, Selection, read_dead_letters
from millstream.adapters.kafka.redrive import RedriveResult, redrive, redriven_ids, restored, sort_out
from millstream.adapters.kafka.schema_registry import connect
from millstream.adapters.kafka.schema_topic import SchemaResolver, read_schemas
from millstream.adapters.kafka.topics import partition_counts
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema, SchemaError
from millstream.settings import Settings
from millstream.topology import DEAD_LETTERS, REDRIVEN, SCHEMAS


class DeadLetterAdmin:
    """Dead letters of the settings' Kafka.

    Parameters
    ----------
    settings : Settings
        Where Kafka and the contracts are.
    unreadable : callable
        Told of each record in the topic that is no dead letter.
    """

    def __init__(self, settings: Settings, unreadable: Callable[[str], None]) -> None:
        self._settings = settings
        self._kafka = resolve(settings, redis=False).kafka
        self._contracts = load_all(settings)
        self._unreadable = unreadable
        self.resolve = SchemaResolver(
            [contract.schema for contract in self._contracts.values()], self._published, connect(settings)
        )

    def _published(self) -> dict[int, Schema | SchemaError]:
        return read_schemas(self._kafka) if partition_counts(self._kafka, [SCHEMAS]) else {}

    def letters(self, selection: Selection) -> Iterator[DeadLetter]:
        """Yield the ones meant, in no particular order."""
        schema = self._contracts[DEAD_LETTERS].schema
        return filter(selection, read_dead_letters(self._kafka, schema, self.resolve, self._unreadable))

    def redriven(self) -> set[str]:
        """Return the ids of those that were sent back."""
        return redriven_ids(self._kafka)

    def cut(self, topics: Collection[str]) -> list[str]:
        """Return the ids of those that need their original, of one of these topics, and would still find it there."""
        done = self.redriven()
        return [
            letter.id
            for letter in self.letters(Selection())
            if letter.whole_sha256
            and letter.topic in topics
            and letter.id not in done
            and restored(self._kafka, letter) is not None
        ]

    def plan(self, selection: Selection) -> RedriveResult:
        """Return what `redrive` would do, and do nothing."""
        letters = list(self.letters(selection))
        return sort_out(letters, self.redriven(), partition_counts(self._kafka, [each.topic for each in letters]))

    def redrive(self, selection: Selection, progress: Callable[[int, int], None]) -> RedriveResult:
        """Send the ones meant back; see `millstream.adapters.kafka.redrive.redrive`."""
        return redrive(
            self._kafka,
            lambda: self.letters(selection),
            RecordWriter(self._contracts[REDRIVEN].schema),
            time.time_ns() // 1_000_000,
            self._settings.replication,
            progress,
        )
