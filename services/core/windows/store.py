"""Exact event-time windows of one entity: every event's features as of its own time, current event included.

A window is (t - w, t]. State is, per key, the events in order of time with the values of the aggregated columns; events
of equal time are in order of arrival in the partition, which only ``first`` and ``last`` depend on. Nulls (NaN) are
skipped: ``count``, ``count_distinct`` and ``sum`` of nothing are 0 (SQL's sum would be null), every other function of
nothing is null; ``std`` and ``var`` are the sample's, null for one value; ``first`` and ``last`` are the first and the
last value that is not null (Spark's and SQL's ``IGNORE NULLS``).

An event is *late*, and changes nothing, when it is older than its key's newest by more than the lateness, or older
than the partition's newest by more than the lateness and the longest window together. The second rule is what lets
idle keys be dropped without a trace; it is the only way in which partitioning can show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.batch import Array, Rows
from services.core.declaration import View
from services.core.windows.entries import KeyedEntries
from services.core.windows.exact_sum import representable
from services.core.windows.kernel import fold
from services.core.windows.plan import compile_plan, fingerprint
from services.core.windows.state import DUPLICATE, FEATURE_TIME_US, LATE, OK, STREAM_TIME_MS, Results
from services.core.windows.upkeep import answer_slots, idle
from services.core.windows.values import Layout, Words

__all__ = ["DUPLICATE", "LATE", "OK", "Updated", "WindowStore", "representable"]


@dataclass(frozen=True, slots=True)
class Updated:
    """What a batch came to.

    Parameters
    ----------
    status : int8 ndarray of shape (n,)
        ``OK``, ``DUPLICATE`` or ``LATE``.
    results : Results
        Features as of each event's time; rows that are not ``OK`` are null throughout.
    feature_time_us : int64 ndarray of shape (n,)
        Microseconds since the epoch, strictly increasing per key; 0 in rows that are not ``OK``.
    """

    status: NDArray[np.int8]
    results: Results
    feature_time_us: NDArray[np.int64]

    @property
    def features(self) -> NDArray[np.float64]:
        """The results as doubles, NaN for null."""
        return self.results.reals


class WindowStore(KeyedEntries):
    """The windows of one entity in one input partition.

    Parameters
    ----------
    views : tuple of View
        All views of the entity; the largest lateness among them holds for all.

    Attributes
    ----------
    lateness_ms : int
        Largest of the views.
    horizon_ms : int
        How far back from its key's newest event anything is kept: longest window and lateness.

    Raises
    ------
    ValueError
        If the views do not belong together, or there is nothing to aggregate.
    """

    def __init__(self, views: tuple[View, ...]) -> None:
        plan = compile_plan(views)
        layout = Layout(views)
        self.fingerprint = fingerprint(views, layout.names)
        self.older_fingerprint = fingerprint(views, layout.columns)
        self.lateness_ms = plan.lateness_ms
        self.horizon_ms = plan.longest_ms + plan.lateness_ms
        super().__init__(views, plan, layout, behind=0, wide=2)

    @property
    def stream_time_ms(self) -> int:
        """Newest event time of the partition, milliseconds since the epoch; far below any time when there is none."""
        return int(self._state.counters[STREAM_TIME_MS])

    def update(self, keys: Array, times_ms: Rows, ids: Rows, values: Words) -> Updated:
        """Fold events in, in order, and return each one's features as of its own time.

        Parameters
        ----------
        keys : ndarray of shape (n,), int64 or object of str
            Entity keys.
        times_ms : int64 ndarray of shape (n,)
            Event times, milliseconds since the epoch. Beyond 2**52 in size counts as late.
        ids : int64 ndarray of shape (n,)
            Event ids; one that stands among the entries kept, of whatever key, makes a duplicate.
        values : int64 ndarray of shape (n, layout.width)
            As `Layout.words` returns them; float64, NaN for null, where every column is kept as doubles.

        Raises
        ------
        ValueError
            If a value is not `representable`, or the shapes do not fit; nothing has changed.
        """
        n = len(times_ms)
        words = self.layout.of_reals(values)
        width = self.layout.width
        # kernels do not check bounds: a column too wide would be written over the next entry
        if (keys.shape, times_ms.shape, ids.shape, words.shape) != ((n,), (n,), (n,), (n, width)):
            shapes = keys.shape, times_ms.shape, ids.shape, words.shape
            raise ValueError(f"expected {n} keys, times, ids and rows of {width} words, got {shapes}")
        if not self.layout.summable(words):
            raise ValueError("values of 2**90 and more in size cannot be summed exactly; reject them before")
        status = np.zeros(n, dtype=np.int8)
        results = self.new_results(n)
        feature_time_us = np.zeros(n, dtype=np.int64)
        self._untouch()
        slots, fresh = self._keys.resolve(keys)
        self._make_room(n)
        times_ms, ids = np.ascontiguousarray(times_ms), np.ascontiguousarray(ids)
        row = 0
        while True:
            row = fold(self._state, self._plan, slots, times_ms, ids, words, status, results, feature_time_us, row)
            if row == n:
                break
            self._grow_slab(len(self._state.slab) + 1)
        self._release_unused(fresh)
        return Updated(status, results, feature_time_us)

    def online(self, slots: Rows) -> tuple[Array, Results, NDArray[np.int64]]:
        """Return keys, features as of each key's newest event, and feature times (us) of slots in use."""
        results = self.new_results(len(slots))
        answer_slots(self._state, self._plan, slots, results)
        return self._keys.keys_of(slots), results, self._state.wide[slots, FEATURE_TIME_US]

    def expire(self) -> int:
        """Drop keys that no later result can depend on; return how many."""
        self._untouch()
        slots = idle(self._state, self._plan, self.all_slots())
        self._drop(slots)
        return len(slots)

    def load_rows(self, rows: list[tuple[bytes, bytes]], stream_time_ms: int) -> None:
        """Restore an empty store from changelog rows in any order; of one row key the last row counts.

        Raises
        ------
        ValueError
            If rows are damaged or do not fit; then the changelog cannot be used and state must be rebuilt by replay.
        """
        self._state.counters[STREAM_TIME_MS] = stream_time_ms
        self._restore(rows)
