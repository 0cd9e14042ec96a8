"""What crosses the log: consumed records as columns, and outputs to be produced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Records:
    """A micro-batch as it was consumed from one topic.

    Parameters
    ----------
    topic : str
        Where the records came from.
    partitions, offsets : int64 ndarray of shape (n,)
        Position of each record; offsets ascend within a partition.
    timestamps_ms : int64 ndarray of shape (n,)
        Kafka's own record timestamps, milliseconds since the epoch.
    keys, values : sequence of bytes or None, each of length n
        The original bytes.
    """

    topic: str
    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.values)

    def next_offsets(self) -> dict[Place, int]:
        """Return, per partition present, the offset after its last record."""
        return {
            (self.topic, int(partition)): int(self.offsets[self.partitions == partition].max()) + 1
            for partition in np.unique(self.partitions)
        }

    def take(self, rows: Rows) -> Records:
        """Return the records at these positions, in that order."""
        positions = rows.tolist()
        return Records(
            self.topic,
            self.partitions[rows],
            self.offsets[rows],
            self.timestamps_ms[rows],
            [self.keys[i] for i in positions],
            [self.values[i] for i in positions],
        )

    def chunks(self, size: int) -> Iterator[Records]:
        """Yield the records in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self)), dtype=np.int64))


def empty_records(topic: str) -> Records:
    """Return a micro-batch of no records."""
    nothing = np.zeros(0, dtype=np.int64)
    return Records(topic, nothing, nothing, nothing, [], [])


def next_offsets(batches: Iterable[Records]) -> dict[Place, int]:
    """Return the offset after the last record of every partition present."""
    return {place: offset for records in batches for place, offset in records.next_offsets().items()}


@dataclass(frozen=True, slots=True)
class Output:
    """Records to produce to one topic, all in the micro-batch's transaction.

    ``partition`` is None when the key decides (murmur2, as in the Java client).
    """

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    partition: int | None = None
    timestamps_ms: Sequence[int] | None = None
