"""The fold over one entity's events: machine code over the arrays of `millstream.core.windows.state`."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline, kernel
from millstream.core.windows.duplicates import is_duplicate
from millstream.core.windows.exact_sum import NEGATED, WORDS, accumulate
from millstream.core.windows.functions import answer
from millstream.core.windows.id_table import erase, find, put
from millstream.core.windows.integer_arithmetic import add_whole
from millstream.core.windows.lateness import late_by_key, late_by_stream
from millstream.core.windows.plan import Plan
from millstream.core.windows.state import (
    BASE,
    DIRTY,
    DUPLICATE,
    FEATURE_TIME_US,
    FLAGS,
    HEAD,
    IDS,
    LATE,
    LENGTH,
    NO_TIME_MS,
    SCRATCH,
    SIZE,
    TAILS,
    TOP,
    TOUCHED,
    TOUCHES,
    Results,
    State,
)
from millstream.core.windows.watermark import advance_by, confirmed_ms, own_clock_lag, reached_ms

ENTER, LEAVE = cast("int", np.int64(1)), cast("int", np.int64(-1))  # typed: numba compiles again for each literal


@kernel
def fold(
    state: State,
    plan: Plan,
    slots: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    ids: NDArray[np.int64],
    bits: NDArray[np.int64],
    upstream: NDArray[np.int64],
    sources: NDArray[np.int64],
    status: NDArray[np.int8],
    results: Results,
    feature_time_us: NDArray[np.int64],
    oldest_ms: NDArray[np.int64],
    start: int,
) -> int:
    """Fold rows from ``start`` on; return how far it came before the slab was full (the number of rows if it was not).

    A row that finds the slab full has changed nothing.
    """
    clocks, counters, ahead = state.clocks, state.counters, own_clock_lag(plan)
    for i in range(start, len(slots)):
        t, slot = times_ms[i], slots[i]
        if late_by_stream(counters, plan, t):
            status[i] = LATE
            continue
        if is_duplicate(state, plan, ids[i]):
            status[i] = DUPLICATE
            continue
        length = state.narrow[slot, LENGTH]
        newest = NO_TIME_MS
        if length > 0:
            newest = state.slab[state.wide[slot, BASE] + state.narrow[slot, HEAD] + length - 1, 0]
        if late_by_key(plan, t, newest):
            status[i] = LATE
            continue
        if not make_room(state, plan, slot):
            return i
        at = insert(state, slot, t, ids[i], bits, i)
        state.counters[IDS] += put(state.ids, ids[i], t)
        advance_by(clocks, counters, plan, slot, t, upstream[i] if plan.later else -1, sources[i] if plan.later else 0)
        last, reached = max(t, newest), reached_ms(clocks, counters, plan)
        if last - ahead > reached:
            reached = max(reached, confirmed_ms(state, slot) - ahead)
        oldest_ms[i] = min(last, reached) - (0 if plan.later else plan.lateness_ms)
        if t >= newest:
            _advance(state, plan, slot, t, at)
            _evict(state, slot, oldest_ms[i] - plan.longest_ms)
            row, end = slot, int(state.narrow[slot, HEAD] + state.narrow[slot, LENGTH])
        else:
            admit(state, plan, slot, newest, t, at)
            row, end = SCRATCH, _rewind(state, plan, slot, t)
        answer(state, plan, row, state.wide[slot, BASE], end, results, i)
        stamp = max(t * 1000, state.wide[slot, FEATURE_TIME_US] + 1) if length > 0 else t * 1000
        state.wide[slot, FEATURE_TIME_US] = stamp
        feature_time_us[i] = stamp
        if not state.narrow[slot, FLAGS] & TOUCHED:
            state.touched[state.counters[TOUCHES]] = slot
            state.counters[TOUCHES] += 1
        state.narrow[slot, FLAGS] |= TOUCHED | DIRTY
    return len(slots)


@inline
def allocate(state: State, size: int) -> int:
    """Return the first row of a free segment of 2**size rows, or -1 if the slab must grow."""
    base = state.free[size]
    if base >= 0:
        state.free[size] = state.slab[base, 0]
        return int(base)
    base = state.counters[TOP]
    if base + (1 << size) > len(state.slab):
        return -1
    state.counters[TOP] += 1 << size
    return int(base)


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
def make_room(state: State, plan: Plan, slot: int) -> bool:
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
        copy(state.slab, base + head + k, target + k)
    if target != base or size < 0:
        surrender(state, slot)
    state.wide[slot, BASE] = target
    state.narrow[slot, SIZE] = wanted
    state.narrow[slot, HEAD] = 0
    for w in range(len(plan.windows_ms)):
        state.narrow[slot, TAILS + w] -= head
    return True


@fused
def copy(slab: NDArray[np.int64], source: int, target: int) -> None:
    for column in range(slab.shape[1]):
        slab[target, column] = slab[source, column]


@fused
def insert(state: State, slot: int, t: int, event_id: int, bits: NDArray[np.int64], i: int) -> int:
    """Put an entry behind all of its time or earlier; return its row in the slab."""
    slab = state.slab
    first = state.wide[slot, BASE] + state.narrow[slot, HEAD]
    at = first + state.narrow[slot, LENGTH]
    while at > first and slab[at - 1, 0] > t:
        copy(slab, at - 1, at)
        at -= 1
    slab[at, 0] = t
    slab[at, 1] = event_id
    for column in range(bits.shape[1]):
        slab[at, 2 + column] = bits[i, column]
    state.narrow[slot, LENGTH] += 1
    return int(at)


@fused
def book(state: State, plan: Plan, slot: int, w: int, row: int, change: int) -> None:
    """Let an entry `ENTER` or `LEAVE` the cells of a window."""
    cells = len(plan.cells)
    for cell in range(plan.first_cell[w], plan.first_cell[w + 1]):
        column, bit = 2 + plan.cells[cell, 1], plan.cells[cell, 2]
        if len(plan.wholes) > 0 and bit >= 0:
            if (state.slab[row, 2 + plan.columns + (bit >> 6)] >> (bit & 63)) & 1 == 0:
                state.narrow[slot, TAILS + len(plan.windows_ms) + cell] += change
                add_whole(state.sums, (slot * cells + cell) * WORDS, state.slab[row, column], change)
        elif not np.isnan(state.reals[row, column]):
            state.narrow[slot, TAILS + len(plan.windows_ms) + cell] += change
            bits = state.slab[row, column]
            accumulate(state.sums, (slot * cells + cell) * WORDS, bits if change > 0 else bits ^ NEGATED)


@fused
def _advance(state: State, plan: Plan, slot: int, t: int, row: int) -> None:
    """Move a slot's windows to end at its newest entry, at time ``t``."""
    base = state.wide[slot, BASE]
    for w in range(len(plan.windows_ms)):
        tail = state.narrow[slot, TAILS + w]
        while state.slab[base + tail, 0] <= t - plan.windows_ms[w]:
            book(state, plan, slot, w, base + tail, LEAVE)
            tail += 1
        state.narrow[slot, TAILS + w] = tail
        book(state, plan, slot, w, row, ENTER)


