"""Windowed monitors: the last day and week of every column compared with the reference of those hours.

An event is expected to look as events of the same hour of the week did in the reference. Volume is not compared:
expected counts are the observed number of events in each slot times the expected shares, so that neither a rhythm nor a
burst is a shift.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.distance import DISTANCES
from millstream.core.drift.plan import Plan
from millstream.core.drift.seasons import hour_of_week
from millstream.core.drift.slot_counts import Binning, Block, Counts

SLACK_SLOTS: Final = 352
"""How many slots one partition may be ahead of the slot that is read."""


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


def scaled(found: Floats, events: Floats, plan: Plan, floors: bool = True) -> Floats:
    """Return statistics times events, as `millstream.core.drift.null_distribution` has them.

    Parameters
    ----------
    found : float64 ndarray of shape (t, m)
        In the order of `Plan.monitors`.
    events : float64 ndarray of shape (t, w, c)
        In each length of window, by column.
    floors : bool
        Whether distances up to their floor count as 0.
    """
    shaped = found.reshape(len(found), len(plan.lengths), len(plan.distances), -1)
    power = np.array([each.power for each in plan.scales])[:, None]
    floor = np.array([each.floor for each in plan.scales])[:, None]
    times = shaped**power * events[:, :, None, :]
    return np.asarray(np.where((shaped <= floor) & floors, 0.0, times).reshape(found.shape))


def thresholds_at(scaled_thresholds: Floats, events: Rows, plan: Plan) -> Floats:
    """Return each monitor's threshold in windows of so many events, shape (m,), in the unit of its distance.

    Parameters
    ----------
    scaled_thresholds : float64 ndarray of shape (m,)
    events : int64 ndarray of shape (w, c)
    """
    shaped = scaled_thresholds.reshape(len(plan.lengths), len(plan.distances), -1)
    power = np.array([each.power for each in plan.scales])[:, None]
    floor = np.array([each.floor for each in plan.scales])[:, None]
    limits = (shaped / np.maximum(events, 1)[:, None, :]) ** (1 / power)
    return np.asarray(np.maximum(limits, floor).ravel())


def events_over_time(observed: Any, plan: Plan) -> Floats:
    """Return the events of each length of window at the end of every slot, shape (t, w, c), NaN until it is full."""
    events = observed.sum(axis=-1).astype(np.float64)
    found = np.full((len(events), len(plan.lengths), events.shape[1]), np.nan)
    for i, length in enumerate(plan.lengths):
        if len(events) >= length:
            found[length - 1 :, i] = _trailing(events, length)
    return found


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
    """What windows hold at the end of a slot.

    Parameters
    ----------
    end_ms : int
        Windows end before this event time.
    statistics : float64 ndarray of shape (m,)
        In the order of `Plan.monitors`; NaN where a window is not full or has too few events.
    from_ms, events : int64 ndarray of shape (w,)
        Where each length of window begins, and how many events there are in it.
    by_column : int64 ndarray of shape (w, c)
        Events that count for each column; fewer where it is of one segment.
    offsets : tuple of length w of tuples of (partition, first, last)
        Lowest and highest offset of each window's events.
    null_excess, outside : float64 ndarray of shape (w, c)
        Share of nulls beyond the expected one, and of values outside of the reference's range.
    cells : int64 ndarray of shape (w, k)
        Events by cell of expected probability.
    """

    end_ms: int
    statistics: Floats
    from_ms: Rows
    events: Rows
    by_column: Rows
    offsets: tuple[tuple[tuple[int, int, int], ...], ...]
    null_excess: Floats
    outside: Floats
    cells: Rows


class Windows:
    """Blocks of every partition of one model version, merged by slot; a reading of any slot whose window is held.

    Sums of integers: the order in which blocks come makes no difference.

    Parameters
    ----------
    binning : Binning
    plan : Plan
    cells : int
        Number of cells of expected probability.
    kept_slots : int
        How far back at least counts are to be had.

    Attributes
    ----------
    binning, plan
        May be replaced by others with the same bins, and windows no longer than the longest.
    """

    def __init__(self, binning: Binning, plan: Plan, cells: int, kept_slots: int = 0) -> None:
        self.binning = binning
        self.plan = plan
        columns, width = binning.edges.shape
        self._size = max(*plan.lengths, kept_slots) + SLACK_SLOTS
        self._sums = np.zeros((self._size, columns * (width + 2) + columns + cells), dtype=np.int64)
        self._offsets: dict[int, dict[int, tuple[int, int]]] = {}
        self.oldest = self.newest = -1
        self.too_late = 0

    def check(self, block: Block) -> None:
        """Raise ValueError if a block is of other columns, bins or cells than are counted here."""
        columns, width = self.binning.edges.shape
        cells = self._sums.shape[1] - columns * (width + 3)
        found, wanted = (*block.counts.shape, len(block.cells)), (columns, width + 2, cells)
        if found != wanted:
            raise ValueError(f"its counts are of {found} columns, bins and cells; the reference has {wanted}")

    def add(self, partition: int, slot: int, block: Block) -> None:
        """Count a block; one of a slot that no window reaches back to any more is too late."""
        if self.newest < 0:
            self.oldest = self.newest = slot
        if slot > self.newest:
            for each in range(max(self.newest + 1, slot - self._size + 1), slot + 1):
                self._sums[each % self._size] = 0
            self.newest = slot
            for each in [each for each in self._offsets if each <= self.newest - self._size]:
                del self._offsets[each]
        if slot <= self.newest - self._size:
            self.too_late += block.events
            return
        self.oldest = min(self.oldest, slot)
        self._sums[slot % self._size] += np.concatenate([block.counts.ravel(), block.outside, block.cells])
        places = self._offsets.setdefault(slot, {})
        first, last = places.get(partition, (block.first, block.last))
        places[partition] = min(first, block.first), max(last, block.last)

    def events_in(self, slot: int) -> int:
        """Return how many events there are in a slot."""
        return int(self.counts(slot, 1)[0, 0].sum())

    def counts(self, end: int, length: int) -> Counts:
        """Return the counts of so many slots, int64 of shape (length, c, b); 0 in those that are not held."""
        slots = np.arange(end - length + 1, end + 1)
        held = (slots >= max(self.oldest, self.newest - self._size + 1)) & (slots <= self.newest) & (self.newest >= 0)
        return np.where(held[:, None, None], self._counts(slots.tolist()), 0)

    def _counts(self, slots: Sequence[int]) -> Counts:
        columns, width = self.binning.edges.shape
        found = self._sums[np.array(slots, dtype=np.int64) % self._size, : columns * (width + 2)]
        return found.reshape(len(slots), columns, width + 2)

    def read(self, end: int) -> Reading:
        """Return the reading at the end of a slot."""
        plan, found, parts = self.plan, [], []
        columns = len(self.binning.columns)
        cut = columns * (self.binning.edges.shape[1] + 2)
        for length in plan.lengths:
            slots = [each for each in range(end - length + 1, end + 1) if each <= self.newest]
            if end - length + 1 < max(self.oldest, self.newest - self._size + 1):
                slots = []
            counts = self._counts(slots)
            events = counts.sum(axis=-1, keepdims=True)
            hours = hour_of_week(np.array(slots, dtype=np.int64) * plan.slot_ms)
            observed, expected = counts.sum(axis=0), (events * self.binning.shares[hours]).sum(axis=0)
            found.append(statistics(observed, expected, self.binning.bins, plan).ravel())
            rest = self._sums[np.array(slots, dtype=np.int64) % self._size, cut:].sum(axis=0)
            many = np.maximum(observed.sum(axis=-1), 1)
            parts.append(
                (
                    int(observed[0].sum()),
                    observed.sum(axis=-1),
                    self._places(slots),
                    (observed[:, 0] - expected[:, 0]) / many,
                    rest[:columns] / many,
                    rest[columns:],
                )
            )
        events_by_window, by_column, offsets, nulls, outside, cells = zip(*parts, strict=True)
        return Reading(
            (end + 1) * plan.slot_ms,
            np.concatenate(found),
            np.array([(end - length + 1) * plan.slot_ms for length in plan.lengths]),
            np.array(events_by_window),
            np.array(by_column),
            tuple(offsets),
            np.array(nulls),
            np.array(outside),
            np.array(cells),
        )

    def _places(self, slots: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
        found: dict[int, tuple[int, int]] = {}
        for slot in slots:
            for partition, (first, last) in self._offsets.get(slot, {}).items():
                low, high = found.get(partition, (first, last))
                found[partition] = min(low, first), max(high, last)
        return tuple((partition, *found[partition]) for partition in sorted(found))

    def to_json(self) -> dict[str, Any]:
        """Return everything it holds as a JSON object."""
        packed = zlib.compress(self._sums.astype("<i4").tobytes(), 1)
        offsets = [[slot, p, *at] for slot in sorted(self._offsets) for p, at in sorted(self._offsets[slot].items())]
        return {
            "shape": self._sums.shape,
            "sums": base64.b64encode(packed).decode(),
            "offsets": offsets,
            "oldest": self.oldest,
            "newest": self.newest,
            "too_late": self.too_late,
        }

    def load(self, raw: Mapping[str, Any]) -> None:
        """Go on from what `to_json` returned; ValueError if that was of other columns or windows."""
        if tuple(raw["shape"]) != self._sums.shape:
            raise ValueError(f"the state has shape {raw['shape']}, these windows have {self._sums.shape}")
        held = np.frombuffer(zlib.decompress(base64.b64decode(raw["sums"])), dtype="<i4")
        self._sums = held.reshape(self._sums.shape).astype(np.int64)
        self._offsets = {}
        for slot, partition, first, last in raw["offsets"]:
            self._offsets.setdefault(slot, {})[partition] = first, last
        self.oldest, self.newest, self.too_late = raw["oldest"], raw["newest"], raw["too_late"]
