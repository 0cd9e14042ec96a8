"""Counts of one partition's scored events by slot: a slot is reported once an event of a newer one has come.

Late events are reported with the next. The same however events are cut into batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.alert import ONLINE_VERSION
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.online_scores import online_block
from millstream.core.drift.slot_counts import ABSENT, Binning, Block, count_rows
from millstream.core.drift.slot_summary import LAST_SLOT, LATENCY_EDGES_MS, Summary, Tally


@dataclass(frozen=True, slots=True)
class Counting:
    """A reference, ready to count by."""

    reference: ModelReference
    binning: Binning
    low: Floats
    high: Floats
    levels: tuple[Floats, ...]

    @staticmethod
    def of(reference: ModelReference) -> Counting:
        low, high = np.array(reference.low), np.array(reference.high)
        return Counting(reference, reference.binning(), low, high, tuple(map(np.array, reference.levels)))

    def block(self, matrix: Floats, scores: Floats, offsets: Rows) -> Block:
        """Count events, n >= 1, of one slot.

        Parameters
        ----------
        matrix : float64 ndarray of shape (n, f)
            Features in the order of the reference's; NaN is null.
        scores : float64 ndarray of shape (n,)
        offsets : int64 ndarray of shape (n,)
        """
        table = np.ascontiguousarray(self.reference.table(matrix, scores))
        counts = np.zeros((1, *self.binning.shares.shape[1:]), dtype=np.int64)
        count_rows(table, self.binning.edges, np.zeros(len(table), dtype=np.int64), counts)
        unseen = ((table < self.low) | (table > self.high)) & (table != ABSENT)
        for column, levels in enumerate(self.levels):
            if len(levels):
                unseen[:, column] = ~np.isin(table[:, column], levels) & np.isfinite(table[:, column])
        outside = unseen.sum(axis=0)
        calibration, cells = self.reference.calibration, self.reference.cells
        found = np.zeros(0, dtype=np.int64)
        if calibration is not None and cells is not None:
            found = cells.count(calibration(scores))
        return Block(counts[0], outside.astype(np.int64), found, int(offsets.min()), int(offsets.max()))


@dataclass(frozen=True, slots=True)
class Events:
    """Scored events of one partition, in order.

    Parameters
    ----------
    times_ms, received_ms, scored_ms : int64 ndarray of shape (n,)
        When it happened, arrived (-1: not known) and was scored.
    offsets : int64 ndarray of shape (n,)
    versions : int64 ndarray of shape (n,)
        Of the model that scored it; 0 for none.
    scores : float64 ndarray of shape (n,)
    online : float64 ndarray of shape (n,)
        The online model's scores; NaN where it had no opinion, `ABSENT` where there was none.
    matrix : callable
        From a version's features to their values, float64 of shape (n, f).
    """

    times_ms: Rows
    received_ms: Rows
    scored_ms: Rows
    offsets: Rows
    versions: Rows
    scores: Floats
    online: Floats
    matrix: Callable[[tuple[str, ...]], Floats]


class PartitionCounts:
    """Counts one partition's events and reports a slot when it closes; the same however events are cut into batches.

    Parameters
    ----------
    partition : int
    slot_ms : int
    """

    def __init__(self, partition: int, slot_ms: int) -> None:
        self.partition = partition
        self._slot_ms = slot_ms
        self.newest = -1
        self._blocks: dict[tuple[int, int], Block] = {}
        self._tallies: dict[int, Tally] = {}

    def update(self, events: Events, countings: Mapping[int, Counting]) -> list[Summary]:
        """Count events in order; return the summaries of the slots they close.

        Events of versions without a counting count in tallies alone, those outside any valid slot nowhere.
        """
        slots = events.times_ms // self._slot_ms
        slots = np.where((slots >= 0) & (slots <= LAST_SLOT), slots, -1)
        newest = np.maximum.accumulate(np.concatenate([[self.newest], slots]))
        tables = {
            version: events.matrix(counting.reference.features)
            for version, counting in countings.items()
            if (events.versions == version).any()
        }
        closed, start = [], 0
        for row in [*np.flatnonzero(newest[1:] > newest[:-1]).tolist(), len(slots)]:
            self._count(events, slots, np.arange(start, row), tables, countings)
            if row < len(slots):
                if self.newest >= 0:
                    closed.append(self.tell(int(slots[row]), int(events.offsets[row])))
                self.newest = int(slots[row])
            start = row
        return closed

    def _count(
        self,
        events: Events,
        slots: Rows,
        rows: Rows,
        tables: Mapping[int, Floats],
        countings: Mapping[int, Counting],
    ) -> None:
        for slot in np.unique(slots[rows]).tolist():
            if slot < 0:
                continue
            here = rows[slots[rows] == slot]
            known = here[events.received_ms[here] >= 0]
            taken_ms = events.scored_ms[known] - events.received_ms[known]
            found = np.bincount(np.searchsorted(LATENCY_EDGES_MS, taken_ms), minlength=len(LATENCY_EDGES_MS) + 1)
            self._tallies.setdefault(slot, Tally()).add(Tally(len(here), found.tolist()))
            for version in tables:
                mine = here[events.versions[here] == version]
                if len(mine):
                    block = countings[version].block(tables[version][mine], events.scores[mine], events.offsets[mine])
                    self._add(version, slot, block)
            there = here[events.online[here] != ABSENT]
            if len(there):
                self._add(ONLINE_VERSION, slot, online_block(events.online[there], events.offsets[there]))

    def _add(self, version: int, slot: int, block: Block) -> None:
        present = self._blocks.setdefault((version, slot), block)
        if present is not block:
            present.add(block)

    def tell(self, slot: int, at: int | None = None) -> Summary:
        """Return what is counted, and that all before a slot is closed; see `Summary` for ``at``."""
        closed = Summary(self.partition, slot, self._blocks, self._tallies, at)
        self._blocks, self._tallies = {}, {}
        return closed

    def snapshot(self) -> bytes:
        """Return what it has counted and not reported."""
        newest = None if self.newest < 0 else self.newest
        return Summary(self.partition, newest, self._blocks, self._tallies).encode()

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot."""
        if json.loads(snapshot)["slot"] == -1:
            return  # an earlier version's, which had seen no event
        held = Summary.decode(snapshot)
        self.newest = -1 if held.slot is None else held.slot
        self._blocks, self._tallies = dict(held.blocks), dict(held.tallies)
