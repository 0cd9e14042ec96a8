"""Hash table of events: the label at each maturity, revisions and times of the newest examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows
from millstream.core.jit import kernel
from millstream.core.metrics import DAY_MS
from millstream.core.windows.id_table import find, new_table, put, roomy

_EVENT_TIME, _KNOWN_AT, _LABELS, _REVISIONS = range(4)
_LABEL_BITS = 2
MOST_MATURITIES: Final = 31
UNSAID: Final = -2
"""In place of a label: the example does not say what was believed at this maturity."""


@dataclass(frozen=True, slots=True)
class MaturityLabels:
    """What n events count for.

    Parameters
    ----------
    labels : int64 ndarray of shape (n, maturities)
        1, 0, or -1 where the event does not count; the last column is the present label.
    known_at_ms : int64 ndarray of shape (n,)
        When the present label became known; -1 of an event that is not remembered.
    """

    labels: NDArray[np.int64]
    known_at_ms: Rows

    def take(self, rows: Rows) -> MaturityLabels:
        """Return the given rows."""
        return MaturityLabels(self.labels[rows], self.known_at_ms[rows])


class LabelTable:
    """Labels by maturity, their revisions, and times by event id; about 90 bytes an event of four maturities.

    At each maturity the example with the greatest revision that says what was believed by then counts. That is a
    maximum, so neither order nor repetition of examples shows in it.

    Parameters
    ----------
    maturities : int
        How many; at most `MOST_MATURITIES`.
    """

    def __init__(self, maturities: int) -> None:
        if not 1 <= maturities <= MOST_MATURITIES:
            raise ValueError(f"{maturities} maturities; allowed: 1 to {MOST_MATURITIES}")
        self.width = _REVISIONS + maturities
        self._shifts = np.arange(maturities, dtype=np.int64) * _LABEL_BITS
        self._table = new_table(1 << 10)
        self._ids = np.zeros(1 << 9, dtype=np.int64)
        self._rows = np.zeros((1 << 9, self.width), dtype=np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def put(
        self, event_ids: Rows, revisions: Rows, labels: NDArray[np.int64], known_at_ms: Rows, event_time_ms: Rows
    ) -> tuple[Rows, MaturityLabels, MaturityLabels]:
        """Take examples in; return one position of each event of which something is new, and its labels before and now.

        Parameters
        ----------
        labels : int64 ndarray of shape (n, maturities)
            As `MaturityLabels`; `UNSAID` where the example does not say. The last column always says.
        """
        ids, first, owners = np.unique(event_ids, return_index=True, return_inverse=True)
        slots = _slots(self._table, ids)
        known = slots >= 0
        rows = np.zeros((len(ids), self.width), dtype=np.int64)
        rows[known] = self._rows[slots[known]]
        rows[~known, _EVENT_TIME], rows[~known, _KNOWN_AT] = event_time_ms[first[~known]], -1
        before, old = self._believed(rows), rows.copy()
        found = before.labels.copy()
        # Examples of one event in turn, by revision; nearly always there is one.
        order = np.lexsort((revisions, owners))
        counts = np.bincount(owners, minlength=len(ids))
        turns = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        for turn in range(int(counts.max(initial=0))):
            given = order[turns == turn]
            at = owners[given]
            newer = (labels[given] != UNSAID) & (revisions[given, None] > rows[at, _REVISIONS:])
            found[at] = np.where(newer, labels[given], found[at])
            rows[at, _REVISIONS:] = np.where(newer, revisions[given, None], rows[at, _REVISIONS:])
            rows[at, _KNOWN_AT] = np.where(newer[:, -1], known_at_ms[given], rows[at, _KNOWN_AT])
        rows[:, _LABELS] = ((found + 1) << self._shifts).sum(axis=1)
        new = np.flatnonzero((rows != old).any(axis=1))
        self._store(ids[new], slots[new], rows[new])
        return first[new], before.take(new), self._believed(rows[new])

    def _believed(self, rows: NDArray[np.int64]) -> MaturityLabels:
        labels = (rows[:, _LABELS, None] >> self._shifts) & ((1 << _LABEL_BITS) - 1)
        return MaturityLabels(labels - 1, rows[:, _KNOWN_AT].copy())

    def _store(self, ids: Rows, slots: Rows, rows: NDArray[np.int64]) -> None:
        fresh = slots < 0
        count = int(np.count_nonzero(fresh))
        self._table = roomy(self._table, self._used, count)
        while self._used + count > len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        slots[fresh] = np.arange(self._used, self._used + count)
        _put_all(self._table, ids[fresh], slots[fresh])
        self._used += count
        self._ids[slots] = ids
        self._rows[slots] = rows

    def forget(self, before_ms: int) -> None:
        """Forget events before this time."""
        kept = self._rows[: self._used, _EVENT_TIME] >= before_ms
        self.restore(self._ids[: self._used][kept], self._rows[: self._used][kept])

    def days(self) -> Rows:
        """Return the day of each event, since 1970-01-01 UTC; repeated."""
        return np.asarray(self._rows[: self._used, _EVENT_TIME] // DAY_MS, dtype=np.int64)

    def between(self, from_ms: int, to_ms: int) -> tuple[Rows, NDArray[np.int64]]:
        """Return ids and what is remembered of events with from_ms <= time < to_ms, in order of the ids.

        The rows are int64 of shape (m, width): event time, when the present label became known, labels as two bits each
        with 1 added, and the revision that decided each of them.
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
        self._rows = np.concatenate([rows, np.zeros((size - self._used, self.width), dtype=np.int64)])
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
