"""Counts of events by slot of event time, column and bin: the state of the windowed monitors."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Floats, Rows
from millstream.core.drift.seasons import HOURS, seasonal_shares
from millstream.core.jit import kernel
from millstream.core.profile import FeatureProfile

Counts = NDArray[np.int64]

_MOST_BYTES: Final = 1 << 24

ABSENT: Final = -np.inf
"""Stands where an event does not count for a column: that of a segment it is not in."""


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
    """Add each row of ``values`` to ``counts[place]``.

    Rows whose place is negative are passed over, and so are values of minus infinity: `ABSENT`.
    """
    width = edges.shape[1]
    for row in range(len(values)):
        place = places[row]
        if place < 0:
            continue
        for column in range(values.shape[1]):
            x = values[row, column]
            if x == -np.inf:
                continue
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


def whole_number(value: Any, least: int = 0, most: int = 1 << 53) -> int:
    """Return a number read from JSON; ValueError if it is no whole one within these bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is no whole number from {least} to {most}")
    return value


@dataclass(slots=True)
class Block:
    """What one partition has counted of one model version's events in one slot.

    Parameters
    ----------
    counts : int64 ndarray of shape (c, b)
        By column and bin of the version's reference.
    outside : int64 ndarray of shape (c,)
        Values outside of the range that the reference has.
    cells : int64 ndarray of shape (k,)
        By cell of expected probability; k is 0 where there is no calibration.
    first, last : int
        Lowest and highest offset.
    """

    counts: Counts
    outside: Rows
    cells: Rows
    first: int
    last: int

    @property
    def events(self) -> int:
        return int(self.counts[0].sum())

    def add(self, other: Block) -> None:
        """Count the other's events as well."""
        self.counts += other.counts
        self.outside += other.outside
        self.cells += other.cells
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)

    def to_json(self) -> list[Any]:
        c, b = self.counts.shape
        whole = np.concatenate([self.counts.ravel(), self.outside, self.cells]).astype("<i4")
        return [self.first, self.last, c, b, base64.b64encode(zlib.compress(whole.tobytes(), 6)).decode()]

    @staticmethod
    def of_json(raw: list[Any]) -> Block:
        """Return what `to_json` wrote; ValueError or TypeError if it is none."""
        first, last, c, b, text = raw
        first, last = whole_number(first), whole_number(last)
        c, b = whole_number(c, 1, _MOST_BYTES), whole_number(b, 1, _MOST_BYTES)
        unpacked = zlib.decompressobj()
        try:
            content = unpacked.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"counts cannot be unpacked: {error}") from error
        if not unpacked.eof:
            raise ValueError(f"counts are cut off, or take more than {_MOST_BYTES} bytes")
        whole = np.frombuffer(content, dtype="<i4").astype(np.int64)
        if len(whole) < c * b + c or (whole < 0).any() or first > last:
            raise ValueError(f"{len(whole)} counts from {first} to {last} are none of {c} columns with {b} bins")
        counts, outside, cells = np.split(whole, [c * b, c * b + c])
        return Block(counts.reshape(c, b), outside.copy(), cells.copy(), first, last)
