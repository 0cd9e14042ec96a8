"""Maintenance of whole keys: reading their newest features, restoring them, expiring idle ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import kernel
from millstream.core.windows.duplicates import duplicate_horizon_ms
from millstream.core.windows.exact_sum import WORDS
from millstream.core.windows.functions import answer
from millstream.core.windows.id_table import find, put
from millstream.core.windows.kernel import ENTER, allocate, book, forget, size_for, surrender
from millstream.core.windows.plan import Plan
from millstream.core.windows.state import (
    ALL,
    BASE,
    FEATURE_TIME_US,
    FLAGS,
    HEAD,
    IDS,
    LENGTH,
    PARTS,
    SIZE,
    TAILS,
    TOUCHES,
    WATERMARK_MS,
    Results,
    State,
)
from millstream.core.windows.watermark import advance, set_watermark


@kernel
def answer_slots(state: State, plan: Plan, slots: NDArray[np.int64], results: Results) -> None:
    """Write the features of slots as of their newest entries."""
    for i in range(len(slots)):
        slot = slots[i]
        end = state.narrow[slot, HEAD] + state.narrow[slot, LENGTH]
        answer(state, plan, slot, state.wide[slot, BASE], end, results, i)


@kernel
def restore(
    state: State,
    plan: Plan,
    slots: NDArray[np.int64],
    lengths: NDArray[np.int64],
    feature_time_us: NDArray[np.int64],
    parts: NDArray[np.int64],
    entries: NDArray[np.int64],
) -> int:
    """Fill empty slots with entries lying end to end; the slab must be large enough.

    Running cells are recomputed: they are exact, so they equal the ones that were never stored.

    Returns
    -------
    int
        Position in ``slots`` of the first whose entries are out of order, or -1.
    """
    start = 0
    for i in range(len(slots)):
        slot, length = slots[i], lengths[i]
        size = size_for(length)
        base = allocate(state, size)
        state.wide[slot, BASE] = base
        state.wide[slot, FEATURE_TIME_US] = feature_time_us[i]
        state.narrow[slot, SIZE] = size
        state.narrow[slot, LENGTH] = length
        state.narrow[slot, PARTS] = parts[i]
        for k in range(length):
            t, event_id = entries[start + k, 0], entries[start + k, 1]
            if k > 0 and entries[start + k - 1, 0] > t:
                return i
            for column in range(entries.shape[1]):
                state.slab[base + k, column] = entries[start + k, column]
            place = find(state.ids, event_id)
            if place < 0 or state.ids[place, 1] < t:
                state.counters[IDS] += put(state.ids, event_id, t)
        start += length
        newest = state.slab[base + length - 1, 0]
        for w in range(len(plan.windows_ms)):
            tail = length
            while tail > 0 and state.slab[base + tail - 1, 0] > newest - plan.windows_ms[w]:
                tail -= 1
                book(state, plan, slot, w, base + tail, ENTER)
            state.narrow[slot, TAILS + w] = tail
    return -1


@kernel
def restore_clocks(state: State, plan: Plan, slots: NDArray[np.int64]) -> None:
    """Set the clocks by what is restored: those of a first stage follow from its keys' newest entries."""
    for i in range(len(slots) if not plan.later else 0):
        slot = slots[i]
        last = state.wide[slot, BASE] + state.narrow[slot, HEAD] + state.narrow[slot, LENGTH] - 1
        advance(state.clocks, ALL, slot, state.slab[last, 0])
    set_watermark(state.clocks, state.counters, plan)


@kernel
def idle(state: State, plan: Plan, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the slots in use which no later event can distinguish from absent ones.

    An event that is not late is newer than ``oldest``, its windows reach back to ``reach``, which is also the duplicate
    horizon; its feature time is its own, unless the key's last one ran ahead of it.
    """
    oldest = state.counters[WATERMARK_MS]
    reach = duplicate_horizon_ms(state.counters, plan)
    found = np.empty(len(slots), dtype=np.int64)
    count = 0
    for i in range(len(slots)):
        slot = slots[i]
        newest = state.slab[state.wide[slot, BASE] + state.narrow[slot, HEAD] + state.narrow[slot, LENGTH] - 1, 0]
        if newest < reach and state.wide[slot, FEATURE_TIME_US] < oldest * 1000:
            found[count] = slot
            count += 1
    return found[:count]


@kernel
def drop(state: State, plan: Plan, slots: NDArray[np.int64]) -> None:
    """Empty slots and give their segments back."""
    width = len(plan.cells) * WORDS
    for i in range(len(slots)):
        slot = slots[i]
        first = state.wide[slot, BASE] + state.narrow[slot, HEAD]
        for k in range(state.narrow[slot, LENGTH]):
            forget(state, first + k)
        surrender(state, slot)
        for column in range(state.narrow.shape[1]):
            state.narrow[slot, column] = 0
        state.narrow[slot, SIZE] = -1
        for k in range(slot * width, (slot + 1) * width):
            state.sums[k] = 0


@kernel
def untouch(state: State, mask: int) -> None:
    """Clear the flag ``mask`` of the slots that the last batch touched."""
    for i in range(state.counters[TOUCHES]):
        state.narrow[state.touched[i], FLAGS] &= ~mask
    state.counters[TOUCHES] = 0
