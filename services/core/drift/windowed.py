"""The windowed monitors: the last day and week of every column against what was expected at those hours.

An event is expected to look as events of the same hour of the week did in the reference. Volume is not compared:
expected counts are the observed number of events in each slot times the expected shares, so that neither a rhythm nor a
burst is a shift.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.batch import Rows
from services.core.drift.detector import Floats, pack, unpack
from services.core.drift.distance import DISTANCES
from services.core.drift.seasons import HOUR_MS, hour_of_week
from services.core.drift.slot_counts import Binning, Counts, SlotRing


@dataclass(frozen=True, slots=True)
class Plan:
    """Which windows are watched, and how.

    Parameters
    ----------
    slot_ms : int
        Windows end every so often; divides an hour.
    windows_ms : tuple of int
        Lengths, multiples of ``slot_ms``. A short one reports a great shift soon, a long one a small shift at all.
    distances : tuple of str
        Keys of `services.core.drift.distance.DISTANCES`.
    least_events : int
        A window of fewer events says nothing.
    """

    slot_ms: int = HOUR_MS
    windows_ms: tuple[int, ...] = (6 * HOUR_MS, 24 * HOUR_MS, 168 * HOUR_MS)
    distances: tuple[str, ...] = ("psi", "ks")
    least_events: int = 200

    def __post_init__(self) -> None:
        if self.slot_ms < 1 or HOUR_MS % self.slot_ms:
            raise ValueError(f"slot_ms must divide an hour ({HOUR_MS}), not be {self.slot_ms}")
        if not self.windows_ms or any(each < self.slot_ms or each % self.slot_ms for each in self.windows_ms):
            raise ValueError(f"windows_ms must be multiples of slot_ms ({self.slot_ms}), not {self.windows_ms}")
        unknown = sorted(set(self.distances) - set(DISTANCES))
        if unknown or not self.distances:
            raise ValueError(f"distances must be of {', '.join(DISTANCES)}, not {self.distances}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the windows in slots."""
        return tuple(each // self.slot_ms for each in self.windows_ms)

    def monitors(self, columns: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return (column, distance, window in milliseconds) of every monitor, in the order of their statistics."""
        return [(c, d, w) for w in self.windows_ms for d in self.distances for c in columns]


def statistics(observed: Any, expected: Floats, bins: Counts, plan: Plan) -> Floats:
    """Return the plan's distances, shape (..., d, c); NaN where there are too few events.

    Parameters
    ----------
    observed, expected : ndarray of shape (..., c, b)
        Counts in one length of window.
    bins : int64 ndarray of shape (c,)
        Number of bins of each column.
    """
    found = np.stack([DISTANCES[each](observed, expected, bins) for each in plan.distances], axis=-2)
    enough = observed.sum(axis=-1) >= plan.least_events
    return np.asarray(np.where(enough[..., None, :], found, np.nan))


def statistics_over_time(observed: Any, expected: Floats, bins: Counts, plan: Plan) -> Floats:
    """Return the statistics at the end of every slot, shape (t, m), NaN until a window is full.

    Parameters
    ----------
    observed, expected : ndarray of shape (t, c, b)
        Counts by slot.
    """
    found = []
    for length in plan.lengths:
        series = np.full((len(observed), len(plan.distances), observed.shape[1]), np.nan)
        if len(observed) >= length:
            series[length - 1 :] = statistics(_trailing(observed, length), _trailing(expected, length), bins, plan)
        found.append(series.reshape(len(observed), -1))
    return np.concatenate(found, axis=1)


def _trailing(counts: Any, length: int) -> Any:
    sums = np.concatenate([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
    return sums[length:] - sums[:-length]


@dataclass(frozen=True, slots=True)
class Reading:
    """The statistics at the end of a slot.

    Parameters
    ----------
    end_ms : int
        Windows end before this event time.
    statistics : float64 ndarray of shape (m,)
        In the order of `Plan.monitors`; NaN where a window is not full or has too few events.
    from_ms, first_offset, last_offset : int64 ndarray of shape (w,)
        Evidence of each length of window: where it begins, and the lowest and highest offset of its events (both -1 if
        it has none).
    events : int64 ndarray of shape (w,)
        How many there are in it.
    """

    end_ms: int
    statistics: Floats
    from_ms: Rows
    first_offset: Rows
    last_offset: Rows
    events: Rows


class WindowedMonitors:
    """All windowed monitors of one model on one partition: rows in, readings out as slots close.

    A slot closes with the first event of a newer one; later events of a closed slot still count in every window that
    comes, as long as the longest window reaches back to them. Batches make no difference.
    """

    _name: Final = "windowed"

    def __init__(self, binning: Binning, plan: Plan) -> None:
        self.binning = binning
        self.plan = plan
        columns, width = binning.edges.shape
        self._ring = SlotRing.empty(max(plan.lengths), columns, width + 2)
        self._params = {
            "columns": list(binning.columns),
            "bins": binning.bins.tolist(),
            "slot_ms": plan.slot_ms,
            "windows_ms": list(plan.windows_ms),
        }

    @property
    def too_late(self) -> int:
        """Events that were older than every window."""
        return self._ring.too_late

    def update(self, values: Floats, times_ms: Rows, offsets: Rows) -> list[Reading]:
        """Count rows in order, and return a reading for every slot that closed.

        Parameters
        ----------
        values : float64 ndarray of shape (n, c)
            In the order of the binning's columns; NaN is null.
        times_ms : int64 ndarray of shape (n,)
            Event times, >= 0.
        offsets : int64 ndarray of shape (n,)
            Offsets of the events in their partition.
        """
        values = np.ascontiguousarray(values)
        slots = times_ms // self.plan.slot_ms
        readings, start = [], 0
        for row, closed in self._ring.closings(slots):
            self._ring.add(values[start:row], slots[start:row], offsets[start:row], self.binning.edges)
            if closed >= 0:
                readings.append(self._read(closed))
            start = row
        self._ring.add(values[start:], slots[start:], offsets[start:], self.binning.edges)
        return readings

    def _read(self, end: int) -> Reading:
        plan, ring = self.plan, self._ring
        found, evidence = [], []
        for length in plan.lengths:
            places, slots = ring.window(end, length)
            observed, expected = self._window(places, slots)
            found.append(statistics(observed, expected, self.binning.bins, plan).ravel())
            offsets = ring.offsets[places]
            low, high = (int(offsets[:, 0].min()), int(offsets[:, 1].max())) if len(places) else (-1, -1)
            events = int(observed[0].sum()) if len(observed) else 0
            begin_ms = (end - length + 1) * plan.slot_ms
            evidence.append((begin_ms, low if events else -1, high if events else -1, events))
        columns = np.array(evidence, dtype=np.int64).T
        return Reading((end + 1) * plan.slot_ms, np.concatenate(found), *columns)

    def _window(self, places: Rows, slots: Sequence[int]) -> tuple[Counts, Floats]:
        counts = self._ring.counts[places]
        shares = self.binning.shares[hour_of_week(np.array(slots, dtype=np.int64) * self.plan.slot_ms)]
        return counts.sum(axis=0), (counts.sum(axis=-1, keepdims=True) * shares).sum(axis=0)

    def snapshot(self) -> bytes:
        """Return everything it has counted."""
        ring = self._ring
        arrays = [base64.b64encode(each.tobytes()).decode() for each in (ring.counts, ring.slots, ring.offsets)]
        return pack(self._name, self._params, [*arrays, ring.newest, ring.oldest, ring.too_late])

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of the same columns, bins and windows; ValueError if it is of others."""
        *arrays, newest, oldest, too_late = unpack(self._name, self._params, snapshot)
        ring = self._ring
        counts, slots, offsets = (np.frombuffer(base64.b64decode(each), dtype=np.int64).copy() for each in arrays)
        self._ring = SlotRing(
            counts.reshape(ring.counts.shape), slots, offsets.reshape(ring.offsets.shape), newest, oldest, too_late
        )
