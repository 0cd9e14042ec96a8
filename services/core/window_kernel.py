"""The fold over one entity's events: machine code over a few large arrays.

An entry is a row of the slab: time (ms), event id, then the bits of its values. A key's entries lie together, ordered
by (time, id), in a segment of 2**k rows: ``base + head`` to before ``base + head + length``. Free segments of a size
are chained through their first row. Each window's tail, counts and sums stand at the key's newest entry; events
out of order are answered by walking back from there in scratch slot 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.core.exact_sum import WORDS, accumulate
from services.core.id_table import erase, find, put
from services.core.jit import inline, kernel
from services.core.window_functions import answer
from services.core.window_plan import Plan

OK, DUPLICATE, LATE = range(3)
TIME_LIMIT_MS = 2**52
NO_TIME_MS = -(2**54)

BASE, FEATURE_TIME_US = range(2)
HEAD, LENGTH, SIZE, FLAGS, PARTS, TAILS = range(6)
TOUCHED, DIRTY = 1, 2
STREAM_TIME_MS, TOP, IDS, TOUCHES = range(4)


class State(NamedTuple):
    """Everything a store holds, but its keys.

    Parameters
    ----------
    wide : int64 ndarray of shape (slots, 2)
        ``BASE, FEATURE_TIME_US``.
    narrow : int32 ndarray of shape (slots, 5 + windows + cells)
        ``HEAD, LENGTH, SIZE`` (log2 of the segment's rows, -1 for none), ``FLAGS, PARTS``, then each window's tail
        (counted from ``BASE``) and each cell's count.
    sums : uint64 ndarray of shape (slots * cells * 4,)
        Exact sums of the cells.
    slab, reals : int64 and float64 ndarray of shape (rows, 2 + columns)
        Entries; the same memory twice.
    free : int64 ndarray of shape (64,)
        First free segment of each size, or -1.
    ids : int64 ndarray of shape (capacity, 2)
        `id_table` of event id to event time.
    counters : int64 ndarray of shape (4,)
        ``STREAM_TIME_MS, TOP`` (rows of the slab ever used), ``IDS`` (in the table), ``TOUCHES``.
    touched : int64 ndarray
        Slots changed by the last batch.
    """

    wide: NDArray[np.int64]
    narrow: NDArray[np.int32]
    sums: NDArray[np.uint64]
    slab: NDArray[np.int64]
    reals: NDArray[np.float64]
    free: NDArray[np.int64]
    ids: NDArray[np.int64]
    counters: NDArray[np.int64]
    touched: NDArray[np.int64]


@kernel
def fold(
    state: State,
    plan: Plan,
    slots: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    ids: NDArray[np.int64],
    bits: NDArray[np.int64],
    status: NDArray[np.int8],
    features: NDArray[np.float64],
    feature_time_us: NDArray[np.int64],
    start: int,
) -> int:
    """Fold rows from ``start`` on; return how far it came before the slab was full (the number of rows if it was not).

    A row that finds the slab full has changed nothing.
    """
    for i in range(start, len(slots)):
        t, slot = times_ms[i], slots[i]
        floor = state.counters[STREAM_TIME_MS] - plan.lateness_ms - plan.longest_ms
        if t < floor or t < -TIME_LIMIT_MS or t > TIME_LIMIT_MS:
            status[i] = LATE
            continue
        place = find(state.ids, ids[i])
        if place >= 0 and state.ids[place, 1] >= floor - plan.longest_ms:
            status[i] = DUPLICATE
            continue
        length = state.narrow[slot, LENGTH]
        newest = NO_TIME_MS
        if length > 0:
            newest = state.slab[state.wide[slot, BASE] + state.narrow[slot, HEAD] + length - 1, 0]
        if t < newest - plan.lateness_ms:
            status[i] = LATE
            continue
        if not _make_room(state, plan, slot):
            return i
        at = _insert(state, slot, t, ids[i], bits, i)
        state.counters[IDS] += put(state.ids, ids[i], t)
        state.counters[STREAM_TIME_MS] = max(state.counters[STREAM_TIME_MS], t)
        base = state.wide[slot, BASE]
        if t >= newest:
            _advance(state, plan, slot, t, at)
            _evict(state, slot, t - plan.longest_ms - plan.lateness_ms)
            end = state.narrow[slot, HEAD] + state.narrow[slot, LENGTH]
            answer_slot(state, plan, slot, base, end, features[i])
        else:
            _admit(state, plan, slot, newest, t, at)
            end = _rewind(state, plan, slot, t)
            answer_slot(state, plan, 0, base, end, features[i])
        stamp = max(t * 1000, state.wide[slot, FEATURE_TIME_US] + 1) if length > 0 else t * 1000
        state.wide[slot, FEATURE_TIME_US] = stamp
        feature_time_us[i] = stamp
        if not state.narrow[slot, FLAGS] & TOUCHED:
            state.touched[state.counters[TOUCHES]] = slot
            state.counters[TOUCHES] += 1
        state.narrow[slot, FLAGS] |= TOUCHED | DIRTY
    return len(slots)


@inline
def answer_slot(state: State, plan: Plan, slot: int, base: int, end: int, out: NDArray[np.float64]) -> None:
    """Write the features of what slot ``slot`` stands at."""
    counts_at = TAILS + len(plan.windows_ms)
    answer(
        plan,
        state.narrow[slot, TAILS:counts_at],
        state.narrow[slot, counts_at:],
        state.sums,
        slot * len(plan.cells) * WORDS,
        state.reals,
        base,
        end,
        out,
    )


@inline
def allocate(state: State, size: int) -> int:
    """Return the first row of a free segment of 2**size rows, or -1 if the slab must grow."""
    base = state.free[size]
    if base >= 0:
        state.free[size] = state.slab[base, 0]
        return base
    base = state.counters[TOP]
    if base + (1 << size) > len(state.slab):
        return -1
    state.counters[TOP] += 1 << size
    return base


@inline
def surrender(state: State, slot: int) -> None:
    """Give a slot's segment back."""
    size = state.narrow[slot, SIZE]
    if size >= 0:
        base = state.wide[slot, BASE]
        state.slab[base, 0] = state.free[size]
        state.free[size] = base
        state.narrow[slot, SIZE] = -1


@inline
def size_for(rows: int) -> int:
    """Return log2 of the smallest segment for so many rows."""
    size = 0
    while (1 << size) < rows:
        size += 1
    return size


@inline
def _make_room(state: State, plan: Plan, slot: int) -> bool:
    """See that a row fits behind a slot's last; return False, having changed nothing, if the slab must grow."""
    base, head = state.wide[slot, BASE], state.narrow[slot, HEAD]
    length, size = state.narrow[slot, LENGTH], state.narrow[slot, SIZE]
    if size >= 0 and head + length < (1 << size):
        return True
    # 1/16 of slack bounds the moving to 16 rows per event and lets segments be nearly full
    wanted = size_for(length + length // 16 + 1)
    target = base if wanted == size else allocate(state, wanted)
    if target < 0:
        return False
    for k in range(length):
        _copy(state.slab, base + head + k, target + k)
    if target != base or size < 0:
        surrender(state, slot)
    state.wide[slot, BASE] = target
    state.narrow[slot, SIZE] = wanted
    state.narrow[slot, HEAD] = 0
    for w in range(len(plan.windows_ms)):
        state.narrow[slot, TAILS + w] -= head
    return True


@inline
def _copy(slab: NDArray[np.int64], source: int, target: int) -> None:
    for column in range(slab.shape[1]):
        slab[target, column] = slab[source, column]


@inline
def _insert(state: State, slot: int, t: int, event_id: int, bits: NDArray[np.int64], i: int) -> int:
    """Put an entry in its place by (time, id); return its row in the slab."""
    slab = state.slab
    first = state.wide[slot, BASE] + state.narrow[slot, HEAD]
    at = first + state.narrow[slot, LENGTH]
    while at > first and (slab[at - 1, 0] > t or (slab[at - 1, 0] == t and slab[at - 1, 1] > event_id)):
        _copy(slab, at - 1, at)
        at -= 1
    slab[at, 0] = t
    slab[at, 1] = event_id
    for column in range(bits.shape[1]):
        slab[at, 2 + column] = bits[i, column]
    state.narrow[slot, LENGTH] += 1
    return at


@inline
def book(state: State, plan: Plan, slot: int, w: int, row: int, remove: bool) -> None:
    """Count an entry in, or out of, the cells of a window."""
    cells = len(plan.cells)
    for cell in range(plan.first_cell[w], plan.first_cell[w + 1]):
        column = 2 + plan.cells[cell, 1]
        if not np.isnan(state.reals[row, column]):
            state.narrow[slot, TAILS + len(plan.windows_ms) + cell] += -1 if remove else 1
            accumulate(state.sums, (slot * cells + cell) * WORDS, state.slab[row, column], remove)


@inline
def _advance(state: State, plan: Plan, slot: int, t: int, row: int) -> None:
    """Move a slot's windows to end at its newest entry, at time ``t``."""
    base = state.wide[slot, BASE]
    for w in range(len(plan.windows_ms)):
        tail = state.narrow[slot, TAILS + w]
        while state.slab[base + tail, 0] <= t - plan.windows_ms[w]:
            book(state, plan, slot, w, base + tail, True)
            tail += 1
        state.narrow[slot, TAILS + w] = tail
        book(state, plan, slot, w, row, False)


@inline
def _admit(state: State, plan: Plan, slot: int, newest: int, t: int, row: int) -> None:
    """Account for an entry put in behind the newest."""
    for w in range(len(plan.windows_ms)):
        if t > newest - plan.windows_ms[w]:
            book(state, plan, slot, w, row, False)
        else:
            state.narrow[slot, TAILS + w] += 1


@inline
def _evict(state: State, slot: int, until: int) -> None:
    """Drop entries of time ``until`` and before; no window, not even a late event's, reaches them any more."""
    base = state.wide[slot, BASE]
    while state.slab[base + state.narrow[slot, HEAD], 0] <= until:
        forget(state, base + state.narrow[slot, HEAD])
        state.narrow[slot, HEAD] += 1
        state.narrow[slot, LENGTH] -= 1


@inline
def forget(state: State, row: int) -> None:
    """Take an entry's id out of the table, unless it stands there for another entry by now."""
    place = find(state.ids, state.slab[row, 1])
    if place >= 0 and state.ids[place, 1] == state.slab[row, 0]:
        erase(state.ids, place)
        state.counters[IDS] -= 1


@inline
def _rewind(state: State, plan: Plan, slot: int, t: int) -> int:
    """Leave in scratch slot 0 what the slot's windows are as of ``t``; return the entry they end before."""
    slab, base, head = state.slab, state.wide[slot, BASE], state.narrow[slot, HEAD]
    width = len(plan.cells) * WORDS
    for k in range(TAILS, state.narrow.shape[1]):
        state.narrow[0, k] = state.narrow[slot, k]
    for k in range(width):
        state.sums[k] = state.sums[slot * width + k]
    end = head + state.narrow[slot, LENGTH]
    while slab[base + end - 1, 0] > t:
        end -= 1
        for w in range(len(plan.windows_ms)):
            if end >= state.narrow[slot, TAILS + w]:
                book(state, plan, 0, w, base + end, True)
    for w in range(len(plan.windows_ms)):
        tail = state.narrow[slot, TAILS + w]
        while tail > head and slab[base + tail - 1, 0] > t - plan.windows_ms[w]:
            tail -= 1
            if tail < end:
                book(state, plan, 0, w, base + tail, False)
        state.narrow[0, TAILS + w] = tail
    return end
