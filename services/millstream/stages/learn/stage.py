"""The learning stage: examples in one total order in, signed snapshots of the online model out.

State is the learner itself. A snapshot holds models, metrics and the offset they are valid for, and is published in the
transaction that commits that offset; after a crash the newest one is restored and the examples since are learnt again,
silently, so the model is the one that was never interrupted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.adapters.models.river_pipelines import OnlineModel
from millstream.core.batch import Batch, Rejection, Rows
from millstream.core.recent_keys import ExampleVersion, RecentKeys, repeated_examples
from millstream.errors import Refused, Stop
from millstream.runtime.flow import Flow, report_unreadable
from millstream.runtime.fold_stage import FoldStage, Restored
from millstream.runtime.log.protocol import AssignedReader, LogReader, read_back
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import Processed, Progress, Recovered, StateSize
from millstream.stages.learn.learner import FailedExample, Learner
from millstream.topology import EXAMPLES, LEARN, SNAPSHOTS

logger = logging.getLogger(__name__)

_RETAINED = 10  # snapshots to fall back to
_REPEATS = 100_000  # examples after which one is not expected to come again
MOST_BYTES: Final = BIG_RECORD_BYTES - 4_096
"""Of a snapshot: what the topic holds, less what Kafka adds."""


class LearnStage(FoldStage):
    """The one writer of an online model.

    Parameters
    ----------
    declared : OnlineModel
    validate : callable
        Examples' records to sound rows.
    key : bytes
        Signs snapshots.
    dead_letters : callable
        Makes the dead letters of what was rejected.

    Attributes
    ----------
    learner : Learner or None
        None while the one partition of `examples` is assigned to another worker.
    """

    name = LEARN
    inputs: tuple[str, ...] = (EXAMPLES,)

    def __init__(
        self,
        declared: OnlineModel,
        validate: Callable[[Records], Flow],
        key: bytes,
        dead_letters: Callable[[Iterable[Flow], int], list[Output]] = lambda _flows, _now_ms: [],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._declared = declared
        self._validate = validate
        self._key = key
        self._dead_letters = dead_letters
        self._clock_s = clock_s
        self._log: AssignedReader | None = None
        self._failed: dict[int, str] = {}
        self._seen: RecentKeys[str, ExampleVersion] | None = None
        self.learner: Learner | None = None

    def open(
        self, log: AssignedReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
    ) -> Recovered:
        """See `Work.open`."""
        self._failed = {}
        return super().open(log, partition, committed, on_progress)

    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """See `FoldStage.restore`."""
        self._log = log
        learner = self.learner = self._restored(log)
        offset = learner.offsets.get(_source(partition))
        return Restored(learner.examples, {} if offset is None else {EXAMPLES: offset})

    def remember(self, log: AssignedReader, partition: int, starts: Mapping[str, int]) -> None:
        """See `FoldStage.remember`."""
        self._seen = None if log.atomic else RecentKeys(_REPEATS)
        if self._seen is not None:
            for records in read_back(log, EXAMPLES, partition, starts[EXAMPLES], _REPEATS):
                repeated_examples(self._seen, self._validate(records).batch)

    def fold(self, records: Records) -> None:
        """See `FoldStage.fold`."""
        self._learn(self._validate(records))

    def _restored(self, log: LogReader) -> Learner:
        """Return the learner as of the newest snapshot that fits; anybody might have published what does not."""
        retained: deque[bytes] = deque(maxlen=_RETAINED)
        for records in log.read(SNAPSHOTS, 0, 0, None):
            mine = zip(records.keys, records.values, strict=True)
            retained.extend(value for key, value in mine if key == self._declared.name.encode() and value is not None)
        learner, last_error = Learner(self._declared), ""
        for snapshot in reversed(retained):
            try:
                learner.restore(snapshot, self._key)
                return learner
            except Refused as error:
                if str(error) != last_error:
                    last_error = str(error)
                    logger.warning("%s; an earlier one, or the retained examples, must do", error)
        return learner

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self.learner = None

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        started_s = self._clock_s()
        (records,) = batches
        flow = self._learn(self._validate(records))
        outputs = self._dead_letters([flow], now_ms)
        return Processed((), outputs, seconds={"learn": self._clock_s() - started_s})

    def _learn(self, flow: Flow) -> Flow:
        """Learn examples; return them with those rejected on which the pipeline fails.

        A pipeline that fails has taken a part of the example in. So the learner is restored as it was before these
        examples, and learns them again without the one that failed: the models are as if it had never come, and a
        replay, which begins in the same state, passes over the same one.
        """
        for partition in np.unique(flow.partitions).tolist():
            mine = np.flatnonzero(flow.partitions == partition)
            batch, offsets = flow.batch.take(mine), flow.records.offsets[flow.rows[mine]]
            while not self._learnt(batch, _source(partition), offsets):
                if self._log is not None:
                    super().open(self._log, partition, {EXAMPLES: int(offsets[0])}, lambda _words: None)
        places = flow.records.offsets[flow.rows].tolist() if self._failed else []
        rejections = [
            Rejection(row, "model-failed", "", f"the online model fails on it: {self._failed[offset]}")
            for row, offset in enumerate(places)
            if offset in self._failed
        ]
        sound = np.ones(flow.batch.length, dtype=np.bool_)
        sound[[each.row for each in rejections]] = False
        flow = flow.keep(sound, rejections)
        report_unreadable(LEARN, flow)
        return flow

    def _learnt(self, batch: Batch, source: str, offsets: Rows) -> bool:
        """Learn a batch without what is known to fail; False if one more example does."""
        assert self.learner is not None
        if self._seen is not None and batch.length:
            # A null teaches nothing, and the offset moves on.
            batch = batch.with_columns({}, {"label": batch.is_null("label") | repeated_examples(self._seen, batch)})
        try:
            self.learner.learn(batch, "label", source, offsets, self._failed)
        except FailedExample as error:
            self._failed[error.offset] = error.problem
            return False
        return True

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`.

        Raises
        ------
        Stop
            The snapshot is larger than its topic takes.
        """
        assert self.learner is not None
        snapshot = self.learner.snapshot(self._key)
        if len(snapshot) > MOST_BYTES:
            raise Stop(
                f"the snapshot of online model {self._declared.name!r} takes {len(snapshot):,} bytes after "
                f"{self.learner.examples:,} examples, and {SNAPSHOTS} holds {MOST_BYTES:,}: declare fewer or smaller "
                "trees (`max_size`, `max_depth`) or fewer segments. Scorers go on with the last snapshot"
            )
        # What failed before is not learnt again from here on.
        newest = self.learner.offsets.get(_source(partition), 0)
        self._failed = {offset: problem for offset, problem in self._failed.items() if offset >= newest}
        figures = self.learner.figures()
        logger.info("%s: %s examples learnt, prequential %s", self._declared.name, self.learner.examples, figures)
        return [Output(SNAPSHOTS, [self._declared.name.encode()], [snapshot], 0)]

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`: segments and examples learnt."""
        learner = self.learner
        return None if learner is None else StateSize(0, len(learner.segments), learner.examples, 0)


def _source(partition: int) -> str:
    return f"{EXAMPLES}[{partition}]"
