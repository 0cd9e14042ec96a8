"""The join: one micro-batch of predictions and labels in, examples out, and what to write behind the commit.

Exactly once, with a store that knows nothing of transactions:

- `process` only reads the store. What it published follows from what was believed before and after the micro-batch.
- The transaction commits the examples and both topics' offsets.
- Then `write` puts the rows, with those offsets, in one batch. A crash before it leaves the store behind the group:
  `apply` folds the records in between without publishing, and as the fold depends on the set of records alone, the
  ledger believes what it believed when it died. See `millstream.core.ledger.recovery` for a store that is ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.ledger import rows
from millstream.core.ledger.fold import LedgerEntries, LedgerUpdate, fold
from millstream.core.ledger.horizon import expired_events
from millstream.core.ledger.label_sets import LATEST_MS, LabelSets
from millstream.core.ledger.resolution import Policy, resolve
from millstream.core.ledger.tally import of_batch, of_forgetting
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import PredictionGroup
from millstream.core.quality.part import PredictionCounts
from millstream.core.text import as_text
from millstream.ports import LedgerStore
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Output
from millstream.stages.join.completeness import CompletenessAccount, CompletenessUpdate, newest_ms
from millstream.stages.join.examples import RekeyedTopic, made_of, rekeyed_output
from millstream.stages.join.outputs import ExpiryOutput, JoinOutput
from millstream.stages.join.statements import meaningful, statements


class Join:
    """The label ledger of one partition.

    Parameters
    ----------
    store : LedgerStore
        Of this partition.
    policy : Policy
        Which labels are believed.
    scored : RecordReader
        Of the scored topic.
    examples : RecordWriter
        Of `millstream.stages.join.contract.examples_schema`.
    event_id, event_time : str
        Columns of the scored record.
    rekeyed : sequence of RekeyedTopic
        Other topics of the examples.
    count : callable
        Counts predictions by model; default: none.

    Attributes
    ----------
    account : CompletenessAccount
        How complete the labels are.
    """

    def __init__(
        self,
        store: LedgerStore,
        policy: Policy,
        scored: RecordReader,
        examples: RecordWriter,
        event_id: str,
        event_time: str,
        rekeyed: Sequence[RekeyedTopic] = (),
        count: Callable[[Batch], Mapping[PredictionGroup, PredictionCounts]] = lambda _: {},
    ) -> None:
        self._store = store
        self._policy = policy
        self._scored = scored
        self._examples = examples
        self._event_id = event_id
        self._whole_ids = scored.reader[event_id].kind in {"int", "long"}
        self._event_time = event_time
        self._rekeyed = tuple(rekeyed)
        self._count = count
        self._swept_ms = 0
        self._load()

    def _load(self) -> None:
        named = self._store.scan(rows.SOURCE, rows.TIME, 1 << 20)
        self._names = {rows.source_of(key): name.decode() for key, name in named}
        self.account = CompletenessAccount(self._store)

    def clear(self) -> None:
        """Forget everything, to be rebuilt."""
        self._store.clear()
        self._load()

    def process(self, scored: Flow, labels: Flow, now_ms: int) -> JoinOutput:
        """Join a micro-batch; the store is read and not changed.

        Of several predictions of one event the first in the topic counts. Labels are rejected as ``no-label`` (null,
        and no retraction), ``not-allowed`` (neither 0 nor 1), ``event-id`` and ``range`` (of ``known_at_ms``).

        Parameters
        ----------
        scored, labels : Flow
            Rows that are sound by their contracts; both of this partition; either may be empty.
        now_ms : int
            Only stamps examples.

        Raises
        ------
        Stop
            A prediction in the store can no longer be decoded.
        """
        return self._join(scored, labels, now_ms, publish=True)

    def apply(self, scored: Flow, labels: Flow, next_offsets: Mapping[str, int]) -> None:
        """Fold records into the store and publish nothing: how recovery catches up."""
        self.write(self._join(scored, labels, 0, publish=False), next_offsets)

    def write(self, joined: JoinOutput, next_offsets: Mapping[str, int]) -> None:
        """Write a micro-batch whose transaction is committed; ``next_offsets`` are by topic.

        Raises
        ------
        Stop
            The disk refuses. The transaction stands; after a restart the store catches up.
        """
        puts = joined.puts + self.account.add(joined.counted)
        self._store.write([key for key, _ in puts], [value for _, value in puts], joined.deleted, next_offsets)
        self._names.update(joined.sources)
        self._swept_ms = min(self._swept_ms, joined.oldest_ms)

    def cover(self, days: Iterable[int]) -> None:
        """Publish all of these days again, days without predictions included; see `CompletenessAccount.cover`."""
        puts = self.account.cover(days)
        self._store.write([key for key, _ in puts], [value for _, value in puts], [], {})

    def sweep(self, now_ms: int, limit: int = 1000) -> ExpiryOutput:
        """Forget what is past the horizon, at most ``limit`` events at a time, oldest first.

        Call it after `write`, and not while recovering.

        Parameters
        ----------
        now_ms : int
            The earlier of how far both inputs have come in event time and known-at time.
        """
        bound_ms = now_ms - self._policy.horizon_ms
        found = self._store.scan(rows.time_bound(self._swept_ms), rows.time_bound(bound_ms), limit)
        if not found:
            self._swept_ms = max(self._swept_ms, bound_ms)
            return ExpiryOutput(0, 0, [], False)
        event_ids = list(dict.fromkeys(rows.event_id_of(key) for key, _ in found))
        entries, _ = self._read(event_ids)
        resolved = resolve(self._policy, entries.labels, entries.predicted)
        past = expired_events(self._policy, entries, resolved, now_ms)
        dropped = [event_ids[i] for i in np.flatnonzero(past.dropped).tolist()]
        # An event that stays has a later index row: a prediction that came after its label, or a newer label.
        deleted = [key for key, _ in found] + rows.prediction_keys(dropped) + rows.label_keys(dropped)
        # A day's count outlives its last event by a day: quality may be a little behind.
        deleted += self.account.forget(bound_ms - DAY_MS)
        puts = self.account.add(CompletenessUpdate(of_forgetting(entries, resolved, past)))
        self._store.write([key for key, _ in puts], [value for _, value in puts], deleted, {})
        self._swept_ms = rows.time_of(found[-1][0])
        unmatched = [event_ids[i] for i in np.flatnonzero(past.unmatched).tolist()]
        counts = int(past.forgotten.sum()), int(past.retired.sum())
        return ExpiryOutput(*counts, unmatched, len(found) == limit)

    def _read(self, event_ids: Sequence[bytes]) -> tuple[LedgerEntries, list[bytes | None]]:
        predictions = self._store.read(rows.prediction_keys(event_ids))
        labels = self._store.read(rows.label_keys(event_ids))
        predicted, times_ms = rows.decode_times(predictions)
        return LedgerEntries(predicted, times_ms, LabelSets.decode(labels)), predictions

    def _join(self, scored: Flow, labels: Flow, now_ms: int, publish: bool) -> JoinOutput:
        labels = meaningful(labels, self._whole_ids)
        places: dict[bytes, int] = {}
        about = [
            np.fromiter((places.setdefault(each, len(places)) for each in as_text(ids)), np.int64, len(ids))
            for ids in (scored.batch.columns[self._event_id], labels.batch.columns["event_id"])
        ]
        event_ids = list(places)
        entries, predictions = self._read(event_ids)
        stated, sources = statements(about[1], labels.batch)
        fresh = {source: name for source, name in sources.items() if source not in self._names}
        predicted = np.zeros(len(event_ids), dtype=np.bool_)
        times_ms = np.zeros(len(event_ids), dtype=np.int64)
        events, first = np.unique(about[0], return_index=True)
        predicted[events] = True
        times_ms[events] = scored.batch.columns[self._event_time][first]
        folded = fold(self._policy, entries, predicted, times_ms, stated)
        arrived = np.flatnonzero(folded.arrived)
        record_of = dict(zip(events.tolist(), scored.rows[first].tolist(), strict=True))
        raw = [scored.records.values[record_of[event]] or b"" for event in arrived.tolist()]
        new_rows = rows.encode_predictions(folded.entries.event_time_ms[arrived], raw)
        for event, row in zip(arrived.tolist(), new_rows, strict=True):
            predictions[event] = row
        puts, deleted, oldest_ms = _changes(event_ids, folded, arrived.tolist(), new_rows)
        puts += [(rows.source_key(source), name.encode()) for source, name in fresh.items()]
        examples: list[bytes] = []
        rekeyed: list[Output] = []
        if publish and len(folded.publish):
            records = [rows.scored_record(predictions[event] or b"") for event in folded.publish.tolist()]
            made = made_of(self._scored, records, event_ids, folded, {**self._names, **fresh}, now_ms)
            examples = self._examples.encode(made)
            rekeyed = [rekeyed_output(each, made) for each in self._rekeyed]
        keys = [event_ids[event] for event in folded.publish.tolist()] if publish else []
        new = first[folded.arrived[events]]
        counted = CompletenessUpdate(
            of_batch(folded, len(about[0]), len(about[1])),
            newest_ms(scored.batch.columns[self._event_time]),
            newest_ms(labels.batch.columns["known_at_ms"]),
            self._count(scored.batch.take(new)) if len(new) else {},
        )
        return JoinOutput(keys, examples, rekeyed, labels, puts, deleted, oldest_ms, counted, fresh)


def _changes(
    event_ids: list[bytes], folded: LedgerUpdate, arrived: list[int], new_rows: list[bytes]
) -> tuple[list[tuple[bytes, bytes]], list[bytes], int]:
    """Return rows to put, keys to delete, and the oldest time among the index rows put."""
    puts: list[tuple[bytes, bytes]] = []
    oldest_ms = LATEST_MS
    if arrived:
        there = [event_ids[event] for event in arrived]
        puts += zip(rows.prediction_keys(there), new_rows, strict=True)
        times_ms = folded.entries.event_time_ms[arrived]
        puts += [(key, b"") for key in rows.time_keys(times_ms, there)]
        oldest_ms = int(times_ms.min())
    deleted: list[bytes] = []
    changed = np.flatnonzero(folded.relabelled).tolist()
    if changed:
        sets = folded.entries.labels.encode(len(event_ids))
        for event in changed:
            key = rows.LABELS + event_ids[event]
            if sets[event]:
                puts.append((key, sets[event]))
            else:
                deleted.append(key)
        newest = np.zeros(len(event_ids), dtype=np.int64)
        np.maximum.at(newest, folded.entries.labels.owners, folded.entries.labels.known_at_ms)
        waiting = [event for event in changed if not folded.entries.predicted[event]]
        puts += [(key, b"") for key in rows.time_keys(newest[waiting], [event_ids[event] for event in waiting])]
        oldest_ms = min([oldest_ms, *newest[waiting].tolist()])
    return puts, deleted, max(0, oldest_ms)
