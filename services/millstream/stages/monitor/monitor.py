"""The monitor stage: summaries of partitions and labelled examples in, alerts out, each exactly once.

Measures and examples are two folds that know nothing of each other, so that the state after a replay does not depend on
how the two topics were interleaved. Within each kind of alert the order is that of the input; across kinds it is the
order in which they were found, and fixed once it is written.

A record that cannot be read changes nothing, live as in a replay. It becomes a dead letter in the transaction that
commits its offset, so exactly once; of `examples`, which others read as well and log what they cannot read, here alone.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Array, Batch, Rejection, Rows
from millstream.core.drift.alert import Alert
from millstream.core.drift.concept_watch import ConceptWatch, LabelledScores
from millstream.core.drift.slot_summary import SLOT_MS, Summary
from millstream.core.drift.watch import Watch
from millstream.core.recent_keys import RecentKeys, first_times
from millstream.runtime.dead_letters import dead_letter_output
from millstream.runtime.flow import Flow, report_unreadable
from millstream.runtime.fold_stage import FoldStage, Restored
from millstream.runtime.log.protocol import AssignedReader, read_back
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import UNREADABLE, Processed, Progress, StateSize
from millstream.stages.monitor.references import References
from millstream.topology import ALERTS, EXAMPLES, MEASURES, MONITOR, MONITOR_CHANGELOG

logger = logging.getLogger(__name__)

_REPEATS = 100_000  # records after which one is not expected to come again


class MonitorStage(FoldStage):
    """The one writer of alerts.

    Parameters
    ----------
    watch, concept : callable
        Create the two folds.
    examples : callable
        Records of examples to sound rows.
    references : References
    alerts : RecordWriter
    event_time : str
        Column of the scored record.
    dead_letters : RecordWriter
    largest_letter_bytes : int
        What the dead-letter topic takes.
    """

    name = MONITOR
    inputs: tuple[str, ...] = (MEASURES, EXAMPLES)
    chunk_records = 1_000

    def __init__(
        self,
        watch: Callable[[], Watch],
        concept: Callable[[], ConceptWatch],
        examples: Callable[[Records], Flow],
        references: References,
        alerts: RecordWriter,
        event_time: str,
        dead_letters: RecordWriter,
        largest_letter_bytes: int,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._new_watch, self._new_concept = watch, concept
        self._examples = examples
        self._references = references
        self._alerts = alerts
        self._event_time = event_time
        self._dead_letters = dead_letters
        self._largest_letter_bytes = largest_letter_bytes
        self._clock_s = clock_s
        # Where topics are written at least once: summaries by what they were published of, and labelled events.
        self._seen: tuple[RecentKeys[tuple[int, bool, int], bool], RecentKeys[str, bool]] | None = None
        self.watch: Watch | None = None
        self.concept: ConceptWatch | None = None

    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """See `FoldStage.restore`."""
        self._references.open(log)
        self.watch, self.concept = self._new_watch(), self._new_concept()
        newest = None
        for records in log.read(MONITOR_CHANGELOG, 0, 0, None):
            newest = records.values[-1] or newest
        return Restored(0) if newest is None else Restored(1, self._restore(newest))

    def remember(self, log: AssignedReader, partition: int, starts: Mapping[str, int]) -> None:
        """See `FoldStage.remember`."""
        self._seen = None if log.atomic else (RecentKeys(_REPEATS), RecentKeys(_REPEATS))
        for topic, start in starts.items() if self._seen is not None else ():
            for records in read_back(log, topic, partition, start, _REPEATS):
                self._remember(records)

    def fold(self, records: Records) -> None:
        """See `FoldStage.fold`."""
        self._fold(records)

    def _restore(self, value: bytes) -> dict[str, int]:
        """Go on from a snapshot and return its offsets; one that does not fit leaves everything to the replay."""
        assert self.watch is not None
        assert self.concept is not None
        raw = json.loads(zlib.decompress(value))
        try:
            self.watch.load(raw["watch"])
            self.concept.load(raw["concept"])
        except ValueError as error:
            logger.warning("%s; the monitor's state is rebuilt from the retained measures", error)
            self.watch, self.concept = self._new_watch(), self._new_concept()
            return {}
        return {topic: int(offset) for topic, offset in raw["offsets"].items()}

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self.watch = self.concept = None

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        started_s = self._clock_s()
        folded = [self._fold(records) for records in batches]
        alerts = [alert for alerts_of_one, _ in folded for alert in alerts_of_one]
        refused = tuple(flow for _, flow in folded if flow.rejections)
        outputs = [
            dead_letter_output(
                flow.records, flow.rejections, MONITOR, now_ms, self._dead_letters, self._largest_letter_bytes
            )
            for flow in refused
        ]
        if alerts:
            for alert in alerts:
                logger.warning(
                    "alert %s %s: %s, %s, %s subjects, %s %.3g against %.3g",
                    alert.event, alert.id, alert.kind, alert.feature or alert.model, alert.subject_count,
                    alert.monitor, alert.statistic, alert.threshold,
                )  # fmt: skip
            keys = [alert.id.encode() for alert in alerts]
            outputs.append(Output(ALERTS, keys, self._alerts.encode(as_batch(alerts)), 0))
        # Rows without rejections are not counted: the age of an example is unrelated to the latency of scoring.
        flows = tuple(replace(each, rows=each.rows[:0], batch=Batch(0, {})) for each in refused)
        return Processed(flows, outputs, seconds={"monitor": self._clock_s() - started_s})

    def _fold(self, records: Records) -> tuple[list[Alert], Flow]:
        """Take records into the state; return the alerts they give rise to, and what was turned away."""
        assert self.watch is not None
        assert self.concept is not None
        if records.topic == EXAMPLES:
            flow = self._examples(records)
            alerts = self.concept.update(self._labelled(flow))
        else:
            alerts, rejections = [], []
            for row, value in enumerate(records.values):
                try:
                    summary = Summary.decode(value or b"")
                    self.watch.check(summary)
                    repeated = self._repeated(summary)
                except UNREADABLE as error:
                    detail = f"it is no summary that this version of Millstream reads: {type(error).__name__}: {error}"
                    rejections.append(Rejection(row, "undecodable", "", detail))
                else:
                    alerts += [] if repeated else self.watch.update(summary)
            flow = Flow(records, np.zeros(0, dtype=np.int64), Batch(0, {}), tuple(rejections))
        report_unreadable(MONITOR, flow)
        return alerts, flow

    def _remember(self, records: Records) -> None:
        """Take records that are part of the state for those that came before."""
        if records.topic == EXAMPLES:
            self._first(self._examples(records).batch)
            return
        for value in records.values:
            try:
                self._repeated(Summary.decode(value or b""))
            except UNREADABLE:
                continue  # a dead letter since it was read first

    def _repeated(self, summary: Summary) -> bool:
        if self._seen is None or summary.at is None:
            return False
        return not first_times(self._seen[0], [(summary.partition, summary.slot is None, summary.at)])[0]

    def _first(self, batch: Batch) -> Rows:
        first = np.flatnonzero(~batch.is_null("label") & batch.is_null("previous_known_at_ms"))
        if self._seen is not None:
            first = first[first_times(self._seen[1], batch.columns["event_id"][first].tolist())]
        return first

    def _labelled(self, flow: Flow) -> LabelledScores:
        """Return the first statement about each event; corrections of it are not counted again."""
        batch = flow.batch
        first = self._first(batch)
        offsets, batch = flow.records.offsets[flow.rows][first], batch.take(first)
        versions = np.where(batch.is_null("champion_version"), 0, batch.columns["champion_version"])
        return LabelledScores(
            offsets,
            batch.columns[self._event_time],
            batch.columns["label_known_at_ms"],
            versions,
            batch.as_floats("champion_score"),
            np.asarray(batch.columns["label"] == 1.0),
            batch.as_floats("online_score"),
            lambda name: batch.as_floats(name) if name in batch.columns else np.full(batch.length, np.nan),
        )

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`."""
        assert self.watch is not None
        assert self.concept is not None
        held = {"offsets": dict(next_offsets), "watch": self.watch.to_json(), "concept": self.concept.to_json()}
        return [Output(MONITOR_CHANGELOG, [MONITOR.encode()], [zlib.compress(json.dumps(held).encode(), 1)], 0)]

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`."""
        watch = self.watch
        return None if watch is None else StateSize(max(watch.judged, 0) * SLOT_MS, 0, 0, 0)


def as_batch(alerts: Sequence[Alert]) -> Batch:
    """Return alerts as rows of ``schemas/alerts.avsc``."""
    rows = [asdict(alert) for alert in alerts]
    columns: dict[str, Array] = {}
    nulls = {}
    for name, value in rows[0].items():
        values = [row[name] for row in rows]
        if name == "estimated_metric_change":
            nulls[name] = np.array([each is None for each in values], dtype=np.bool_)
            columns[name] = np.array([0.0 if each is None else each for each in values])
        elif isinstance(value, str):
            columns[name] = np.array(values, dtype=object)
        else:
            columns[name] = np.array(values)
    return Batch(len(rows), columns, nulls)
