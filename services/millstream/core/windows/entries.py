"""Base of the keyed stores: an index of keys, segments of a slab of entries, and changelog rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Rows
from millstream.core.declaration import View
from millstream.core.windows.exact_sum import WORDS
from millstream.core.windows.id_table import new_table, roomy
from millstream.core.windows.kernel import size_for
from millstream.core.windows.key_index import IntegerKeys, KeyIndex, TextKeys, extended
from millstream.core.windows.plan import Plan, exact_wholes
from millstream.core.windows.rows import StoredKey, decode_keys, encode_key, entries_per_part, row_key
from millstream.core.windows.state import (
    BASE,
    DIRTY,
    FEATURE_TIME_US,
    FLAGS,
    HEAD,
    IDS,
    LENGTH,
    NO_TIME_MS,
    PARTS,
    SIZE,
    TAILS,
    TOP,
    TOUCHED,
    TOUCHES,
    Results,
    State,
    new_results,
)
from millstream.core.windows.upgrade import upgraded
from millstream.core.windows.upkeep import drop, restore, untouch
from millstream.core.windows.values import Layout
from millstream.core.windows.watermark import new_clocks


class KeyedEntries:
    """Entries per key in order of time and arrival, with running cells; what `WindowStore` and `LabelStore` share.

    Parameters
    ----------
    views : tuple of View
        Of one entity.
    plan : Plan
        What they ask of the windows.
    layout : Layout
        Of an entry's values.
    behind : int
        Words of an entry behind its values.
    wide : int
        Columns of `State.wide`.

    Attributes
    ----------
    features : tuple of str
        ``{view}__{feature}`` names, columns of the features returned.
    fingerprint : str
        Stored rows can be loaded by a store of the same fingerprint only.
    older_fingerprint : str
        Of the version that kept whole numbers as doubles; see `readable`.
    """

    fingerprint: str
    older_fingerprint: str

    def __init__(self, views: tuple[View, ...], plan: Plan, layout: Layout, behind: int, wide: int) -> None:
        values = layout.width + behind
        self.layout = layout
        self._behind = behind
        self.features = tuple(name for view in views for name in view.columns)
        self._plan = plan
        self._values = values
        self._exact_wholes = exact_wholes(views)
        self._keys: KeyIndex = IntegerKeys() if views[0].key_type == "int64" else TextKeys()
        self._gone: list[bytes] = []
        slab = np.zeros((64, 2 + values), dtype=np.int64)
        self._state = State(
            wide=np.zeros((1, wide), dtype=np.int64),
            narrow=np.zeros((1, TAILS + len(plan.windows_ms) + len(plan.cells)), dtype=np.int32),
            sums=np.zeros(len(plan.cells) * WORDS, dtype=np.uint64),
            slab=slab,
            reals=slab.view(np.float64),
            free=np.full(64, -1, dtype=np.int64),
            ids=new_table(64),
            counters=np.array([NO_TIME_MS, 0, 0, 0], dtype=np.int64),
            touched=np.zeros(0, dtype=np.int64),
            clocks=new_clocks(0),
        )

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

    def new_results(self, rows: int) -> Results:
        """Return results for so many rows, null throughout."""
        return new_results(rows, len(self.features), self._exact_wholes)

    def touched(self) -> Rows:
        """Return the distinct slots that the last fold changed; good until the next fold or `expire`."""
        return self._state.touched[: self._state.counters[TOUCHES]].copy()

    def all_slots(self) -> Rows:
        """Return every slot in use."""
        return np.flatnonzero(self._state.narrow[:, LENGTH])

    def keys_of(self, slots: Rows) -> Array:
        """Return the keys of slots in use."""
        return self._keys.keys_of(slots)

    def newest(self, keys: Array) -> tuple[Rows, Rows]:
        """Return the time of each key's newest entry (ms) and its feature time (us); far below any where none is."""
        state, slots = self._state, self._keys.find(keys)
        lengths = state.narrow[slots, LENGTH]
        there = lengths > 0
        last = np.where(there, state.wide[slots, BASE] + state.narrow[slots, HEAD] + lengths - 1, 0)
        times_ms = np.where(there, state.slab[last, 0], NO_TIME_MS)
        return times_ms, np.where(there, state.wide[slots, FEATURE_TIME_US], NO_TIME_MS)

    def dirty_rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return changelog rows that bring what was stored at the last `mark_clean` up to date; None deletes a row.

        Rows are to be written in this order: a row that is deleted may be written again after.
        """
        state = self._state
        slots = self._dirty()
        rows: list[tuple[bytes, bytes | None]] = [(key, None) for key in self._gone]
        firsts = state.wide[slots, BASE] + state.narrow[slots, HEAD]
        columns = (firsts, state.narrow[slots, LENGTH], state.narrow[slots, PARTS], state.wide[slots, FEATURE_TIME_US])
        slab, most = state.slab, entries_per_part(self._values)
        for text, first, length, parts, stamp in zip(
            self._texts(slots), *(column.tolist() for column in columns), strict=True
        ):
            rows += encode_key(text, stamp, slab[first : first + length])
            if parts > 1:
                rows += [(row_key(text, part), None) for part in range(-(-length // most), parts)]
        return rows

    def readable(self, fingerprint: str, rows: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]] | None:
        """Return stored rows as this store loads them, None where those of that fingerprint cannot be used."""
        if fingerprint == self.fingerprint:
            return list(rows.items())
        return upgraded(rows, self.layout, self._behind) if fingerprint == self.older_fingerprint else None

    def mark_dirty(self) -> None:
        """Have every key written at the next checkpoint: what is stored is of an earlier layout."""
        self._state.narrow[self.all_slots(), FLAGS] |= DIRTY

    def mark_clean(self) -> None:
        """Note that what `dirty_rows` returned is stored; there must have been no `update` or `expire` in between."""
        slots = self._dirty()
        narrow = self._state.narrow
        narrow[slots, PARTS] = -(-narrow[slots, LENGTH] // entries_per_part(self._values))
        narrow[slots, FLAGS] &= ~DIRTY
        self._gone.clear()

    def _restore(self, rows: list[tuple[bytes, bytes]]) -> Rows:
        """Fill an empty store from changelog rows in any order, of one row key the last counts; return the slots.

        Raises
        ------
        ValueError
            If rows are damaged or do not fit; then the changelog cannot be used and state must be rebuilt by replay.
        """
        stored = decode_keys(rows, self._values)
        if not stored:
            return np.zeros(0, dtype=np.int64)
        slots, _ = self._keys.resolve(self._keys.parse([key.text for key in stored]))
        lengths = np.array([key.lengths for key in stored], dtype=np.int64)
        stamps_us = np.array([key.feature_time_us for key in stored], dtype=np.int64)
        parts = np.array([key.parts for key in stored], dtype=np.int64)
        bad = self._fill(slots, lengths, stamps_us, parts, _bodies(stored).reshape(-1, 2 + self._values))
        if bad >= 0:
            raise ValueError(f"state of key {stored[bad].text!r} is damaged: its entries are out of order")
        return slots

    def _fill(self, slots: Rows, lengths: Rows, stamps_us: Rows, parts: Rows, entries: NDArray[np.int64]) -> int:
        """Fill empty slots with entries lying end to end; return which is the first that is out of order, or -1."""
        self._make_room(int(lengths.sum()))
        self._grow_slab(int(self._state.counters[TOP]) + sum(1 << size_for(length) for length in lengths.tolist()))
        return restore(self._state, self._plan, slots, lengths, stamps_us, parts, entries)

    def _drop(self, slots: Rows) -> None:
        """Forget whole keys, and have their rows deleted."""
        for text, parts in zip(self._texts(slots), self._state.narrow[slots, PARTS].tolist(), strict=True):
            self._gone += [row_key(text, part) for part in range(parts)]
        drop(self._state, self._plan, slots)
        self._keys.release(slots)

    def _release_unused(self, fresh: Rows) -> None:
        """Take back slots given out for keys of which nothing was kept."""
        if len(fresh):
            self._keys.release(fresh[self._state.narrow[fresh, LENGTH] == 0])

    def _untouch(self) -> None:
        untouch(self._state, TOUCHED)

    def _texts(self, slots: Rows) -> list[str]:
        return [str(key) for key in self._keys.keys_of(slots).tolist()]

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


def _bodies(stored: list[StoredKey]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(body for key in stored for body in key.bodies), dtype=np.int64)
