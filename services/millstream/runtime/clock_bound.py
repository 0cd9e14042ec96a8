"""The wall clock's bound of event time, for brokers that do not compare record timestamps with a clock of their own.

What was refused depends on when it arrived, which no record holds. So the offset of each refused record is written to
the stage's changelog, in the transaction of its dead letter, and recovery passes over exactly those: whatever the clock
shows by then, the decision is made once.

A row holds `BLOCK` offsets, one bit each. Its key is `REFUSED_PREFIX` and the number of the block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from millstream.core.batch import Mask, Rejection, Rows
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records

AHEAD: Final = "ahead-of-clock"
REFUSED_PREFIX: Final = b"w"
BLOCK: Final = 32_768


class RefusedOffsets:
    """Offsets of one input partition whose records were refused."""

    def __init__(self) -> None:
        self._blocks: dict[int, Mask] = {}

    def __len__(self) -> int:
        return sum(int(block.sum()) for block in self._blocks.values())

    def offsets(self) -> list[int]:
        """Return the offsets, ascending."""
        return [at * BLOCK + row for at in sorted(self._blocks) for row in np.flatnonzero(self._blocks[at]).tolist()]

    def load(self, key: bytes, value: bytes) -> None:
        """Take over a row; ``key`` without the prefix."""
        bits = np.frombuffer(value, dtype=np.uint8)
        self._blocks[int(key)] = np.unpackbits(bits, count=BLOCK).astype(np.bool_)

    def add(self, offsets: Rows) -> list[tuple[bytes, bytes]]:
        """Add offsets, and return the rows that hold them."""
        numbers = np.unique(offsets // BLOCK).tolist()
        for number in numbers:
            block = self._blocks.setdefault(number, np.zeros(BLOCK, dtype=np.bool_))
            block[offsets[offsets // BLOCK == number] % BLOCK] = True
        return [(b"%s%d" % (REFUSED_PREFIX, each), np.packbits(self._blocks[each]).tobytes()) for each in numbers]

    def contains(self, offsets: Rows) -> Mask:
        """Return which of these offsets were refused."""
        found = np.zeros(len(offsets), dtype=np.bool_)
        if self._blocks and len(offsets):
            numbers = offsets // BLOCK
            for number in np.unique(numbers).tolist():
                if (block := self._blocks.get(number)) is not None:
                    mine = numbers == number
                    found[mine] = block[offsets[mine] % BLOCK]
        return found

    def without(self, records: Records) -> Records:
        """Return the records that were not refused; all are of this partition."""
        refused = self.contains(records.offsets)
        return records.take(np.flatnonzero(~refused)) if refused.any() else records

    def drop_before(self, offset: int) -> list[bytes]:
        """Drop the blocks that end at or before an offset, and return the keys of their rows."""
        gone = [number for number in self._blocks if (number + 1) * BLOCK <= offset]
        for number in gone:
            del self._blocks[number]
        return [b"%s%d" % (REFUSED_PREFIX, number) for number in gone]


class ClockBound:
    """Reject events that are further ahead of the wall clock than a bound.

    Parameters
    ----------
    time_column : str
        Event time, milliseconds since the epoch.
    ahead_ms : int
        How far ahead an event may be, milliseconds.
    """

    def __init__(self, time_column: str, ahead_ms: int) -> None:
        self._time_column = time_column
        self._ahead_ms = ahead_ms

    def __call__(self, flow: Flow, now_ms: int, refused: dict[int, RefusedOffsets]) -> Flow:
        """Return the flow without them, and without what was refused before by ``refused``, by partition."""
        times_ms = flow.batch.columns[self._time_column]
        ahead = times_ms > now_ms + self._ahead_ms
        if any(map(len, refused.values())):
            # At least once: a record may come again after its refusal was written, when the clock shows more.
            partitions, offsets = flow.partitions, flow.records.offsets[flow.rows]
            for partition, known in refused.items():
                mine = partitions == partition
                ahead[mine] |= known.contains(offsets[mine])
        if not ahead.any():
            return flow
        rejections = [
            Rejection(
                row,
                AHEAD,
                self._time_column,
                f"event time {times_ms[row]} ms is ahead of the worker's clock ({now_ms} ms) by more than "
                f"{self._ahead_ms} ms; correct the producer's clock, or raise MILLSTREAM_EVENT_AHEAD_MAX_MS",
            )
            for row in np.flatnonzero(ahead).tolist()
        ]
        return flow.keep(~ahead, rejections)


def refused_rows(
    rejections: Iterable[Rejection], records: Records, refused: dict[int, RefusedOffsets]
) -> list[tuple[int, list[tuple[bytes, bytes]]]]:
    """Add what was rejected as ahead of the clock to ``refused``; return the changelog rows by partition."""
    rows = np.array([each.row for each in rejections if each.reason == AHEAD], dtype=np.int64)
    found = []
    for partition in np.unique(records.partitions[rows]).tolist():
        mine = rows[records.partitions[rows] == partition]
        known = refused.setdefault(partition, RefusedOffsets())
        known.drop_before(int(records.offsets[mine].min()))  # offsets ascend: an earlier block does not change again
        found.append((partition, known.add(records.offsets[mine])))
    return found
