"""Events counted by slot of event time, column and bin: all that the windowed monitors need to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.batch import Rows
from services.core.drift.detector import Floats
from services.core.drift.seasons import HOURS, seasonal_shares
from services.core.jit import kernel
from services.core.profile import FeatureProfile

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Binning:
    """How columns are cut into bins, and what to expect in them.

    Parameters
    ----------
    columns : tuple of str, length c
        Names.
    edges : float64 ndarray of shape (c, e)
        Upper edges as in `FeatureProfile`, padded with infinity.
    bins : int64 ndarray of shape (c,)
        Number of bins of each column, that of the nulls (bin 0) included; at most b = e + 2.
    shares : float64 ndarray of shape (168, c, b)
        Expected share of each bin by hour of the week.
    """

    columns: tuple[str, ...]
    edges: Floats
    bins: Counts
    shares: Floats

    @staticmethod
    def of(profiles: Mapping[str, FeatureProfile]) -> Binning:
        """Return the binning of a model's reference profile."""
        edges = padded_edges(profiles)
        bins = np.array([len(each.edges) + 2 for each in profiles.values()], dtype=np.int64)
        shares = np.zeros((HOURS, len(profiles), edges.shape[1] + 2))
        for i, each in enumerate(profiles.values()):
            if each.seasonal:
                shares[:, i, : bins[i]] = seasonal_shares(np.array(each.seasonal))
            else:
                present = (1 - each.null_share) * np.array(each.shares)
                shares[:, i, : bins[i]] = np.concatenate([[each.null_share], present])
        return Binning(tuple(profiles), edges, bins, shares)


def padded_edges(profiles: Mapping[str, FeatureProfile]) -> Floats:
    """Return the edges of every profile as one array, padded with infinity."""
    width = max((len(each.edges) for each in profiles.values()), default=0)
    edges = np.full((len(profiles), width), np.inf)
    for i, each in enumerate(profiles.values()):
        edges[i, : len(each.edges)] = each.edges
    return edges


@kernel
def count_rows(values: Floats, edges: Floats, places: Rows, counts: Counts) -> None:
    """Add each row of ``values`` to ``counts[place]``; rows whose place is negative are passed over."""
    width = edges.shape[1]
    for row in range(len(values)):
        place = places[row]
        if place < 0:
            continue
        for column in range(values.shape[1]):
            x = values[row, column]
            if np.isnan(x):
                counts[place, column, 0] += 1
                continue
            low, high = 0, width
            while low < high:
                middle = (low + high) // 2
                if edges[column, middle] < x:
                    low = middle + 1
                else:
                    high = middle
            counts[place, column, low + 1] += 1


def count_slots(values: Floats, times_ms: Rows, edges: Floats, slot_ms: int) -> tuple[Counts, int]:
    """Return the counts of a whole history by slot, and the first slot.

    Parameters
    ----------
    values : float64 ndarray of shape (n, c)
        NaN is null.
    times_ms : int64 ndarray of shape (n,)
        Event times in any order, n >= 1.
    edges : float64 ndarray of shape (c, e)
        As in `Binning`.
    slot_ms : int
        Length of a slot.

    Returns
    -------
    int64 ndarray of shape (slots, c, e + 2), int
        Slot i of the array is ``first + i``: event times from ``(first + i) * slot_ms`` on.
    """
    slots = times_ms // slot_ms
    first = int(slots.min())
    counts = np.zeros((int(slots.max()) - first + 1, edges.shape[0], edges.shape[1] + 2), dtype=np.int64)
    count_rows(np.ascontiguousarray(values), edges, slots - first, counts)
    return counts, first


@dataclass(slots=True)
class SlotRing:
    """The newest slots of a stream, whatever order events come in.

    Parameters
    ----------
    counts : int64 ndarray of shape (size, c, b)
        Slot s is at ``s % size``.
    slots : int64 ndarray of shape (size,)
        Which slot each place holds; -1 for none.
    offsets : int64 ndarray of shape (size, 2)
        Lowest and highest offset of each slot's events.
    newest, oldest : int
        Newest slot an event was seen in, and the first one counting began with; -1 before the first event.
    too_late : int
        Events older than the ring, which count nowhere.
    """

    counts: Counts
    slots: Rows
    offsets: Counts
    newest: int = -1
    oldest: int = -1
    too_late: int = 0

    @staticmethod
    def empty(size: int, columns: int, bins: int) -> SlotRing:
        return SlotRing(
            np.zeros((size, columns, bins), dtype=np.int64),
            np.full(size, -1, dtype=np.int64),
            np.zeros((size, 2), dtype=np.int64),
        )

    def closings(self, slots: Rows) -> list[tuple[int, int]]:
        """Return (row, slot closed) wherever a row belongs to a newer slot than any row before it, in order."""
        newest = np.maximum.accumulate(np.concatenate([[self.newest], slots]))
        rows = np.flatnonzero(newest[1:] > newest[:-1])
        return [(row, int(newest[row])) for row in rows.tolist()]

    def add(self, values: Floats, slots: Rows, offsets: Rows, edges: Floats) -> None:
        """Count rows; all of them belong to the newest slot or older ones, or the first to a newer one."""
        if not len(slots):
            return
        size, newest = len(self.slots), int(slots.max())
        if newest > self.newest:
            if self.newest < 0:
                self.oldest = newest
            for slot in range(max(self.newest + 1, newest - size + 1), newest + 1):
                self.counts[slot % size] = 0
                self.slots[slot % size] = slot
                self.offsets[slot % size] = np.iinfo(np.int64).max, -1
            self.newest = newest
        kept = (slots > newest_kept(self.newest, size)) & (slots >= self.oldest)
        self.too_late += int(np.count_nonzero(~kept))
        places = np.where(kept, slots % size, -1)
        count_rows(values, edges, places, self.counts)
        np.minimum.at(self.offsets[:, 0], places[kept], offsets[kept])
        np.maximum.at(self.offsets[:, 1], places[kept], offsets[kept])

    def window(self, end: int, length: int) -> tuple[Rows, Sequence[int]]:
        """Return the places of slots (end - length, end], oldest first, and those slots; empty if some are missing."""
        slots = np.arange(end - length + 1, end + 1)
        if slots[0] < self.oldest:
            return np.zeros(0, dtype=np.int64), []
        places = slots % len(self.slots)
        held = self.slots[places] == slots
        return places[held], slots[held].tolist()


def newest_kept(newest: int, size: int) -> int:
    """Return the newest slot that the ring has no place for any more."""
    return newest - size
