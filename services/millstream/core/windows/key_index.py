"""From entity keys to slots: small positions at which a store keeps what belongs to a key.

Slots count from 1; 0 is unassigned, so that a store may use it as scratch space.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Rows
from millstream.core.jit import kernel
from millstream.core.windows.id_table import erase, find, new_table, put, roomy


class KeyIndex(Protocol):
    """Which slot each key has."""

    @property
    def top(self) -> int:
        """One more than the largest slot ever given out."""

    def resolve(self, keys: Array) -> tuple[Rows, Rows]:
        """Return the slot of each key, shape (n,), and the distinct slots given out just now."""

    def find(self, keys: Array) -> Rows:
        """Return the slot of each key, shape (n,), 0 where it has none."""

    def release(self, slots: Rows) -> None:
        """Take slots back, each at most once, and forget their keys."""

    def keys_of(self, slots: Rows) -> Array:
        """Return the keys of slots in use, in that order."""

    def parse(self, texts: list[str]) -> Array:
        """Return keys from their text."""

    @property
    def memory_bytes(self) -> int:
        """Memory held, bytes (of strings: the references only)."""


class IntegerKeys:
    """Slots of int64 keys, without a Python object per key."""

    def __init__(self) -> None:
        self._table = new_table(64)
        self._keys = np.zeros(64, dtype=np.int64)
        self._free = np.zeros(64, dtype=np.int64)  # a stack
        self._counts = np.array([1, 0, 0], dtype=np.int64)  # top, free slots, keys in the table

    @property
    def top(self) -> int:
        """One more than the largest slot ever given out."""
        return int(self._counts[0])

    @property
    def memory_bytes(self) -> int:
        """Memory held, bytes."""
        return self._table.nbytes + self._keys.nbytes + self._free.nbytes

    def resolve(self, keys: Array) -> tuple[Rows, Rows]:
        """Return the slot of each key, and the distinct slots given out just now."""
        n = len(keys)
        self._table = roomy(self._table, int(self._counts[2]), n)
        self._keys = extended(self._keys, self.top + n)
        slots, fresh = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        given = _resolve(self._table, self._keys, self._free, self._counts, keys, slots, fresh)
        return slots, fresh[:given]

    def find(self, keys: Array) -> Rows:
        """Return the slot of each key, 0 where it has none."""
        slots = np.empty(len(keys), dtype=np.int64)
        _find(self._table, keys, slots)
        return slots

    def release(self, slots: Rows) -> None:
        """Take slots back and forget their keys."""
        self._free = extended(self._free, int(self._counts[1]) + len(slots))
        _release(self._table, self._keys, self._free, self._counts, slots)

    def keys_of(self, slots: Rows) -> Array:
        """Return the keys of slots in use."""
        return self._keys[slots]

    def parse(self, texts: list[str]) -> Array:
        """Return keys from their decimal text."""
        return np.array([int(text) for text in texts], dtype=np.int64)


class TextKeys:
    """Slots of string keys."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._texts: list[str | None] = [None]
        self._free: list[int] = []

    @property
    def top(self) -> int:
        """One more than the largest slot ever given out."""
        return len(self._texts)

    @property
    def memory_bytes(self) -> int:
        """Memory held by the references, bytes."""
        return self._slots.__sizeof__() + self._texts.__sizeof__()

    def resolve(self, keys: Array) -> tuple[Rows, Rows]:
        """Return the slot of each key, and the distinct slots given out just now."""
        texts = keys.tolist()
        known = self._slots
        fresh = []
        for text in texts:
            if text not in known:
                known[text] = self._give(text)
                fresh.append(known[text])
        slots = np.fromiter((known[text] for text in texts), np.int64, len(texts))
        return slots, np.array(fresh, dtype=np.int64)

    def _give(self, text: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._texts[slot] = text
            return slot
        self._texts.append(text)
        return len(self._texts) - 1

    def find(self, keys: Array) -> Rows:
        """Return the slot of each key, 0 where it has none."""
        known = self._slots
        return np.fromiter((known.get(text, 0) for text in keys.tolist()), np.int64, len(keys))

    def release(self, slots: Rows) -> None:
        """Take slots back and forget their keys."""
        for slot in slots.tolist():
            text = self._texts[slot]
            if text is not None:
                del self._slots[text]
            self._texts[slot] = None
            self._free.append(slot)

    def keys_of(self, slots: Rows) -> Array:
        """Return the keys of slots in use."""
        keys = np.empty(len(slots), dtype=object)
        keys[:] = [self._texts[slot] for slot in slots.tolist()]
        return keys

    def parse(self, texts: list[str]) -> Array:
        """Return keys from their text."""
        keys = np.empty(len(texts), dtype=object)
        keys[:] = texts
        return keys


def extended(array: Array, length: int) -> Array:
    """Return the array, or a copy half as long again (or as long as needed) whose new end is zeros."""
    if length <= len(array):
        return array
    larger = np.zeros((max(length, len(array) * 3 // 2), *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


@kernel
def _resolve(
    table: NDArray[np.int64],
    keys: NDArray[np.int64],
    free: NDArray[np.int64],
    counts: NDArray[np.int64],
    wanted: NDArray[np.int64],
    slots: NDArray[np.int64],
    fresh: NDArray[np.int64],
) -> int:
    given = 0
    for i in range(len(wanted)):
        key = wanted[i]
        place = find(table, key)
        if place >= 0:
            slots[i] = table[place, 1]
            continue
        if counts[1] > 0:
            counts[1] -= 1
            slot = free[counts[1]]
        else:
            slot = counts[0]
            counts[0] += 1
        counts[2] += put(table, key, slot)
        keys[slot] = key
        slots[i] = slot
        fresh[given] = slot
        given += 1
    return given


@kernel
def _find(table: NDArray[np.int64], wanted: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
    for i in range(len(wanted)):
        place = find(table, wanted[i])
        slots[i] = table[place, 1] if place >= 0 else 0


@kernel
def _release(
    table: NDArray[np.int64],
    keys: NDArray[np.int64],
    free: NDArray[np.int64],
    counts: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> None:
    for i in range(len(slots)):
        erase(table, find(table, keys[slots[i]]))
        free[counts[1]] = slots[i]
        counts[1] += 1
        counts[2] -= 1
