"""Run history through the stages in memory: what ``replay``, ``train``, ``bootstrap`` and ``demo`` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from services.cli.assembly import Assembly
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.core.text import as_text
from services.score.scorer import Champion
from services.score.step import Score
from services.topology import DEAD_LETTERS
from services.transport.records import Output
from services.transport.replay import Replay

CHUNK_RECORDS = 20_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one chunk became.

    Parameters
    ----------
    scored : Batch
        Rows of the `scored` topic, in the last stage's schema.
    dead_letters : Batch
        Rows of the dead-letter topic.
    read : int
        Events read so far.
    """

    scored: Batch
    dead_letters: Batch
    read: int


class History:
    """A replay of an assembly's stages, fed with columns of the event topic.

    Events pass as encoded bytes, so that a replay does all that the stages do in earnest: decode, validate, window,
    score, encode. The records' timestamps are the events' own times.
    """

    def __init__(self, assembly: Assembly, champion: Champion | None = None) -> None:
        resolve = assembly.resolver()
        stages = [assembly.stage(plan, resolve) for plan in assembly.topology.stages]
        score = stages[-1].score
        if champion is not None and isinstance(score, Score):
            score.swap(champion)
        self._assembly = assembly
        self.replay = Replay(stages, CHUNK_RECORDS)
        self._writer = RecordWriter(assembly.contract.schema)
        self._scored = RecordReader(assembly.topology.stages[-1].output_schema, resolve)
        self._dead = RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve)
        self._read = 0

    def feed(self, events: Batch) -> Replayed:
        """Take events, in order, through all stages."""
        contract = self._assembly.contract
        stamps: list[int] = events.columns[contract.event_time].tolist()
        keys = as_text(events.columns[contract.key])
        output = Output(self._assembly.declaration.topic, keys, self._writer.encode(events), timestamps_ms=stamps)
        scored, dead_letters = self.replay.feed(output)
        self._read += events.length
        limit = 1 << 40
        return Replayed(
            self._scored.decode(scored.values, limit).batch,
            self._dead.decode(dead_letters.values, limit).batch,
            self._read,
        )

    def run(self, events: Iterator[Batch]) -> Iterator[Replayed]:
        """Feed batch after batch."""
        for batch in events:
            for start in range(0, batch.length, CHUNK_RECORDS):
                yield self.feed(batch.take(np.arange(start, min(start + CHUNK_RECORDS, batch.length))))
