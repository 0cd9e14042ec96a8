"""Exact event-time windows of one entity: each event's features as of its own time, current event included.

A window is (t - w, t]. State is, per key, the events in order of time with the values of the aggregated columns; events
of equal time are in order of arrival in the partition, which only ``first`` and ``last`` depend on. Nulls (NaN) are
skipped: ``count``, ``count_distinct`` and ``sum`` of nothing are 0 (SQL's sum would be null), every other function of
nothing is null; ``std`` and ``var`` are the sample's, null for one value; ``first`` and ``last`` are the first and the
last value that is not null (Spark's and SQL's ``IGNORE NULLS``).

At the first stage an event is *late*, and changes nothing, when it is older than its key's newest by more than the
lateness, or older than the partition's stream time (see `clock`: no single key decides it) by more than the lateness
and the longest window together. The second rule is what lets idle keys be dropped without a trace; it is the only way
in which partitioning can show. At a later stage no event is late: the first stage has accepted it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Rows
from millstream.core.declaration import View
from millstream.core.windows.entries import KeyedEntries
from millstream.core.windows.exact_sum import representable
from millstream.core.windows.kernel import fold
from millstream.core.windows.plan import compile_plan, fingerprint
from millstream.core.windows.state import (
    ALL,
    BASE,
    DIRTY,
    DUPLICATE,
    FEATURE_TIME_US,
    FLAGS,
    HEAD,
    LATE,
    LEADER_MS,
    LENGTH,
    NO_TIME_MS,
    OK,
    STREAM_MS,
    WATERMARK_MS,
    Results,
)
from millstream.core.windows.upkeep import answer_slots, idle, restore_clocks
from millstream.core.windows.values import Layout, Words
from millstream.core.windows.watermark import new_clocks

__all__ = ["DUPLICATE", "LATE", "OK", "Sources", "UpdateResult", "Upstream", "WindowStore", "representable"]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What a batch came to.

    Parameters
    ----------
    status : int8 ndarray of shape (n,)
        ``OK``, ``DUPLICATE`` or ``LATE``.
    results : Results
        Features as of each event's time; rows that are not ``OK`` are null throughout.
    feature_time_us : int64 ndarray of shape (n,)
        Microseconds since the epoch, strictly increasing per key; 0 in rows that are not ``OK``.
    oldest_ms : int64 ndarray of shape (n,)
        The time that no later event of the same key lies before, as far as is known; 0 in rows that are not ``OK``.
    """

    status: NDArray[np.int8]
    results: Results
    feature_time_us: NDArray[np.int64]
    oldest_ms: NDArray[np.int64]

    @property
    def features(self) -> NDArray[np.float64]:
        """The results as doubles, NaN for null."""
        return self.results.reals


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the events of a later stage come from.

    Parameters
    ----------
    horizon_ms : int
        Lateness and longest window of the first stage: how far behind its partition's stream time an event may be.
    partitions : int
        Partitions of the event topic, if each one's events arrive here in the order in which the first stage wrote
        them; 0 where they do not, or the number is not known.
    lag_ms : int
        How far behind the others, in event time, a partition is waited for.
    """

    horizon_ms: int
    partitions: int
    lag_ms: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the events of a batch come from; used by a later stage only.

    Parameters
    ----------
    partitions : int64 ndarray of shape (n,)
        Partition of the event topic.
    keys : int64 ndarray of shape (n,)
        Key of the event topic, as `id_hashes` has it.
    """

    partitions: Rows
    keys: Rows


