"""The measure stage: scored events of each partition counted by slot of event time, sent to the monitor as slots close.

Why two stages: alerts about a model need all of its traffic in one order, and scored events are spread over partitions.
The first stage shares the partitions out and counts; what it sends per hour is a few kilobytes however many events
there were, and the second, a single reader of a single partition, merges those by slot.

A partition with nothing left to read that stays behind the others reports that it must not be waited for, and so do all
when an hour brought nothing at all. That they did is in the topic, so the monitor decides alike on every replay; what a
partition brings later counts in every window that comes.

State is what is counted and not yet reported. It follows from scored events alone: dead letters, and how fresh the
online view is, are reported at once, so that a replay of one topic needs nothing else.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from millstream.core.batch import Batch, Floats
from millstream.core.drift.partition_counts import Counting, Events, PartitionCounts
from millstream.core.drift.slot_counts import ABSENT
from millstream.core.drift.slot_summary import LAST_SLOT, SLOT_MS, Summary, Tally, slot_reached
from millstream.runtime.flow import Flow, report_unreadable
from millstream.runtime.fold_stage import FoldStage, Restored
from millstream.runtime.log.protocol import AssignedReader
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import Processed, Progress, StateSize
from millstream.stages.monitor.duplicate_filter import DuplicateFilter
from millstream.stages.monitor.freshness import Freshness
from millstream.stages.monitor.references import References
from millstream.topology import DEAD_LETTERS, MEASURE, MEASURE_CHANGELOG, MEASURES, SCORED

logger = logging.getLogger(__name__)

_BEHIND_SLOTS = 2
_IDLE_S = 5.0
_LIVE_SLOTS = 48
_WORTH_TELLING_MS = 1000


class MeasureStage(FoldStage):
    """Counts scored events; its state is one `PartitionCounts` per partition.

    Parameters
    ----------
    validate : mapping of str to callable
        By input topic: records to sound rows.
    references : References
    event_time : str
        Column of the scored record.
    path : collection of str
        Names of the stages whose dead letters count.
    freshness : Freshness or None
        None where there is no online view.
    dead_letters : callable
        Makes the dead letters of what was rejected.
    """

    name = MEASURE
    inputs: tuple[str, ...] = (SCORED, DEAD_LETTERS)
    replayed = (SCORED,)

    def __init__(
        self,
        validate: Mapping[str, Callable[[Records], Flow]],
        references: References,
        event_time: str,
        path: Collection[str],
        freshness: Freshness | None = None,
        dead_letters: Callable[[Iterable[Flow], int], list[Output]] = lambda _flows, _now_ms: [],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._validate = validate
        self._references = references
        self._event_time = event_time
        self._path = frozenset(path)
        self._freshness = freshness
        self._dead_letters = dead_letters
        self._clock_s = clock_s
        self._log: AssignedReader | None = None
        self._counts: dict[int, PartitionCounts] = {}
        self._seen = DuplicateFilter()
        self._countings: dict[int, Counting] = {}
        self._silent_to = -1
        self._behind_since_s: dict[int, float] = {}

    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """See `FoldStage.restore`."""
        self._log = log
        self._references.open(log)
        counts, offsets = PartitionCounts(partition, SLOT_MS), {}
        for records in log.read(MEASURE_CHANGELOG, partition, 0, None):
            newest = records.values[-1]
            if newest is not None:
                raw = json.loads(newest)
                counts.restore(base64.b64decode(raw["counts"]))
                offsets[SCORED] = raw["next_offset"]
        self._counts[partition] = counts
        return Restored(1, offsets)

    def remember(self, log: AssignedReader, partition: int, starts: Mapping[str, int]) -> None:
        """See `FoldStage.remember`."""
        self._seen.open(log, partition, starts, self._validate)

    def fold(self, records: Records) -> None:
        """See `FoldStage.fold`."""
        self._count(self._validate[SCORED](records))

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self._counts.pop(partition, None)
        self._seen.drop(partition)

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        started_s = self._clock_s()
        flows = tuple(self._validate[records.topic](records) for records in batches)
        for flow in flows:
            report_unreadable(MEASURE, flow)
        summaries: list[Summary] = []
        for records, flow in zip(batches, flows, strict=True):
            if records.topic == SCORED:
                summaries += self._count(flow)
                if self._freshness is not None and self._freshness.due:
                    self._freshness.sample(flow.batch)
            else:
                summaries += self._count_dead_letters(flow)
        summaries += self._idle(summaries)
        summaries += self._fresh(now_ms)
        # A dead letter that cannot be used gets none of its own: it would come back here.
        rejected = [flow for flow in flows if flow.records.topic != DEAD_LETTERS]
        outputs = [*_outputs(summaries), *self._dead_letters(rejected, now_ms)]
        return Processed((), outputs, seconds={"measure": self._clock_s() - started_s})

    def idle(self, now_ms: int) -> list[Output]:
        """Return the summaries due without input: that time passes, and how fresh the online view is.

        Only of a stream whose event time is about that of the clock; what is replayed has a time of its own. A
        checkpoint must go along.
        """
        summaries, slot = self._fresh(now_ms), now_ms // SLOT_MS
        newest = max([self._silent_to, *(counts.newest for counts in self._counts.values())])
        if self._log is not None and newest >= 0 and _BEHIND_SLOTS <= slot - newest <= _LIVE_SLOTS:
            lag = self._log.lag()
            if all(lag.get((SCORED, p)) == 0 for p in self._counts):
                # At least once, counts are reported only when events close their slot: the same at each repetition.
                summaries += [
                    Summary(p, slot, {}, {}) if p in self._seen else self._counts[p].tell(slot)
                    for p in sorted(self._counts)
                ]
                self._silent_to = slot
        return _outputs(summaries)

    def _fresh(self, now_ms: int) -> list[Summary]:
        if self._freshness is None or not self._counts or not self._freshness.due:
            return []
        behind_ms = self._freshness.behind_ms(now_ms)
        if behind_ms < _WORTH_TELLING_MS:
            return []
        return [Summary(min(self._counts), None, {}, {self._slot_at(now_ms): Tally(behind_ms=behind_ms)})]

    def _slot_at(self, clock_ms: int) -> int:
        """Return the slot of a moment of the clock: that which events have reached, where they are behind it."""
        newest = max((counts.newest for counts in self._counts.values()), default=-1)
        latest = LAST_SLOT if newest < 0 else max(newest, self._silent_to)
        return max(0, min(clock_ms // SLOT_MS, latest))

    def _idle(self, summaries: Sequence[Summary]) -> list[Summary]:
        """Return the summaries of idle partitions when others have closed slots.

        Idle is who has been behind the others for a while, with nothing left to read. Having nothing to read just now
        is not enough: neither has a partition that a publisher, or a fetch, is about to reach.
        """
        newest, now_s = max((counts.newest for counts in self._counts.values()), default=-1), self._clock_s()
        self._behind_since_s = {
            p: self._behind_since_s.get(p, now_s)
            for p, counts in self._counts.items()
            if newest - counts.newest >= _BEHIND_SLOTS
        }
        idle = [p for p, since_s in self._behind_since_s.items() if now_s - since_s >= _IDLE_S]
        closed = max((each.slot for each in summaries if each.slot is not None), default=-1)
        if closed < 0 or not idle or self._log is None:
            return []
        lag = self._log.lag()
        return [Summary(p, closed, {}, {}) for p in sorted(idle) if lag.get((SCORED, p)) == 0]

    def _count(self, flow: Flow) -> list[Summary]:
        summaries = []
        flow = self._seen.first_times(flow)
        partitions, offsets = flow.partitions, flow.records.offsets[flow.rows]
        for partition in np.unique(partitions).tolist():
            mine = np.flatnonzero(partitions == partition)
            events = self._events(flow.batch.take(mine), offsets[mine])
            for version in np.unique(events.versions).tolist():
                if version and version not in self._countings:
                    reference = self._references(version)
                    if reference is not None:
                        self._countings[version] = Counting.of(reference)
            summaries += self._counts[partition].update(events, self._countings)
        return summaries

    def _events(self, batch: Batch, offsets: np.ndarray) -> Events:
        scores = batch.as_floats("champion_score")
        scored = ~np.isnan(scores)
        versions = np.where(scored & ~batch.is_null("champion_version"), batch.columns["champion_version"], 0)

        def matrix(features: tuple[str, ...]) -> Floats:
            # A feature that the service does not serve any more is null from now on.
            nothing = np.full(batch.length, np.nan)
            found = [batch.as_floats(name) if name in batch.columns else nothing for name in features]
            return np.column_stack(found).astype(np.float64, copy=False)

        return Events(
            batch.columns[self._event_time],
            batch.columns["received_at_ms"],
            batch.columns["scored_at_ms"],
            offsets,
            versions,
            scores,
            np.where(np.isnan(batch.as_floats("online_version")), ABSENT, batch.as_floats("online_score")),
            matrix,
        )

    def _count_dead_letters(self, flow: Flow) -> list[Summary]:
        flow = self._seen.first_times(flow)
        columns = flow.batch.columns
        summaries = []
        received, failed = columns["received_at_ms"], columns["failed_at_ms"]
        slots = np.array([self._slot_at(each) for each in np.where(received >= 0, received, failed).tolist()])
        # With the events they came among: else all dead letters of a history would be of the hour when they are read.
        for row, reached in enumerate(map(slot_reached, columns.get("stream_time", ()))):
            slots[row] = slots[row] if reached is None else reached
        on_path = np.array([stage in self._path for stage in columns["stage"].tolist()], dtype=np.bool_)
        late = np.asarray(columns["reason"] == "late", dtype=np.bool_)
        for partition in np.unique(flow.partitions[on_path]).tolist():
            mine = on_path & (flow.partitions == partition)
            if partition in self._seen:
                # One by one, as they may be cut into other micro-batches when they are read again.
                summaries += [
                    Summary(
                        partition, None, {}, {int(slots[row]): Tally(dead=int(~late[row]), late=int(late[row]))}, at
                    )
                    for row in np.flatnonzero(mine).tolist()
                    for at in [int(flow.records.offsets[flow.rows[row]])]
                ]
                continue
            found: dict[int, Tally] = {}
            for slot in np.unique(slots[mine]).tolist():
                here = mine & (slots == slot)
                found[slot] = Tally(dead=int((here & ~late).sum()), late=int((here & late).sum()))
            summaries.append(Summary(partition, None, {}, found))
        return summaries

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`."""
        counts = base64.b64encode(self._counts[partition].snapshot()).decode()
        value = json.dumps({"next_offset": next_offsets[SCORED], "counts": counts}).encode()
        return [Output(MEASURE_CHANGELOG, [b"%d" % partition], [value], partition)]

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`."""
        counts = self._counts.get(partition)
        return None if counts is None else StateSize(max(counts.newest, 0) * SLOT_MS, 0, 0, 0)


def _outputs(summaries: Sequence[Summary]) -> list[Output]:
    if not summaries:
        return []
    return [Output(MEASURES, [b"%d" % each.partition for each in summaries], [each.encode() for each in summaries], 0)]
