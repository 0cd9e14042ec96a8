"""A stage: the steps that share one key, from a consumed micro-batch to the outputs of its transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Array, Batch
from millstream.core.drift.slot_summary import SLOT_MS, Summary, Tally
from millstream.core.ledger.label_sets import LATEST_MS
from millstream.core.text import as_text
from millstream.core.windows.entries import KeyedEntries
from millstream.ports import ViewRows
from millstream.runtime.clock_bound import ClockBound, RefusedOffsets, refused_rows
from millstream.runtime.dead_letters import dead_letter_output
from millstream.runtime.flow import Flow
from millstream.runtime.log.protocol import AssignedReader
from millstream.runtime.log.records import Output, Records, empty_records
from millstream.runtime.recovery import checkpoint, recover
from millstream.runtime.steps import FeaturizeStep, ScoreStep, ValidateStep
from millstream.runtime.work import Processed, Progress, Recovered, StateSize
from millstream.topology import MEASURES, PREDICTIONS, StagePlan


class Stage:
    """`Work` of the event path: validate, featurize, perhaps score; its state are window stores with a changelog.

    Where the entity has label-derived features, what became known is a second input: within a micro-batch the two are
    merged in order of time, and none is waited for. A replay sees to it that both are there.

    Parameters
    ----------
    plan : StagePlan
        What is read and written.
    validate, featurize, score : steps
        ``score`` is None for all stages but the last.
    validate_labels : step or None
        Of the second input; None where there is none.
    output, predictions, dead_letters : RecordWriter
        Of the respective topics; ``predictions`` is None where ``score`` is.
    largest_letter_bytes : int
        Largest record that the dead-letter topic takes; default: brokers' own.
    bound : ClockBound, optional
        Of event time, against the wall clock; for the first stage of a worker. None where history is read.

    Attributes
    ----------
    refused : dict of int to RefusedOffsets
        What the bound refused, by partition, from the offset on that recovery continued at.
    """

    written_behind = False

    def __init__(
        self,
        plan: StagePlan,
        validate: ValidateStep,
        featurize: FeaturizeStep,
        score: ScoreStep | None,
        output: RecordWriter,
        predictions: RecordWriter | None,
        dead_letters: RecordWriter,
        largest_letter_bytes: int = 1_048_576,
        validate_labels: ValidateStep | None = None,
        bound: ClockBound | None = None,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.plan = plan
        self.name = plan.name
        self.inputs: tuple[str, ...] = plan.inputs
        self.featurize = featurize
        self.score = score
        self._validate = validate
        self._validate_labels = validate_labels
        self._bound = bound
        self.refused: dict[int, RefusedOffsets] = {}
        self._output = output
        self._predictions = predictions
        self._dead_letters = dead_letters
        self._largest_letter_bytes = largest_letter_bytes
        self._clock_s = clock_s
        self._stale: dict[int, tuple[bytes, ...]] = {}
        # Between stages, at least once, the stage before writes again what it had written: no fault of the events'.
        self._counts_duplicates = True

    def warm_up(self, batches: Sequence[Records]) -> None:
        """Compile every kernel on a made-up micro-batch of partition -1, and forget what came of it."""
        self.featurize.stores[-1] = self.featurize.new_store()
        self.process(batches, LATEST_MS)
        self.featurize.drop(-1)

    def apply(self, records: Records) -> tuple[Flow, list[ViewRows]]:
        """Fold records of either input into the state and write nothing: how recovery catches up."""
        flow, _, view_rows = self._folded([records], [])
        return flow, view_rows

    def _folded(
        self, batches: Sequence[Records], marks: list[float], now_ms: int | None = None
    ) -> tuple[Flow, tuple[Flow, ...], list[ViewRows]]:
        """Return the events with features, the labels if there were any, and rows that changed; note when.

        Without ``now_ms`` no event is compared with the wall clock.
        """
        events, said = empty_records(self.plan.input), None
        for records in batches:
            if self.plan.labels is not None and records.topic == self.plan.labels.input:
                said = records
            else:
                events = records
        flow = self._validate(events)
        if self._bound is not None and now_ms is not None:
            flow = self._bound(flow, now_ms, self.refused)
        if said is None or self._validate_labels is None:
            marks.append(self._clock_s())
            flow, view_rows = self.featurize(flow)
            return flow, (), view_rows
        labels = self._validate_labels(said)
        marks.append(self._clock_s())
        flow, labels, view_rows = self.featurize.merge(flow, labels)
        return flow, (labels,), view_rows

    def open(
        self, log: AssignedReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
    ) -> Recovered:
        """See `Work.open`."""
        self._counts_duplicates = log.atomic or self.plan.first
        restored = recover(self, log, partition, committed, on_progress)
        self._stale[partition] = restored.stale
        changed = bool(restored.replayed or restored.stale or restored.converted)
        return Recovered(restored.next_offsets, restored.rows, restored.replayed, changed)

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self.featurize.drop(partition)
        self.refused.pop(partition, None)
        self._stale.pop(partition, None)

    def written(self, processed: Processed, next_offsets: Mapping[str, Mapping[int, int]]) -> None:
        """See `Work.written`; all state is in Kafka."""

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`."""
        store, labels = self.featurize.stores[partition], self.featurize.labels
        store.expire()
        if labels is not None:
            labels.expire(partition, store)
        return [checkpoint(self, partition, next_offsets, self._stale.get(partition, ()))]

    def checkpointed(self, partition: int) -> None:
        """See `Work.checkpointed`."""
        self.featurize.stores[partition].mark_clean()
        if self.featurize.labels is not None:
            self.featurize.labels.store(partition).mark_clean()
        self._stale.pop(partition, None)

    def online(self, partition: int) -> list[ViewRows]:
        """See `Work.online`."""
        store, labels = self.featurize.stores[partition], self.featurize.labels
        rows = list(self.featurize.online(store, store.all_slots()))
        if labels is not None:
            known = labels.store(partition)
            keys = np.union1d(store.keys_of(store.all_slots()), known.keys_of(known.all_slots()))
            rows += labels.online(partition, store, keys)
        return rows

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`."""
        store = self.featurize.stores.get(partition)
        if store is None:
            return None
        stores: list[KeyedEntries] = [store]
        if self.featurize.labels is not None:
            stores.append(self.featurize.labels.store(partition))
        return StateSize(
            store.stream_time_ms,
            len(store.all_slots()),
            sum(each.entries for each in stores),
            sum(each.memory_bytes for each in stores),
        )

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        marks = [self._clock_s()]
        flow, labels, view_rows = self._folded(batches, marks, now_ms)
        marks.append(self._clock_s())
        if self.score is not None:
            flow = self.score(flow, now_ms)
        marks.append(self._clock_s())
        outputs = self._encode(flow, now_ms)
        outputs += [self._letters(each, now_ms) for each in labels if each.rejections]
        if flow.counts.get("duplicates") and self._counts_duplicates:
            outputs.append(self._repeated(flow))
        marks.append(self._clock_s())
        phases = ("validate", "featurize", "score", "encode")
        seconds = {name: end - start for name, start, end in zip(phases, marks, marks[1:], strict=False)}
        return Processed((flow, *labels), outputs, view_rows, seconds)

    def _encode(self, flow: Flow, now_ms: int) -> list[Output]:
        outputs: list[Output] = []
        batch = flow.batch
        if batch.length:
            keys = self._keys(batch)
            outputs.append(Output(self.plan.output, keys, self._output.encode(batch)))
            if self._predictions is not None:
                outputs.append(Output(PREDICTIONS, keys, self._predictions.encode(self._public(flow, keys))))
        if flow.rejections:
            outputs.append(self._letters(flow, now_ms))
            for partition, rows in refused_rows(flow.rejections, flow.records, self.refused):
                keys, values = [key for key, _ in rows], [value for _, value in rows]
                outputs.append(Output(self.plan.changelog, keys, values, partition))
        return outputs

    def _keys(self, batch: Batch) -> list[bytes]:
        """Return what keys the output; an event without the next entity goes by its id, so that those spread."""
        keys, nulls = as_text(batch.columns[self.plan.key_column]), batch.nulls.get(self.plan.key_column)
        if nulls is None or not nulls.any():
            return keys
        ids = as_text(batch.columns[self.plan.event_id])
        return [ids[row] if missing else keys[row] for row, missing in enumerate(nulls.tolist())]

    def _letters(self, flow: Flow, now_ms: int) -> Output:
        return dead_letter_output(
            flow.records,
            flow.rejections,
            self.plan.name,
            now_ms,
            self._dead_letters,
            self._largest_letter_bytes,
            [self._stream_time_ms(flow, rejection.row) for rejection in flow.rejections],
        )

    def _stream_time_ms(self, flow: Flow, row: int) -> int | None:
        """Return the event time the stream had reached at a record: of the event before it, or what its store holds.

        A record's own time may be what is wrong with it, and its arrival says nothing of a history that is read late.
        """
        times_ms = flow.batch.columns.get(self.plan.views[0].timestamp_column)
        before = int(np.searchsorted(flow.rows, row)) - 1
        if times_ms is not None and before >= 0:
            return int(times_ms[before])
        store = self.featurize.stores.get(int(flow.records.partitions[row]))
        return None if store is None or store.stream_time_ms < 0 else store.stream_time_ms

    def _repeated(self, flow: Flow) -> Output:
        """Tell the monitors what nobody else will hear of: events that had come before."""
        slot = max(store.stream_time_ms for store in self.featurize.stores.values()) // SLOT_MS
        told = Summary(-1, None, {}, {slot: Tally(duplicates=flow.counts["duplicates"])})
        return Output(MEASURES, [self.name.encode()], [told.encode()], 0)

    def _public(self, flow: Flow, event_ids: Sequence[bytes]) -> Batch:
        """Return the public prediction: the small, stable part of the scored record."""
        batch = flow.batch
        time_column = self.plan.views[0].timestamp_column
        columns = {
            "event_id": _cells(event_ids),
            "key": _cells(as_text(batch.columns[self.plan.source_key])),
            "event_time_ms": batch.columns[time_column],
        }
        return replace(batch, columns={**batch.columns, **columns})


def _cells(texts: Sequence[bytes]) -> Array:
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return column
