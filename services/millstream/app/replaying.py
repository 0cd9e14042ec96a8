"""Run history through the stages in memory: what ``replay``, ``train``, ``bootstrap`` and ``demo`` share."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.adapters.feast.batch_history import open_batch_history
from millstream.app.assembly import Assembly
from millstream.app.late_labels import Labels, LateLabels, pieces
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch, joined
from millstream.core.ledger.label_timeline import LabelTimeline
from millstream.core.text import as_text
from millstream.runtime.log.records import Output
from millstream.runtime.replay import Replay
from millstream.runtime.stage import Stage
from millstream.stages.score.scorer import Champion
from millstream.stages.score.step import Score
from millstream.topology import DEAD_LETTERS

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


def replay_stages(assembly: Assembly, champion: Champion | None, partitions: int) -> list[Stage]:
    """Return the stages on the way to the prediction, in path order, as they run without servers.

    Batch views are read from their offline sources, as of the time of each event.
    """
    resolve = assembly.resolver()
    carried = open_batch_history(assembly.settings, assembly.declaration, assembly.contract.event_time)
    stages = [
        assembly.stage(plan, resolve, carried if plan.last else None, partitions=partitions)
        for plan in assembly.topology.stages
    ]
    score = stages[-1].score
    if champion is not None and isinstance(score, Score):
        score.swap(champion)
    return stages


class History:
    """A replay of an assembly's stages, fed with columns of the event topic.

    Events pass as encoded bytes, so that a replay does all that the stages do in earnest: decode, validate, window,
    score, encode. The records' timestamps are the events' own times. Labels become known while it goes on: with them,
    label-derived features are what they would have been live with every label there on time. Batch views are read from
    their offline sources, as of the time of each event.
    """

    def __init__(self, assembly: Assembly, champion: Champion | None = None) -> None:
        resolve = assembly.resolver()
        self._assembly = assembly
        self.replay = Replay(replay_stages(assembly, champion, partitions=1))
        self._writer = RecordWriter(assembly.contract.schema)
        self._scored = RecordReader(assembly.topology.stages[-1].output_schema, resolve)
        self._dead = RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve)
        plans = [plan.labels for plan in assembly.topology.stages if plan.labels is not None]
        self._late = LateLabels(plans, assembly.contract.event_id)
        self._read = 0

    def feed(self, events: Batch, labels: Labels | LabelTimeline | None = None) -> Replayed:
        """Take events, in order, through all stages.

        Parameters
        ----------
        labels : Labels or LabelTimeline, optional
            Of these events; they become known to later ones.
        """
        times_ms = events.columns[self._assembly.contract.event_time]
        known = labels if self._assembly.topology.label_derived else None
        parts = [
            self._feed(events.take(rows), labels.take(rows) if labels is not None else None)
            for rows in pieces(times_ms, known, CHUNK_RECORDS, self._late.returning_ms(known))
        ]
        if not parts:
            return self._feed(events, labels)
        return Replayed(
            joined([each.scored for each in parts]), joined([each.dead_letters for each in parts]), self._read
        )

    def _feed(self, events: Batch, labels: Labels | LabelTimeline | None) -> Replayed:
        contract = self._assembly.contract
        stamps: list[int] = events.columns[contract.event_time].tolist()
        keys = as_text(events.columns[contract.key])
        output = Output(self._assembly.declaration.topic, keys, self._writer.encode(events), timestamps_ms=stamps)
        scored, dead_letters = self.replay.feed(output, self._late.due(max(stamps)) if stamps else ())
        self._read += events.length
        limit = 1 << 40
        replayed = Replayed(
            self._scored.decode(scored.values, limit).batch,
            self._dead.decode(dead_letters.values, limit).batch,
            self._read,
        )
        if labels is not None and self._assembly.topology.label_derived:
            self._late.wait(replayed.scored, events.columns[contract.event_id], labels)
        return replayed

    def tell_all(self) -> None:
        """Tell the stages all labels that are still to become known.

        Windows hold them from when they do: whoever goes on from this state needs not be told.
        """
        self.replay.feed(Output(self._assembly.declaration.topic, [], []), self._late.due())