_NOWHERE = Sources(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


class WindowStore(KeyedEntries):
    """The windows of one entity in one input partition.

    Parameters
    ----------
    views : tuple of View
        All views of the entity; the largest lateness among them holds for all.
    upstream : Upstream, optional
        Of a later stage; None at the first.

    Attributes
    ----------
    lateness_ms : int
        Largest of the views.
    horizon_ms : int
        Longest window and lateness.

    Raises
    ------
    ValueError
        If the views do not belong together, or there is nothing to aggregate.
    """

    def __init__(self, views: tuple[View, ...], upstream: Upstream | None = None) -> None:
        plan = compile_plan(views)
        layout = Layout(views)
        self.fingerprint = fingerprint(views, layout.names)
        self.older_fingerprint = fingerprint(views, layout.columns)
        self.lateness_ms = plan.lateness_ms
        self.horizon_ms = plan.longest_ms + plan.lateness_ms
        if upstream is not None:
            plan = plan._replace(later=True, horizon_ms=upstream.horizon_ms, lag_ms=upstream.lag_ms)
        super().__init__(views, plan, layout, behind=0, wide=2)
        if upstream is not None:
            self._state = self._state._replace(clocks=new_clocks(upstream.partitions))

    @property
    def stream_time_ms(self) -> int:
        """Newest event time that two keys have reached, or the only key's; far below any without events."""
        stream_ms, leader_ms = (int(self._state.clocks[ALL, each]) for each in (STREAM_MS, LEADER_MS))
        return stream_ms if stream_ms != NO_TIME_MS else leader_ms

    @property
    def watermark_ms(self) -> int:
        """Time that no event accepted from now on lies before, as far as is known; see `clock`."""
        return int(self._state.counters[WATERMARK_MS])

    def update(
        self, keys: Array, times_ms: Rows, ids: Rows, values: Words, sources: Sources = _NOWHERE
    ) -> UpdateResult:
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
        sources : Sources
            Of the events; a later stage needs them.

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
        if self._plan.later and (len(sources.partitions), len(sources.keys)) != (n, n):
            raise ValueError(f"expected the source partitions and keys of {n} events, got {len(sources.keys)}")
        if not self.layout.summable(words):
            raise ValueError("values of 2**90 and more in size cannot be summed exactly; reject them before")
        status = np.zeros(n, dtype=np.int8)
        results = self.new_results(n)
        feature_time_us, oldest_ms = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._untouch()
        slots, fresh = self._keys.resolve(keys)
        self._make_room(n)
        times_ms, ids = np.ascontiguousarray(times_ms), np.ascontiguousarray(ids)
        upstream, whose = np.ascontiguousarray(sources.partitions), np.ascontiguousarray(sources.keys)
        row = 0
        while True:
            row = fold(
                self._state, self._plan, slots, times_ms, ids, words, upstream, whose,
                status, results, feature_time_us, oldest_ms, row,
            )  # fmt: skip
            if row == n:
                break
            self._grow_slab(len(self._state.slab) + 1)
        self._release_unused(fresh)
        return UpdateResult(status, results, feature_time_us, oldest_ms)

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

    def clocks(self) -> list[list[int]]:
        """Return what a later stage must store beside its rows; [] at a first one, whose rows say it."""
        found: list[list[int]] = self._state.clocks.tolist() if self._plan.later else []
        return found

    def forget_after(self, time_ms: int) -> Array:
        """Take out the events after a time, and what was concluded from them; return the keys that had some.

        The other events of those keys stay, as far as they are retained; so do the keys' event ids and windows.
        """
        self._untouch()
        state, slots = self._state, self.all_slots()
        slots = slots[state.slab[self._lasts(slots), 0] > time_ms]
        keys, stamp_us = self._keys.keys_of(slots), time_ms * 1000
        firsts, lasts = state.wide[slots, BASE] + state.narrow[slots, HEAD], self._lasts(slots)
        ranges = zip(firsts.tolist(), lasts.tolist(), strict=True)
        kept = [part[part[:, 0] <= time_ms] for part in (state.slab[a : b + 1].copy() for a, b in ranges)]
        stamps_us = np.minimum(state.wide[slots, FEATURE_TIME_US], stamp_us)
        self._drop(slots)
        lengths = np.array([len(part) for part in kept], dtype=np.int64)
        some = np.flatnonzero(lengths)
        if len(some):
            again, _ = self._keys.resolve(keys[some])
            entries = np.concatenate([kept[row] for row in some.tolist()])
            self._fill(again, lengths[some], stamps_us[some], np.zeros(len(some), dtype=np.int64), entries)
            self._state.narrow[again, FLAGS] |= DIRTY
        if not self._plan.later or (self._state.clocks[:, [LEADER_MS, STREAM_MS]] > time_ms).any():
            self._state.clocks[:] = new_clocks(len(self._state.clocks) - 1)
            restore_clocks(self._state, self._plan, self.all_slots())
        return keys

    def _lasts(self, slots: Rows) -> Rows:
        state = self._state
        return np.asarray(state.wide[slots, BASE] + state.narrow[slots, HEAD] + state.narrow[slots, LENGTH] - 1)

    def load_rows(self, rows: list[tuple[bytes, bytes]], clocks: Sequence[Sequence[int]] = ()) -> None:
        """Restore an empty store from changelog rows in any order; of one row key the last row counts.

        Parameters
        ----------
        clocks : sequence
            What `clocks` returned. Without them, as from an earlier version, retention waits until they are known.

        Raises
        ------
        ValueError
            If rows are damaged or do not fit; then the changelog cannot be used and state must be rebuilt by replay.
        """
        self._restore(rows)
        if self._plan.later and len(clocks) == len(self._state.clocks):
            self._state.clocks[:] = clocks
        restore_clocks(self._state, self._plan, self.all_slots())
