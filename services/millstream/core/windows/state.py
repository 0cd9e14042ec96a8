"""State of a window store, as a few large arrays.

An entry is a row of the slab: time (ms), event id, then the bits of its values. A key's entries lie together, ordered
by time and, of equal times, of arrival, in a segment of 2**k rows: ``base + head`` to before ``base + head + length``.
Free segments of a size are chained through their first row. Each window's tail, counts and sums stand at the key's
newest entry; events out of order are answered by walking back from there in the scratch slot.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

OK, DUPLICATE, LATE = range(3)
TIME_LIMIT_MS = 2**52
NO_TIME_MS = -(2**54)

BASE, FEATURE_TIME_US = range(2)
HEAD, LENGTH, SIZE, FLAGS, PARTS, TAILS = range(6)
TOUCHED, DIRTY = 1, 2
SCRATCH = cast("int", np.int64(0))  # typed: numba compiles again for each literal
WATERMARK_MS, TOP, IDS, TOUCHES = range(4)
ALL = cast("int", np.int64(0))
LEADER_MS, LEADER, STREAM_MS = range(3)
CLOCK = 3


class State(NamedTuple):
    """Everything a store holds, but its keys.

    Parameters
    ----------
    wide : int64 ndarray of shape (slots, 2)
        ``BASE, FEATURE_TIME_US``.
    narrow : int32 ndarray of shape (slots, 5 + windows + cells)
        ``HEAD, LENGTH, SIZE`` (log2 of the segment's rows, -1 for none), ``FLAGS, PARTS``, then each window's tail
        (counted from ``BASE``) and each cell's count.
    sums : uint64 ndarray of shape (slots * cells * 4,)
        Exact sums of the cells.
    slab, reals : int64 and float64 ndarray of shape (rows, 2 + columns)
        Entries; the same memory twice.
    free : int64 ndarray of shape (64,)
        First free segment of each size, or -1.
    ids : int64 ndarray of shape (capacity, 2)
        `id_table` of event id to event time.
    counters : int64 ndarray of shape (4,)
        ``WATERMARK_MS`` (see `clock`), ``TOP`` (rows of the slab ever used), ``IDS`` (in the table), ``TOUCHES``.
    touched : int64 ndarray
        Slots changed by the last batch.
    clocks : int64 ndarray of shape (1 + upstream partitions, 3)
        ``LEADER_MS, LEADER, STREAM_MS`` (see `clock`), of all events in row ``ALL`` and of those of upstream partition
        p in row p + 1.
    """

    wide: NDArray[np.int64]
    narrow: NDArray[np.int32]
    sums: NDArray[np.uint64]
    slab: NDArray[np.int64]
    reals: NDArray[np.float64]
    free: NDArray[np.int64]
    ids: NDArray[np.int64]
    counters: NDArray[np.int64]
    touched: NDArray[np.int64]
    clocks: NDArray[np.int64]


class Results(NamedTuple):
    """Where features of n rows go.

    Parameters
    ----------
    reals : float64 ndarray of shape (n, f)
        NaN is null; of a whole number the nearest double.
    wholes : int64 ndarray of shape (n, f) or (n, 0)
        Whole numbers themselves, where a feature is declared one; without columns where ``reals`` holds them all.
    beyond : int64 ndarray of shape (f,)
        How many values of each feature are null because the declared type cannot hold them.
    """

    reals: NDArray[np.float64]
    wholes: NDArray[np.int64]
    beyond: NDArray[np.int64]

    def put(self, rows: NDArray[np.int64], found: Results) -> None:
        """Take over the results of some rows."""
        self.reals[rows] = found.reals
        self.wholes[rows] = found.wholes
        self.beyond[:] += found.beyond


def new_results(rows: int, features: int, wholes: bool) -> Results:
    """Return results that are null throughout."""
    return Results(
        np.full((rows, features), np.nan),
        np.zeros((rows, features if wholes else 0), dtype=np.int64),
        np.zeros(features, dtype=np.int64),
    )
