"""What a stage loop drives: state per partition, and what a micro-batch makes of it. The loop knows nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from millstream.ports import ViewRows
from millstream.runtime.flow import Flow
from millstream.runtime.log.protocol import AssignedReader
from millstream.runtime.log.records import Output, Records

Progress = Callable[[str], None]
"""Told in words, often enough for a watchdog."""


@dataclass(frozen=True, slots=True)
class Processed:
    """What a micro-batch became.

    Parameters
    ----------
    flows : tuple of Flow
        One per input, as it left the last step.
    outputs : list of Output
        For the micro-batch's transaction.
    view_rows : list of ViewRows
        For the online store, once the transaction is committed.
    seconds : dict of str to float
        Time spent by phase.
    """

    flows: tuple[Flow, ...]
    outputs: list[Output]
    view_rows: list[ViewRows] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery did.

    Parameters
    ----------
    next_offsets : mapping of str to int
        Where to go on from, by input topic.
    rows, replayed : int
        Rows of stored state, and records folded again.
    changed : bool
        The state is other than what is stored: the next checkpoint should hold it.
    """

    next_offsets: Mapping[str, int]
    rows: int
    replayed: int
    changed: bool


@dataclass(frozen=True, slots=True)
class StateSize:
    """How large the state of one partition is, and how far it has come.

    Parameters
    ----------
    stream_time_ms : int
        Newest event time, milliseconds since the epoch.
    keys, entries, memory_bytes : int
    """

    stream_time_ms: int
    keys: int
    entries: int
    memory_bytes: int


class Work(Protocol):
    """A stage as the loop sees it. Every call but `state_size` comes from the stage's one thread.

    Attributes
    ----------
    name : str
    inputs : tuple of str
        Topics; the first one's partitions are shared out, the others' follow.
    written_behind : bool
        State outside of Kafka follows each transaction: `written` is called before anything else is processed or
        checkpointed. Otherwise a checkpoint may share a micro-batch's transaction, and `written` may come after the
        next `process`.
    """

    name: str
    inputs: tuple[str, ...]
    written_behind: bool

    def open(
        self, log: AssignedReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
    ) -> Recovered:
        """Bring a partition's state to the committed offsets, silently.

        Raises
        ------
        Retry, Stop
            The state or the log cannot be read.
        """

    def drop(self, partition: int) -> None:
        """Forget a partition's state; it may not be here."""

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """Take a micro-batch, one `Records` per input that has any, into the state.

        Parameters
        ----------
        now_ms : int
            Wall clock (live) or virtual (replay): stamps outputs, and bounds event time where a stage has a bound;
            what it decided is stored, since recovery does not know it.
        """

    def written(self, processed: Processed, next_offsets: Mapping[str, Mapping[int, int]]) -> None:
        """Follow a committed transaction, where state is kept outside of Kafka; offsets by topic and partition."""

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """Return what makes the stored state valid for these offsets; [] where that is not Kafka's business."""

    def checkpointed(self, partition: int) -> None:
        """Tell that the last `checkpoint` of this partition is stored; nothing was processed in between."""

    def online(self, partition: int) -> list[ViewRows]:
        """Return all rows of a partition for the online store."""

    def state_size(self, partition: int) -> StateSize | None:
        """Return the size of a partition's state, None if it is not here."""


UNREADABLE: Final = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, zlib.error
)  # fmt: skip
"""Errors that reading stored state raises when a record is not what a stage wrote."""


class View(Protocol):
    """The write-behind side of the online store, as the loop sees it; none of it waits."""

    def refill_required(self, source: str) -> str | None:
        """Return an epoch name when the store lost its data and all rows of this source are wanted, else None."""

    def offer(self, rows: Sequence[ViewRows]) -> None:
        """Take rows to be written when possible."""

    def refilled(self, epoch: str, source: str) -> None:
        """Tell that this loop has offered every row it has."""
