"""The newest example seen of each event, in 32 bytes and a place in a hash table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.batch import Rows
from services.core.jit import kernel
from services.core.metrics import DAY_MS
from services.core.windows.id_table import find, new_table, put, roomy

_REVISION, _LABEL, _KNOWN_AT, _EVENT_TIME = range(4)
_WIDTH = 4


@dataclass(frozen=True, slots=True)
class Said:
    """What the newest examples of some events said: labels (-1 is none) and when they became known."""

    labels: Rows
    known_at_ms: Rows


class Remembered:
    """Newest revision, label and times by event id; about 60 bytes an event."""

    def __init__(self) -> None:
        self._table = new_table(1 << 10)
        self._ids = np.zeros(1 << 9, dtype=np.int64)
        self._rows = np.zeros((1 << 9, _WIDTH), dtype=np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def newest(self, event_ids: Rows, revisions: Rows) -> Rows:
        """Return, ascending, the positions of examples that are newer than what is remembered: one per event."""
        order = np.lexsort((revisions, event_ids))
        last = np.ones(len(order), dtype=np.bool_)
        last[:-1] = event_ids[order][1:] != event_ids[order][:-1]
        rows = np.sort(order[last])
        slots = _slots(self._table, event_ids[rows])
        known = np.where(slots >= 0, self._rows[slots, _REVISION], 0)
        newer: Rows = rows[revisions[rows] > known]
        return newer

    def put(self, event_ids: Rows, revisions: Rows, labels: Rows, known_at_ms: Rows, event_time_ms: Rows) -> Said:
        """Remember examples of distinct events; return what was remembered of them before."""
        self._table = roomy(self._table, self._used, len(event_ids))
        while self._used + len(event_ids) > len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        slots = _slots(self._table, event_ids)
        fresh = slots < 0
        old = Said(
            np.where(fresh, -1, self._rows[slots, _LABEL]),
            np.where(fresh, -1, self._rows[slots, _KNOWN_AT]),
        )
        count = int(np.count_nonzero(fresh))
        slots[fresh] = np.arange(self._used, self._used + count)
        _put_all(self._table, event_ids[fresh], slots[fresh])
        self._used += count
        self._ids[slots] = event_ids
        self._rows[slots] = np.stack([revisions, labels, known_at_ms, event_time_ms], axis=1)
        return old

    def forget(self, before_ms: int) -> None:
        """Forget events before this time."""
        kept = self._rows[: self._used, _EVENT_TIME] >= before_ms
        self.restore(self._ids[: self._used][kept], self._rows[: self._used][kept])

    def days(self) -> Rows:
        """Return the day of each event, since 1970-01-01 UTC; repeated."""
        return np.asarray(self._rows[: self._used, _EVENT_TIME] // DAY_MS, dtype=np.int64)

    def between(self, from_ms: int, to_ms: int) -> tuple[Rows, NDArray[np.int64]]:
        """Return ids and what is remembered of events with from_ms <= time < to_ms, in order of the ids.

        The rows are int64 of shape (m, 4): revision, label, known at, event time.
        """
        times_ms = self._rows[: self._used, _EVENT_TIME]
        there = np.flatnonzero((times_ms >= from_ms) & (times_ms < to_ms))
        there = there[np.argsort(self._ids[there])]
        return self._ids[there], self._rows[there]

    def restore(self, event_ids: Rows, rows: NDArray[np.int64]) -> None:
        """Remember exactly what `between` returned."""
        self._used = len(event_ids)
        size = max(1 << 9, self._used)
        self._ids = np.concatenate([event_ids, np.zeros(size - self._used, dtype=np.int64)])
        self._rows = np.concatenate([rows, np.zeros((size - self._used, _WIDTH), dtype=np.int64)])
        self._table = roomy(new_table(1 << 10), 0, self._used)
        _put_all(self._table, event_ids, np.arange(self._used, dtype=np.int64))


@kernel
def _slots(table: NDArray[np.int64], event_ids: Rows) -> Rows:
    out = np.empty(len(event_ids), dtype=np.int64)
    for i in range(len(event_ids)):
        place = find(table, event_ids[i])
        out[i] = table[place, 1] if place >= 0 else -1
    return out


@kernel
def _put_all(table: NDArray[np.int64], event_ids: Rows, slots: Rows) -> None:
    for i in range(len(event_ids)):
        put(table, event_ids[i], slots[i])
