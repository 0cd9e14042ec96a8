"""Exact event-time windows of one entity: every event's features as of its own time, current event included.

A window is (t - w, t]. State is, per key, an ordered set of (time, id) with the values of the aggregated columns, so
the order of arrival shows nowhere but in what had been seen when an event was answered. Nulls (NaN) are skipped:
``count``, ``count_distinct`` and ``sum`` of nothing are 0 (SQL's sum would be null), every other function of nothing is
null; ``std`` and ``var`` are the sample's, null for one value; ``first`` and ``last`` go by (time, id).

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
from services.core.windows.exact_sum import WORDS, representable
from services.core.windows.id_table import new_table, roomy
from services.core.windows.kernel import fold, size_for
from services.core.windows.key_index import IntegerKeys, KeyIndex, TextKeys, extended
from services.core.windows.plan import compile_plan, fingerprint, input_columns
from services.core.windows.rows import decode_keys, encode_key, entries_per_part, row_key
from services.core.windows.state import (
    BASE,
    DIRTY,
    DUPLICATE,
    FEATURE_TIME_US,
    FLAGS,
    HEAD,
    IDS,
    LATE,
    LENGTH,
    NO_TIME_MS,
    OK,
    PARTS,
    SIZE,
    STREAM_TIME_MS,
    TAILS,
    TOUCHED,
    TOUCHES,
    State,
)
from services.core.windows.upkeep import answer_slots, drop, idle, restore, untouch

__all__ = ["DUPLICATE", "LATE", "OK", "Updated", "WindowStore", "representable"]


@dataclass(frozen=True, slots=True)
class Updated:
    """What a batch came to.

    Parameters
    ----------
    status : int8 ndarray of shape (n,)
        ``OK``, ``DUPLICATE`` or ``LATE``.
    features : float64 ndarray of shape (n, f)
        As of each event's time; NaN is null, and rows that are not ``OK`` are all NaN.
    feature_time_us : int64 ndarray of shape (n,)
        Microseconds since the epoch, strictly increasing per key; 0 in rows that are not ``OK``.
    """

    status: NDArray[np.int8]
    features: NDArray[np.float64]
    feature_time_us: NDArray[np.int64]


class WindowStore:
    """The windows of one entity in one input partition.

    Parameters
    ----------
    views : tuple of View
        All views of the entity; the largest lateness among them holds for all.

    Attributes
    ----------
    columns : tuple of str
        Columns of `update`'s values.
    features : tuple of str
        ``{view}__{feature}`` names, columns of the features returned.
    fingerprint : str
        Stored rows can be loaded by a store of the same fingerprint only.
    horizon_ms : int
        How far back from its key's newest event anything is kept: longest window and lateness.

    Raises
    ------
    ValueError
        If the views do not belong together, or there is nothing to aggregate.
    """

    def __init__(self, views: tuple[View, ...]) -> None:
        self._plan = compile_plan(views)
        self.columns = input_columns(views)
        self.features = tuple(name for view in views for name in view.columns)
        self.fingerprint = fingerprint(views)
        self.horizon_ms = self._plan.longest_ms + self._plan.lateness_ms
        self._keys: KeyIndex = IntegerKeys() if views[0].key_type == "int64" else TextKeys()
        self._gone: list[bytes] = []
        slab = np.zeros((64, 2 + len(self.columns)), dtype=np.int64)
        self._state = State(
            wide=np.zeros((0, 2), dtype=np.int64),
            narrow=np.zeros((0, TAILS + len(self._plan.windows_ms) + len(self._plan.cells)), dtype=np.int32),
            sums=np.zeros(0, dtype=np.uint64),
            slab=slab,
            reals=slab.view(np.float64),
            free=np.full(64, -1, dtype=np.int64),
            ids=new_table(64),
            counters=np.array([NO_TIME_MS, 0, 0, 0], dtype=np.int64),
            touched=np.zeros(0, dtype=np.int64),
        )

    @property
    def stream_time_ms(self) -> int:
        """Newest event time of the partition, milliseconds since the epoch; far below any time when there is none."""
        return int(self._state.counters[STREAM_TIME_MS])

    @property
    def entries(self) -> int:
        """Number of entries kept."""
        return int(self._state.narrow[:, LENGTH].sum(dtype=np.int64))

    @property
    def memory_bytes(self) -> int:
        """Memory held by the arrays, bytes."""
        state = self._state
        arrays = (state.wide, state.narrow, state.sums, state.slab, state.ids, state.touched)
        return self._keys.memory_bytes + sum(array.nbytes for array in arrays)

    def update(self, keys: Array, times_ms: Rows, ids: Rows, values: NDArray[np.float64]) -> Updated:
        """Fold events in, in order, and return each one's features as of its own time.

        Parameters
        ----------
        keys : ndarray of shape (n,), int64 or object of str
            Entity keys.
        times_ms : int64 ndarray of shape (n,)
            Event times, milliseconds since the epoch. Beyond 2**52 in size counts as late.
        ids : int64 ndarray of shape (n,)
            Event ids; one that stands among the entries kept, of whatever key, makes a duplicate.
        values : float64 ndarray of shape (n, len(columns))
            NaN is null.

        Raises
        ------
        ValueError
            If a value is not `representable`, or the shapes do not fit; nothing has changed.
        """
        n = len(times_ms)
        values = np.ascontiguousarray(values, dtype=np.float64)
        # kernels do not check bounds: a column too wide would be written over the next entry
        if (keys.shape, times_ms.shape, ids.shape, values.shape) != ((n,), (n,), (n,), (n, len(self.columns))):
            shapes = keys.shape, times_ms.shape, ids.shape, values.shape
            raise ValueError(f"expected {n} keys, times, ids and rows of {len(self.columns)} values, got {shapes}")
        if not representable(values).all():
            raise ValueError("values of 2**90 and more in size cannot be summed exactly; reject them before")
        status = np.zeros(n, dtype=np.int8)
        features = np.full((n, len(self.features)), np.nan)
        feature_time_us = np.zeros(n, dtype=np.int64)
        untouch(self._state, TOUCHED)
        slots, fresh = self._keys.resolve(keys)
        self._make_room(n)
        times_ms, ids, bits = np.ascontiguousarray(times_ms), np.ascontiguousarray(ids), values.view(np.int64)
        row = 0
        while True:
            row = fold(self._state, self._plan, slots, times_ms, ids, bits, status, features, feature_time_us, row)
            if row == n:
                break
            self._grow_slab(len(self._state.slab) + 1)
        if len(fresh):
            self._keys.release(fresh[self._state.narrow[fresh, LENGTH] == 0])
        return Updated(status, features, feature_time_us)

    def touched(self) -> Rows:
        """Return the distinct slots that the last `update` changed; good until the next `update` or `expire`."""
        return self._state.touched[: self._state.counters[TOUCHES]].copy()

    def all_slots(self) -> Rows:
        """Return every slot in use."""
        return np.flatnonzero(self._state.narrow[:, LENGTH])

    def online(self, slots: Rows) -> tuple[Array, NDArray[np.float64], NDArray[np.int64]]:
        """Return keys, features as of each key's newest event, and feature times (us) of slots in use."""
        features = np.empty((len(slots), len(self.features)))
        answer_slots(self._state, self._plan, slots, features)
        return self._keys.keys_of(slots), features, self._state.wide[slots, FEATURE_TIME_US]

    def expire(self) -> int:
        """Drop keys that no later result can depend on; return how many."""
        untouch(self._state, TOUCHED)
        slots = idle(self._state, self._plan, self.all_slots())
        for text, parts in zip(self._texts(slots), self._state.narrow[slots, PARTS].tolist(), strict=True):
            self._gone += [row_key(text, part) for part in range(parts)]
        drop(self._state, self._plan, slots)
        self._keys.release(slots)
        return len(slots)

    def dirty_rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return changelog rows that bring what was stored at the last `mark_clean` up to date; None deletes a row.

        Rows are to be written in this order: a row that is deleted may be written again after.
        """
        state = self._state
        slots = self._dirty()
        rows: list[tuple[bytes, bytes | None]] = [(key, None) for key in self._gone]
        firsts = state.wide[slots, BASE] + state.narrow[slots, HEAD]
        columns = (firsts, state.narrow[slots, LENGTH], state.narrow[slots, PARTS], state.wide[slots, FEATURE_TIME_US])
        for text, first, length, parts, stamp in zip(
            self._texts(slots), *(column.tolist() for column in columns), strict=True
        ):
            rows += encode_key(text, stamp, state.slab[first : first + length])
            rows += [(row_key(text, part), None) for part in range(self._parts(length), parts)]
        return rows

    def mark_clean(self) -> None:
        """Note that what `dirty_rows` returned is stored; there must have been no `update` or `expire` in between."""
        slots = self._dirty()
        narrow = self._state.narrow
        narrow[slots, PARTS] = -(-narrow[slots, LENGTH] // entries_per_part(len(self.columns)))
        narrow[slots, FLAGS] &= ~DIRTY
        self._gone.clear()

    def load_rows(self, rows: list[tuple[bytes, bytes]], stream_time_ms: int) -> None:
        """Restore an empty store from changelog rows in any order; of one row key the last row counts.

        Raises
        ------
        ValueError
            If rows are damaged or do not fit; then the changelog cannot be used and state must be rebuilt by replay.
        """
        stored = decode_keys(rows, len(self.columns))
        self._state.counters[STREAM_TIME_MS] = stream_time_ms
        if not stored:
            return
        slots, _ = self._keys.resolve(self._keys.parse([key.text for key in stored]))
        lengths = np.array([key.lengths for key in stored], dtype=np.int64)
        self._make_room(int(lengths.sum()))
        self._grow_slab(sum(1 << size_for(length) for length in lengths.tolist()))
        bad = restore(
            self._state,
            self._plan,
            slots,
            lengths,
            np.array([key.feature_time_us for key in stored], dtype=np.int64),
            np.array([key.parts for key in stored], dtype=np.int64),
            np.frombuffer(b"".join(body for key in stored for body in key.bodies), dtype=np.int64).reshape(
                -1, 2 + len(self.columns)
            ),
        )
        if bad >= 0:
            raise ValueError(f"state of key {stored[bad].text!r} is damaged: its entries are out of order")

    def _texts(self, slots: Rows) -> list[str]:
        return [str(key) for key in self._keys.keys_of(slots).tolist()]

    def _parts(self, length: int) -> int:
        return -(-length // entries_per_part(len(self.columns)))

    def _dirty(self) -> Rows:
        return np.flatnonzero(self._state.narrow[:, FLAGS] & DIRTY)

    def _make_room(self, more_ids: int) -> None:
        """See that there is a place for every slot given out, and for so many more ids."""
        state, top = self._state, self._keys.top
        before = len(state.narrow)
        narrow = extended(state.narrow, top)
        narrow[before:, SIZE] = -1
        self._state = state._replace(
            narrow=narrow,
            wide=extended(state.wide, top),
            sums=extended(state.sums, len(narrow) * len(self._plan.cells) * WORDS),
            ids=roomy(state.ids, int(state.counters[IDS]), more_ids),
            touched=extended(state.touched, min(more_ids, top)),
        )

    def _grow_slab(self, rows: int) -> None:
        slab = extended(self._state.slab, rows)
        self._state = self._state._replace(slab=slab, reals=slab.view(np.float64))
