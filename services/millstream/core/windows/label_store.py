"""Exact windows over labels by the time each became known, looked up as of the times of events.

A window is (t - w, t], as `WindowStore`'s, of the times at which labels became known; the event that looks them up is
not part of it. An entry is one event's newest statement: a correction *replaces* the label, at the time when the
correction became known; a retraction leaves an entry of nulls, which every function skips. The revision says which
statement is the newer one, so state does not depend on repetition or order of arrival, except that entries of equal
time are in order of arrival, which only ``first`` and ``last`` depend on.

As of a time between a label and its correction the answer depends on what had arrived: who asks before the correction
arrives is told the label, as it was known then; who asks afterwards, being late, is told neither. So nobody is ever
told what was not known by then, and inputs that are merged in order of time (a replay, and live whatever is on time)
are answered exactly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Rows
from millstream.core.declaration import View
from millstream.core.windows.entries import KeyedEntries
from millstream.core.windows.exact_sum import representable
from millstream.core.windows.label_kernel import AT_MS, END, WIDE, ask_slots, follow
from millstream.core.windows.plan import compile_plan
from millstream.core.windows.state import BASE, FEATURE_TIME_US, HEAD, LENGTH, Results
from millstream.core.windows.values import Layout, Words

__all__ = ["LabelStore", "Statements", "merged", "representable"]

_ROW_VERSION = 1


@dataclass(frozen=True, slots=True)
class Statements:
    """What became known of n events, in order of arrival.

    Parameters
    ----------
    keys : ndarray of shape (n,), int64 or object of str
        Entity key of each event.
    known_at_ms : int64 ndarray of shape (n,)
        Milliseconds since the epoch. Beyond 2**52 in size counts as late.
    ids : int64 ndarray of shape (n,)
        Event ids.
    revisions : int64 ndarray of shape (n,)
        Of two statements on one event the one with the greater revision is the newer.
    values : int64 ndarray of shape (n, layout.width)
        As `Layout.words` returns them, or as `WindowStore.update` takes them; a retraction is null throughout.
    least_us : int64 ndarray of shape (n,)
        The row's feature time must be no less: microseconds.
    """

    keys: Array
    known_at_ms: Rows
    ids: Rows
    revisions: Rows
    values: Words
    least_us: Rows

    def __len__(self) -> int:
        return len(self.ids)


class LabelStore(KeyedEntries):
    """The label windows of one entity in one input partition.

    Parameters
    ----------
    views : tuple of View
        All label views of the entity.
    lateness_ms : int
        How much older than its key's newest an event may be and still ask.

    Attributes
    ----------
    longest_ms : int
        Longest window.

    Raises
    ------
    ValueError
        If the views do not belong together, or there is nothing to aggregate.
    """

    def __init__(self, views: tuple[View, ...], lateness_ms: int) -> None:
        plan = compile_plan(views)
        layout = Layout(views)
        self.longest_ms = plan.longest_ms
        parts = ["labels", _ROW_VERSION, views[0].key_type, plan.longest_ms, lateness_ms]
        self.fingerprint, self.older_fingerprint = (
            json.dumps([*parts, *columns], separators=(",", ":")) for columns in (layout.names, layout.columns)
        )
        super().__init__(views, plan, layout, behind=1, wide=WIDE)

    def follow(
        self, statements: Statements, keys: Array, times_ms: Rows, oldest_ms: Rows, ahead: Rows, reach_ms: int
    ) -> tuple[NDArray[np.int8], Results]:
        """Fold statements and answer events in turn.

        Parameters
        ----------
        keys, times_ms : ndarrays of shape (m,)
            Entity key and event time of each event that asks.
        oldest_ms : int64 ndarray of shape (m,)
            The time that no later event of the same key lies before; see `UpdateResult`.
        ahead : int64 ndarray of shape (m,)
            How many of the statements come before each event; ascending.
        reach_ms : int
            No event will ask about this time any more, nor what was before: such statements are late.

        Returns
        -------
        status : int8 ndarray of shape (n,)
            Of each statement: ``OK``, ``DUPLICATE`` (known already, or out of date) or ``LATE``.
        results : Results
            Features as of each event's time.

        Raises
        ------
        ValueError
            If a value is not `representable`, or the shapes do not fit; nothing has changed.
        """
        n, m = len(statements), len(times_ms)
        values, width = self.layout.of_reals(statements.values), self.layout.width
        shapes = [each.shape for each in (statements.keys, statements.known_at_ms, statements.ids, values)]
        # kernels do not check bounds
        asking = keys.shape, ahead.shape, oldest_ms.shape
        if shapes != [(n,), (n,), (n,), (n, width)] or asking != ((m,), (m,), (m,)):
            raise ValueError(f"expected {n} statements of {width} words and {m} questions, got {shapes}")
        if not self.layout.summable(values):
            raise ValueError("values of 2**90 and more in size cannot be summed exactly; reject them before")
        status = np.zeros(n, dtype=np.int8)
        results = self.new_results(m)
        self._untouch()
        slots, fresh = self._keys.resolve(statements.keys)
        self._make_room(n)
        bits = np.column_stack([values, statements.revisions])
        asked, done = self._keys.find(keys), np.zeros(2, dtype=np.int64)
        arrays = [np.ascontiguousarray(each) for each in (statements.known_at_ms, statements.ids, statements.least_us)]
        known_at_ms, ids, least_us = arrays
        times_ms, oldest_ms, ahead = (np.ascontiguousarray(each) for each in (times_ms, oldest_ms, ahead))
        while not follow(
            self._state, self._plan, slots, known_at_ms, ids, bits, least_us, reach_ms, status,
            asked, times_ms, oldest_ms, ahead, results, done,
        ):  # fmt: skip
            self._grow_slab(len(self._state.slab) + 1)
        self._release_unused(fresh)
        return status, results

    def answer(self, keys: Array, times_ms: Rows) -> Results:
        """Return the features of keys as of these times, not older than the events that asked last."""
        results = self.new_results(len(times_ms))
        ask_slots(self._state, self._plan, self._keys.find(keys), times_ms, results)
        return results

    def expire(self, reach_ms: int) -> int:
        """Drop keys all of whose entries are of ``reach_ms`` and before; return how many."""
        self._untouch()
        state, slots = self._state, self.all_slots()
        last = state.wide[slots, BASE] + state.narrow[slots, HEAD] + state.narrow[slots, LENGTH] - 1
        slots = slots[(state.slab[last, 0] <= reach_ms) & (state.wide[slots, FEATURE_TIME_US] <= reach_ms * 1000)]
        self._drop(slots)
        return len(slots)

    def load_rows(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Restore an empty store from changelog rows in any order; of one row key the last row counts.

        Raises
        ------
        ValueError
            If rows are damaged or do not fit; then the changelog cannot be used and state must be rebuilt by replay.
        """
        slots = self._restore(rows)
        state = self._state
        # As restored, windows stand at the newest entry.
        lengths = state.narrow[slots, LENGTH]
        state.wide[slots, END] = lengths
        state.wide[slots, AT_MS] = state.slab[state.wide[slots, BASE] + lengths - 1, 0]


def merged(times_ms: Rows, known_at_ms: Rows) -> Rows:
    """Return how many statements come before each event when two inputs are merged, lowest head first.

    Each input keeps its own order; of equal times the statement comes first, since windows hold what was known *by*
    then. The input with the lowest head so far decides, so what counts of an input is its running maximum.

    Parameters
    ----------
    times_ms : int64 ndarray of shape (m,)
        Of the events, in order of arrival.
    known_at_ms : int64 ndarray of shape (n,)
        Of the statements, in order of arrival.

    Examples
    --------
    >>> merged(np.array([5, 3, 9]), np.array([2, 6, 4, 9, 10])).tolist()
    [1, 1, 4]
    """
    heads_ms = np.maximum.accumulate(known_at_ms), np.maximum.accumulate(times_ms)
    return np.searchsorted(*heads_ms, side="right").astype(np.int64, copy=False)
