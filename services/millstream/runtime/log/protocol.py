"""The log a stage reads and writes, as a protocol: Kafka in earnest, memory for replay and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from millstream.runtime.log.records import Output, Place, Records


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a stage does when work comes and goes; the log calls these between two micro-batches.

    Parameters
    ----------
    assigned : callable (partition, committed offsets or None by topic) -> offsets by topic
        Recover the partition's state; return the offsets to go on from.
    revoked : callable (partitions)
        Checkpoint and forget them; transactions may still be made inside.
    lost : callable (partitions)
        Forget them; somebody else may own them already, so nothing may be written.
    """

    assigned: Callable[[int, Mapping[str, int | None]], Mapping[str, int]]
    revoked: Callable[[Sequence[int]], None]
    lost: Callable[[Sequence[int]], None]


class LogReader(Protocol):
    """What can be read of a log outside any group."""

    def read(self, topic: str, partition: int, start: int, end: int | None) -> Iterator[Records]:
        """Yield committed records with start <= offset < end (None: up to the end as of now)."""

    def beginning(self, topic: str, partition: int) -> int:
        """Return the first offset still retained."""

    def end(self, topic: str, partition: int) -> int:
        """Return the offset that comes after the last one as of now."""


def read_back(log: LogReader, topic: str, partition: int, offset: int, count: int) -> Iterator[Records]:
    """Yield the records, at most so many, that come before an offset."""
    yield from log.read(topic, partition, max(log.beginning(topic, partition), offset - count), offset)


class AssignedReader(LogReader, Protocol):
    """A reader that is also a member of a stage's group.

    Attributes
    ----------
    atomic : bool
        See `StageLog`: False where topics may hold records repeatedly.
    """

    atomic: bool

    def lag(self) -> dict[Place, int]:
        """Return, per assigned partition of each topic, how many records are yet to be read."""


class StageLog(AssignedReader, Protocol):
    """One worker's membership in one stage: read micro-batches, write transactions.

    Attributes
    ----------
    member : bool
        Whether the group has given out its partitions, of which this member may have got none.
    atomic : bool
        Whether `commit` writes all or nothing; otherwise outputs may be there without their offsets.
    """

    member: bool
    atomic: bool

    def subscribe(self, topics: Sequence[str], assignment: Assignment) -> None:
        """Join the group that shares the first of ``topics``; partitions arrive during later polls.

        The others have as many partitions and are read along: who has partition p of the first has p of all.
        """

    def rewind(self) -> None:
        """Recover the assigned partitions again, as a member; the caller has dropped their state.

        The group does not rebalance, so that the transactions of its other members are not aborted as well.

        Raises
        ------
        Retry, Stop
            Some partitions have no state now: `rejoin`, or leave.
        """

    def rejoin(self) -> None:
        """Leave the group and join it again, as a restart would; the caller has dropped its state."""

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """Return what is there, at most ``max_records``, waiting at most ``timeout_s`` for a first record.

        Behind a backlog, partitions are read abreast; see `millstream.runtime.alignment`.

        One `Records` per topic that has any, in the order of subscription.

        Raises
        ------
        Retry
            The log cannot be reached for now.
        Stop
            It never will be, as configured.
        """

    def send(self, outputs: Sequence[Output]) -> None:
        """Begin a transaction with these outputs; `commit` writes it. Nothing is waited for.

        Raises
        ------
        Aborted, Stop
            An output cannot be written; see `commit`.
        """

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """Write what was sent and commit the offsets, all or nothing (or at least once, if so configured).

        From any thread, and while another one polls.

        Raises
        ------
        Aborted
            Nothing was written (at least once: perhaps outputs, but no offsets). State in memory is ahead of the log:
            drop it, then `rewind`. `Rebalanced` where the group has a newer generation.
        Fenced
            Another worker writes under this one's name; nothing was written.
        Stop
            Nothing was written, and trying again would end in the same way.
        """

    def close(self) -> None:
        """Leave the group at once, handing partitions back through ``revoked``."""