@inline
def admit(state: State, plan: Plan, slot: int, newest: int, t: int, row: int) -> None:
    """Account for an entry put in behind the newest."""
    for w in range(len(plan.windows_ms)):
        if t > newest - plan.windows_ms[w]:
            book(state, plan, slot, w, row, ENTER)
        else:
            state.narrow[slot, TAILS + w] += 1


@fused
def _evict(state: State, slot: int, until: int) -> None:
    """Drop entries of time ``until`` and before; no window, not even a late event's, reaches them any more."""
    base = state.wide[slot, BASE]
    while state.slab[base + state.narrow[slot, HEAD], 0] <= until:
        forget(state, base + state.narrow[slot, HEAD])
        state.narrow[slot, HEAD] += 1
        state.narrow[slot, LENGTH] -= 1


@fused
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
        state.narrow[SCRATCH, k] = state.narrow[slot, k]
    for k in range(width):
        state.sums[k] = state.sums[slot * width + k]
    end = head + state.narrow[slot, LENGTH]
    while slab[base + end - 1, 0] > t:
        end -= 1
        for w in range(len(plan.windows_ms)):
            if end >= state.narrow[slot, TAILS + w]:
                book(state, plan, SCRATCH, w, base + end, LEAVE)
    for w in range(len(plan.windows_ms)):
        tail = state.narrow[slot, TAILS + w]
        while tail > head and slab[base + tail - 1, 0] > t - plan.windows_ms[w]:
            tail -= 1
            if tail < end:
                book(state, plan, SCRATCH, w, base + tail, ENTER)
        state.narrow[SCRATCH, TAILS + w] = tail
    return int(end)
