"""The folds over label statements: revise entries, and answer as of any time without being counted.

A slot's windows stand at a time of their own, ``AT_MS``: the last one asked for. Entries before ``END`` are of that
time or earlier; later ones are known already, but not visible as of that time. Sums are exact, so the windows may
be moved either way and come out the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline, kernel
from millstream.core.windows.functions import answer
from millstream.core.windows.id_table import find, put
from millstream.core.windows.kernel import ENTER, LEAVE, admit, book, copy, forget, insert, make_room
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
    TAILS,
    TIME_LIMIT_MS,
    TOUCHED,
    TOUCHES,
    Results,
    State,
)

END, AT_MS = range(2, 4)
WIDE = 4
ASKED, REVISED = range(2)


@kernel
def follow(
    state: State,
    plan: Plan,
    slots: NDArray[np.int64],
    known_at_ms: NDArray[np.int64],
    ids: NDArray[np.int64],
    bits: NDArray[np.int64],
    least_us: NDArray[np.int64],
    reach_ms: int,
    status: NDArray[np.int8],
    asked_slots: NDArray[np.int64],
    asked_ms: NDArray[np.int64],
    oldest_ms: NDArray[np.int64],
    ahead: NDArray[np.int64],
    results: Results,
    done: NDArray[np.int64],
) -> bool:
    """Fold statements and answer questions in turn, from ``done`` on; return False if the slab must grow first.

    Before question i, statements up to ``ahead[i]`` are folded; the rest after the last question.
    """
    for i in range(done[ASKED], len(asked_slots) + 1):
        last = i == len(asked_slots)
        until = len(slots) if last else ahead[i]
        for k in range(done[REVISED], until):
            if not _revise(state, plan, slots[k], known_at_ms[k], ids[k], bits, k, least_us[k], reach_ms, status):
                return False
            done[REVISED] = k + 1
        if not last:
            slot = asked_slots[i]
            if slot > 0 and state.narrow[slot, LENGTH] > 0:
                _stand(state, plan, slot, asked_ms[i])
                _evict(state, slot, min(oldest_ms[i], asked_ms[i]) - plan.longest_ms)
            answer(state, plan, slot, state.wide[slot, BASE], int(state.wide[slot, END]), results, i)
            done[ASKED] = i + 1
    return True


@kernel
def ask_slots(
    state: State, plan: Plan, slots: NDArray[np.int64], times_ms: NDArray[np.int64], results: Results
) -> None:
    """Write the features of slots (0 for a key without entries) as of these times."""
    for i in range(len(slots)):
        slot = slots[i]
        if slot > 0 and state.narrow[slot, LENGTH] > 0:
            _stand(state, plan, slot, times_ms[i])
        answer(state, plan, slot, state.wide[slot, BASE], int(state.wide[slot, END]), results, i)


@inline
def _revise(
    state: State,
    plan: Plan,
    slot: int,
    t: int,
    event_id: int,
    bits: NDArray[np.int64],
    k: int,
    least_us: int,
    reach_ms: int,
    status: NDArray[np.int8],
) -> bool:
    """Take statement k into a slot; return False, having changed nothing, if the slab must grow."""
    revision = bits.shape[1] - 1
    place = find(state.ids, event_id)
    if t < -TIME_LIMIT_MS or t > TIME_LIMIT_MS or (place < 0 and t <= reach_ms):
        status[k] = LATE
        return True
    if place >= 0:
        row = _row_of(state, slot, state.ids[place, 1], event_id)
        if row < 0 or state.slab[row, 2 + revision] >= bits[k, revision]:
            status[k] = DUPLICATE
            return True
        _remove(state, plan, slot, row)
    else:
        fresh, head = state.narrow[slot, LENGTH] == 0, state.narrow[slot, HEAD]
        if not make_room(state, plan, slot):
            return False
        state.wide[slot, END] -= head - state.narrow[slot, HEAD]
        if fresh:
            state.wide[slot, END] = state.narrow[slot, HEAD]
            state.wide[slot, AT_MS] = NO_TIME_MS
            state.wide[slot, FEATURE_TIME_US] = NO_TIME_MS
    at = insert(state, slot, t, event_id, bits, k)
    if t <= state.wide[slot, AT_MS]:
        state.wide[slot, END] += 1
        admit(state, plan, slot, state.wide[slot, AT_MS], t, at)
    state.counters[IDS] += put(state.ids, event_id, t)
    state.wide[slot, FEATURE_TIME_US] = max(t * 1000, state.wide[slot, FEATURE_TIME_US] + 1, least_us)
    if not state.narrow[slot, FLAGS] & TOUCHED:
        state.touched[state.counters[TOUCHES]] = slot
        state.counters[TOUCHES] += 1
    state.narrow[slot, FLAGS] |= TOUCHED | DIRTY
    return True


@inline
def _row_of(state: State, slot: int, t: int, event_id: int) -> int:
    """Return the row in the slab of a slot's entry, or -1: the id is another key's."""
    low = int(state.wide[slot, BASE] + state.narrow[slot, HEAD])
    high = end = low + int(state.narrow[slot, LENGTH])
    while low < high:
        middle = (low + high) // 2
        if state.slab[middle, 0] < t:
            low = middle + 1
        else:
            high = middle
    while low < end and state.slab[low, 0] == t:
        if state.slab[low, 1] == event_id:
            return low
        low += 1
    return -1


@inline
def _remove(state: State, plan: Plan, slot: int, row: int) -> None:
    """Take an entry out of its slot, and of the windows it stands in."""
    t, at_ms = state.slab[row, 0], state.wide[slot, AT_MS]
    if t <= at_ms:
        for w in range(len(plan.windows_ms)):
            if t > at_ms - plan.windows_ms[w]:
                book(state, plan, slot, w, row, LEAVE)
            else:
                state.narrow[slot, TAILS + w] -= 1
        state.wide[slot, END] -= 1
    last = state.wide[slot, BASE] + state.narrow[slot, HEAD] + state.narrow[slot, LENGTH] - 1
    for k in range(row, last):
        copy(state.slab, k + 1, k)
    state.narrow[slot, LENGTH] -= 1


@inline
def _stand(state: State, plan: Plan, slot: int, t: int) -> None:
    """Move a slot's windows to end at time ``t``."""
    slab, base, head = state.slab, state.wide[slot, BASE], state.narrow[slot, HEAD]
    stop = head + state.narrow[slot, LENGTH]
    end = state.wide[slot, END]
    while end < stop and slab[base + end, 0] <= t:
        for w in range(len(plan.windows_ms)):
            book(state, plan, slot, w, base + end, ENTER)
        end += 1
    while end > head and slab[base + end - 1, 0] > t:
        end -= 1
        for w in range(len(plan.windows_ms)):
            if end >= state.narrow[slot, TAILS + w]:
                book(state, plan, slot, w, base + end, LEAVE)
    for w in range(len(plan.windows_ms)):
        tail = state.narrow[slot, TAILS + w]
        while tail < end and slab[base + tail, 0] <= t - plan.windows_ms[w]:
            book(state, plan, slot, w, base + tail, LEAVE)
            tail += 1
        while tail > head and slab[base + tail - 1, 0] > t - plan.windows_ms[w]:
            tail -= 1
            if tail < end:
                book(state, plan, slot, w, base + tail, ENTER)
        state.narrow[slot, TAILS + w] = tail
    state.wide[slot, END] = end
    state.wide[slot, AT_MS] = t


@fused
def _evict(state: State, slot: int, until: int) -> None:
    """Drop entries of time ``until`` and before, but never the newest: a slot in use has an entry."""
    base = state.wide[slot, BASE]
    while state.narrow[slot, LENGTH] > 1 and state.slab[base + state.narrow[slot, HEAD], 0] <= until:
        forget(state, base + state.narrow[slot, HEAD])
        state.narrow[slot, HEAD] += 1
        state.narrow[slot, LENGTH] -= 1
