"""Stages whose state is a fold over what they read: restore what is stored, replay to the committed offsets, go on.

Recovery of every such stage is the same: stored state names the offsets that it is valid for; the records between
those and the committed offsets are folded again, silently, since what they led to was written in the transactions that
committed them. A fold must give the same state for the same records however they are cut into micro-batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from millstream.ports import ViewRows
from millstream.runtime.log.protocol import AssignedReader, LogReader
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import Processed, Progress, Recovered, StateSize


@dataclass(frozen=True, slots=True)
class Restored:
    """State that was read from where it is stored.

    Parameters
    ----------
    rows : int
        Records or entries that hold it.
    offsets : mapping of str to int
        By input topic: records before it are in the state. A topic that is missing is folded from its beginning.
    """

    rows: int
    offsets: Mapping[str, int] = field(default_factory=dict)


def replay(
    log: LogReader,
    partition: int,
    spans: Mapping[str, tuple[int, int]],
    fold: Callable[[Records], object],
    on_progress: Progress,
    stage: str,
    chunk_records: int = 5_000,
) -> int:
    """Fold committed records again and return how many.

    Parameters
    ----------
    spans : mapping of str to (int, int)
        By topic, in the order to read them: the first offset, and the one after the last.
    chunk_records : int
        Largest number of records that ``fold`` is given at once.
    """
    count = 0
    for topic, (start, end) in spans.items():
        for records in log.read(topic, partition, start, end):
            for chunk in records.chunks(chunk_records):
                fold(chunk)
                count += len(chunk)
            on_progress(f"{stage}[{partition}]: {count} records replayed, now of {topic}")
    return count


class FoldStage(ABC):
    """`Work` whose state follows from its inputs, or is stored whole in each transaction.

    Attributes
    ----------
    replayed : tuple of str or None
        Inputs that the state follows from; None: all of them.
    chunk_records : int
        Largest number of records that `fold` is given at once.
    """

    name: str
    inputs: tuple[str, ...]
    written_behind = False
    replayed: ClassVar[tuple[str, ...] | None] = None
    chunk_records: ClassVar[int] = 5_000

    @abstractmethod
    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """Begin with the stored state of a partition, or with the initial state where nothing usable is stored."""

    def remember(self, log: AssignedReader, partition: int, starts: Mapping[str, int]) -> None:  # noqa: B027 a default
        """Look at records before these offsets, where a repetition of them must be recognized."""

    @abstractmethod
    def fold(self, records: Records) -> object:
        """Take records of one input into the state; nothing is written."""

    def open(
        self, log: AssignedReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
    ) -> Recovered:
        """See `Work.open`."""
        restored = self.restore(log, partition, on_progress)
        beginnings = {topic: log.beginning(topic, partition) for topic in self.inputs}
        starts = {topic: max(restored.offsets.get(topic, at), at) for topic, at in beginnings.items()}
        go_on = {topic: starts[topic] if at is None else at for topic, at in committed.items()}
        topics = self.inputs if self.replayed is None else self.replayed
        spans = {topic: (starts[topic], go_on[topic]) for topic in topics}
        self.remember(log, partition, {topic: starts[topic] if topic in spans else go_on[topic] for topic in go_on})
        count = replay(log, partition, spans, self.fold, on_progress, self.name, self.chunk_records)
        return Recovered(go_on, restored.rows, count, count > 0)

    @abstractmethod
    def drop(self, partition: int) -> None:
        """See `Work.drop`."""

    @abstractmethod
    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""

    def written(self, processed: Processed, next_offsets: Mapping[str, Mapping[int, int]]) -> None:  # noqa: B027 a default
        """See `Work.written`; all state is in Kafka."""

    @abstractmethod
    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`."""

    def checkpointed(self, partition: int) -> None:  # noqa: B027 a default
        """See `Work.checkpointed`."""

    def online(self, partition: int) -> list[ViewRows]:
        """See `Work.online`: there are no rows for the online store."""
        return []

    @abstractmethod
    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`."""
