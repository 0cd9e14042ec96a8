"""The labels of every source of an event, as a set: joins are commutative, associative and idempotent.

While an event is unknown, every distinct statement about it is kept. Once its prediction is there, statements known
later than the horizon after it are dropped, and of each source and each whole day of age the greatest by (known_at_ms,
kind, label) is kept, where a retraction is greater than a correction and that greater than a first label: with those,
what was believed any whole number of days after the event can be resolved whatever arrives later. Union and maximum are
idempotent, commutative and associative [1]_, so a set depends only on which statements were made. A statement is one
integer, its *stamp*.

References
----------
.. [1] M. Shapiro, N. Preguiça, C. Baquero, M. Zawirski, "Conflict-free Replicated Data Types", SSS 2011, section 2.3
   (state-based objects as a join semi-lattice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask, Rows
from millstream.core.identity import id_hashes

NEW, CORRECTION, RETRACTION = range(3)
KINDS: Final = ("new", "correction", "retraction")
LATEST_MS: Final = 253_402_300_799_999
"""Latest time a stamp may hold, the end of the year 9999; the sum of a thousand stamps still fits 64 bits."""

_PER_MS: Final = 8
_DAY_MS: Final = 86_400_000


def stamps(known_at_ms: Rows, kinds: Rows, positive: Mask) -> Rows:
    """Return statements as integers that compare as statements do, all >= 1.

    Parameters
    ----------
    known_at_ms : int64 ndarray of shape (k,)
        Milliseconds since the epoch, in [0, `LATEST_MS`].
    kinds : int64 ndarray of shape (k,)
        Positions in `KINDS`.
    positive : bool ndarray of shape (k,)
        The label; of no meaning on a retraction.

    Examples
    --------
    >>> stamps(np.array([5, 5]), np.array([NEW, RETRACTION]), np.array([True, True])).tolist()
    [42, 45]
    """
    label = positive & (kinds != RETRACTION)
    found: Rows = known_at_ms * _PER_MS + 1 + 2 * kinds + label
    return found


@dataclass(frozen=True, slots=True)
class LabelSets:
    """The label sets of n events, end to end.

    Parameters
    ----------
    owners : int64 ndarray of shape (k,)
        Position of the event each statement is about.
    sources : int64 ndarray of shape (k,)
        `source_hashes` of who made it.
    stamps : int64 ndarray of shape (k,)
        From `stamps`.
    """

    owners: Rows
    sources: Rows
    stamps: Rows

    @property
    def known_at_ms(self) -> Rows:
        """When each statement became known, shape (k,)."""
        return self.stamps // _PER_MS

    @property
    def kinds(self) -> Rows:
        """Position in `KINDS` of each statement, shape (k,)."""
        return (self.stamps % _PER_MS - 1) // 2

    @property
    def labels(self) -> Rows:
        """1, 0, or -1 for a retraction, of each statement, shape (k,)."""
        return np.where(self.kinds == RETRACTION, -1, (self.stamps - 1) % 2)

    def joined(self, other: LabelSets) -> LabelSets:
        """Return both together, sorted by (owner, source, stamp), each statement once."""
        owners = np.concatenate([self.owners, other.owners])
        sources = np.concatenate([self.sources, other.sources])
        values = np.concatenate([self.stamps, other.stamps])
        order = np.lexsort((values, sources, owners))
        owners, sources, values = owners[order], sources[order], values[order]
        last = np.ones(len(owners), dtype=np.bool_)
        last[:-1] = (owners[1:] != owners[:-1]) | (sources[1:] != sources[:-1]) | (values[1:] != values[:-1])
        return LabelSets(owners[last], sources[last], values[last])

    def settled(self, predicted: Mask, event_time_ms: Rows, horizon_ms: int) -> LabelSets:
        """Return the sets with, of events that are there, each source's last statement of each day of age.

        Parameters
        ----------
        predicted : bool ndarray of shape (n,)
            Events that are there; those of others are left alone.
        event_time_ms : int64 ndarray of shape (n,)
        horizon_ms : int
            Statements known later than this after the event are dropped.
        """
        age_ms = self.known_at_ms - event_time_ms[self.owners]
        kept = self._take(~predicted[self.owners] | (age_ms <= horizon_ms))
        # Day d ends, included, d times 24 hours after the event; what was known before the event is of day 0.
        days = np.maximum(-((event_time_ms[kept.owners] - kept.known_at_ms) // _DAY_MS), 0)
        last = kept._last_of(kept.owners, kept.sources, days)
        return kept._take(last | ~predicted[kept.owners])

    def latest(self) -> LabelSets:
        """Return the last statement of each source; the sets must be sorted."""
        return self._take(self._last_of(self.owners, self.sources))

    def _last_of(self, *groups: Rows) -> Mask:
        """Return the last row of each run of rows that agree in these columns."""
        last = np.ones(len(self.owners), dtype=np.bool_)
        if len(last):
            last[:-1] = np.any([column[1:] != column[:-1] for column in groups], axis=0)
        return last

    def about(self, events: Mask) -> LabelSets:
        """Return the sets of the events under the mask; owners stay as they are."""
        return self._take(events[self.owners])

    def _take(self, mask: Mask) -> LabelSets:
        return LabelSets(self.owners[mask], self.sources[mask], self.stamps[mask])

    def counts(self, n: int) -> Rows:
        """Return how many statements each of n events has."""
        return np.bincount(self.owners, minlength=n)

    def differs(self, other: LabelSets, n: int) -> Mask:
        """Return which of n events have another set in ``other``, shape (n,); both must be sorted."""
        found: Mask = self.counts(n) != other.counts(n)
        ours, theirs = self.about(~found), other.about(~found)
        found[ours.owners[(ours.sources != theirs.sources) | (ours.stamps != theirs.stamps)]] = True
        return found

    def versions(self, n: int) -> Rows:
        """Return each event's version, shape (n,): 0 without statements, and greater whenever its set is greater.

        It is the sum of the stamps. Once an event is there, every join that changes its set makes a stamp greater or
        adds one, so versions never repeat, and they depend on the set alone: not on its batches, nor on a crash.
        """
        total = np.zeros(n, dtype=np.int64)
        np.add.at(total, self.owners, self.stamps)
        return total

    def encode(self, n: int) -> list[bytes]:
        """Return each event's set as bytes; the sets must be sorted by owner."""
        pairs = np.empty((len(self.owners), 2), dtype="<i8")
        pairs[:, 0] = self.sources
        pairs[:, 1] = self.stamps
        ends = (np.cumsum(self.counts(n)) * pairs.itemsize * 2).tolist()
        blob = pairs.tobytes()
        return [blob[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)] if n else []

    @staticmethod
    def decode(rows: Sequence[bytes | None]) -> LabelSets:
        """Return the sets that `encode` wrote; None is the empty set."""
        present = [row or b"" for row in rows]
        pairs = np.frombuffer(b"".join(present), dtype="<i8").reshape(-1, 2)
        counts = np.fromiter(map(len, present), np.int64, len(present)) // (2 * pairs.itemsize)
        owners = np.repeat(np.arange(len(present), dtype=np.int64), counts)
        return LabelSets(owners, pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64))

    @staticmethod
    def empty() -> LabelSets:
        """Return empty sets."""
        nothing = np.zeros(0, dtype=np.int64)
        return LabelSets(nothing, nothing, nothing)


def source_hashes(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the 64 bits that stand for each source's name in a label set."""
    column = np.empty(len(names), dtype=object)
    column[:] = list(names)
    return id_hashes(column)
