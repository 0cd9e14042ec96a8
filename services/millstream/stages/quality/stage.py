"""The quality stage: examples in, quality figures out, updated whenever labels arrive, change or are retracted.

Both inputs have one partition. `examples` holds labelled predictions; `join.changelog` how many predictions there
are in all, per day and per who answered, as absolutes. What is published depends on the newest of both alone, so dying
anywhere ends with the same figures: state, figures and offsets are one transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch, Rejection
from millstream.core.drift.slot_counts import whole_number
from millstream.core.ledger.label_sets import LATEST_MS
from millstream.core.ledger.tally import LedgerReport, decode_report
from millstream.core.metrics import DAY_MS
from millstream.core.quality.report import SlotFigures
from millstream.core.quality.scored_records import ScoredRecords
from millstream.core.quality.snapshot import decode_predicted
from millstream.core.quality.topic import as_batch, with_gaps
from millstream.core.requirements import EARLIEST_MS
from millstream.runtime.flow import Flow, report_unreadable
from millstream.runtime.fold_stage import FoldStage, Restored
from millstream.runtime.log.protocol import AssignedReader
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import UNREADABLE, Processed, Progress, StateSize
from millstream.stages.quality.blocks import Blocks, records_of
from millstream.stages.quality.state import MeasuredConfiguration, QualityState
from millstream.topology import EXAMPLES, JOIN_CHANGELOG, QUALITY, QUALITY_CHANGELOG

logger = logging.getLogger(__name__)

_DAYS: Final = (EARLIEST_MS // DAY_MS, LATEST_MS // DAY_MS)

ReportMetrics = Callable[[Sequence[SlotFigures], Mapping[int, LedgerReport], int], None]


class QualityStage(FoldStage):
    """Stage that keeps quality.

    Parameters
    ----------
    declared : MeasuredConfiguration
    measured : ScoredRecords
        How examples are read.
    validate : callable
        Examples' records to sound rows.
    figures : RecordWriter
        Of the quality topic.
    set_predicted : callable
        Called with published figures, the join's reports by partition and the time they are as of; for metrics.
    dead_letters : callable
        Makes the dead letters of what was rejected.

    Attributes
    ----------
    state : QualityState or None
        None while the one partition of `examples` is assigned to another worker.
    """

    name = QUALITY
    inputs: tuple[str, ...] = (EXAMPLES, JOIN_CHANGELOG)

    def __init__(
        self,
        declared: MeasuredConfiguration,
        measured: ScoredRecords,
        validate: Callable[[Records], Flow],
        figures: RecordWriter,
        report_metrics: ReportMetrics = lambda reported, ledger_reports, as_of_ms: None,
        dead_letters: Callable[[Iterable[Flow], int], list[Output]] = lambda _flows, _now_ms: [],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.declared = declared
        self._measured = measured
        self._validate = validate
        self._figures = figures
        self._report_metrics = report_metrics
        self._dead_letters = dead_letters
        self._clock_s = clock_s
        self._reported: list[SlotFigures] = []
        self.state: QualityState | None = None

    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """See `FoldStage.restore`."""
        blocks = Blocks()
        for records in log.read(QUALITY_CHANGELOG, 0, 0, None):
            for key, value in zip(records.keys, records.values, strict=True):
                blocks.take(key, value)
            on_progress(f"{QUALITY}: {len(blocks.rows)} state rows read")
        self.state = self._loaded(blocks)
        return Restored(len(blocks.rows), self.state.offsets)

    def fold(self, records: Records) -> Flow:
        """Take records into the state; return what was rejected, which a replay rejects alike."""
        flow = self._take_examples(records) if records.topic == EXAMPLES else self._take_reports(records)
        report_unreadable(QUALITY, flow)
        return flow

    def _loaded(self, blocks: Blocks) -> QualityState:
        state = QualityState(self.declared)
        try:
            if state.load(blocks):
                return state
            logger.warning("what quality is declared of has changed; it is rebuilt from the retained examples")
        except UNREADABLE as error:
            logger.warning("quality's state cannot be read (%s); it is rebuilt from the retained examples", error)
            state = QualityState(self.declared)
            state.replace(blocks)
        return state

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self.state = None

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`; figures are published with the state, at checkpoints."""
        started_s = self._clock_s()
        flows = [self.fold(records) for records in batches]
        outputs = self._dead_letters(flows, now_ms)
        return Processed((), outputs, seconds={"quality": self._clock_s() - started_s})

    def _take_examples(self, records: Records) -> Flow:
        assert self.state is not None
        flow = self._validate(records)
        if flow.batch.length:
            examples = self._measured.examples(flow.batch)
            self.state.board.update(examples)
            self.state.newest_label_ms = max(self.state.newest_label_ms, int(examples.known_at_ms.max()))
        return flow

    def _take_reports(self, records: Records) -> Flow:
        assert self.state is not None
        rejections = []
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            # A day that is forgotten there is forgotten here in its own time.
            if key is None or value is None:
                continue
            try:
                source, _, day = key.partition(b"|")
                partition = whole_number(int(source), 0, 1 << 31)
                if day:
                    at = whole_number(int(day), *_DAYS)
                    self.state.board.set_predicted(partition, at, decode_predicted(value, at))
                else:
                    self.state.ledger_reports[partition] = decode_report(value)
            except UNREADABLE as error:
                detail = f"it is no count of predictions that this version reads: {type(error).__name__}: {error}"
                rejections.append(Rejection(row, "undecodable", "", detail))
        return Flow(records, np.zeros(0, dtype=np.int64), Batch(0, {}), tuple(rejections))

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`: what changed of figures and state."""
        state = self.state
        assert state is not None
        self._reported = with_gaps(state.report())
        outputs = []
        if self._reported:
            batch = as_batch(self._reported, state.as_of_ms)
            keys = [key.encode() for key in batch.columns["key"].tolist()]
            outputs.append(Output(QUALITY, keys, self._figures.encode(batch), 0))
        outputs.append(Output(QUALITY_CHANGELOG, *records_of(state.changes(next_offsets)), 0))
        return outputs

    def checkpointed(self, partition: int) -> None:
        """See `Work.checkpointed`."""
        assert self.state is not None
        self.state.mark_stored()
        self._report_metrics(self._reported, self.state.ledger_reports, self.state.as_of_ms)

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`: cohorts, and events remembered."""
        if self.state is None:
            return None
        board = self.state.board
        return StateSize(self.state.as_of_ms, len(board.cohorts), len(board.remembered), 0)
