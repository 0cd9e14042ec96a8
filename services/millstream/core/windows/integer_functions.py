"""Aggregations over integer columns: exact, rounded at most once, rejected when out of range."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline
from millstream.core.windows.exact_sum import WORDS, rounded
from millstream.core.windows.id_table import home
from millstream.core.windows.integer_arithmetic import EXACT, whole_mean, whole_sum, whole_variance
from millstream.core.windows.plan import (
    BIT,
    CELL,
    COLUMN,
    COUNT,
    COUNT_DISTINCT,
    FIRST,
    FLOAT32,
    FLOAT64,
    FUNCTION,
    INT32,
    INT64,
    LAST,
    MAX,
    MEAN,
    MIN,
    STD,
    SUM,
    TYPE,
    VAR,
    WINDOW,
    Plan,
)
from millstream.core.windows.state import TAILS, Results, State

FLOAT32_LIMIT = 2.0**128 - 2.0**103
"""From here on a double becomes infinite as a float."""
_TOP = 2.0**63


@inline
def answer_whole(state: State, plan: Plan, slot: int, base: int, end: int, results: Results, i: int, f: int) -> None:
    """Write feature ``f`` of row ``i``, which is over a column of whole numbers; see `answer` for the rest."""
    function, cell = plan.features[f, FUNCTION], plan.features[f, CELL]
    if cell >= 0:
        count = state.narrow[slot, TAILS + len(plan.windows_ms) + cell]
        if count == 0 or function in (COUNT, SUM, MEAN):
            _answer_running(state, (slot * len(plan.cells) + cell) * WORDS, count, plan.features[f], results, i, f)
            return
    low = base + state.narrow[slot, TAILS + plan.features[f, WINDOW]]
    values = np.empty(base + end - low, dtype=np.int64)
    count = _gather(state, plan, low, base + end, f, values)
    if function in (VAR, STD):
        value = whole_variance(values, count)
        value = math.sqrt(value) if function == STD else value
        if plan.features[f, TYPE] == FLOAT32 and value >= FLOAT32_LIMIT:
            results.beyond[f] += 1
        else:
            results.reals[i, f] = value
    elif function == COUNT_DISTINCT:
        _put_whole(results, i, f, _distinct(values, count), plan.features[f, TYPE])
    elif count > 0:
        _put_whole(results, i, f, _chosen(values, count, function), plan.features[f, TYPE])


@fused
def _answer_running(
    state: State, at: int, count: int, feature: NDArray[np.int64], results: Results, i: int, f: int
) -> None:
    """Write what follows from a cell's count and its sum, ``state.sums[at : at + 4]``."""
    function, kind = feature[FUNCTION], feature[TYPE]
    if function == COUNT or (function == SUM and count == 0):
        _put_whole(results, i, f, count, kind)
    elif function == MEAN and count > 0:
        results.reals[i, f] = whole_mean(state.sums, at, count)
    elif function == SUM and kind in (FLOAT64, FLOAT32):
        results.reals[i, f] = rounded(state.sums, at)
    elif function == SUM:
        total, fits = whole_sum(state.sums, at)
        if fits:
            _put_whole(results, i, f, total, kind)
        else:
            results.beyond[f] += 1


@fused
def _put_whole(results: Results, i: int, f: int, value: int, kind: int) -> None:
    """Write a whole number as the declared type, or leave null and count what the type cannot hold."""
    real = float(value)
    fits = True
    if kind == INT32:
        fits = -(2**31) <= value < 2**31
    elif kind == FLOAT64 and not (-EXACT <= value <= EXACT):
        fits = real < _TOP and np.int64(real) == value
    if not fits:
        results.beyond[f] += 1
        return
    results.reals[i, f] = real
    if results.wholes.shape[1] > 0 and (kind in (INT64, INT32)):
        results.wholes[i, f] = value


@fused
def _gather(state: State, plan: Plan, low: int, high: int, f: int, values: NDArray[np.int64]) -> int:
    """Copy a column's values that are not null from the entries ``low`` to before ``high``; return how many."""
    column, bit = 2 + plan.features[f, COLUMN], plan.features[f, BIT]
    count = 0
    if bit < 0:
        for k in range(low, high):
            if not np.isnan(state.reals[k, column]):
                values[count] = np.int64(state.reals[k, column])
                count += 1
        return count
    nulls = 2 + plan.columns + (bit >> 6)
    for k in range(low, high):
        if (state.slab[k, nulls] >> (bit & 63)) & 1 == 0:
            values[count] = state.slab[k, column]
            count += 1
    return count


@inline
def _chosen(values: NDArray[np.int64], count: int, function: int) -> int:
    """Return the least, greatest, first or last of so many values, one at least."""
    if function == FIRST:
        return int(values[0])
    found = values[count - 1]
    if function != LAST:
        for k in range(count):
            if (function == MIN and values[k] < found) or (function == MAX and values[k] > found):
                found = values[k]
    return int(found)


@inline
def _distinct(values: NDArray[np.int64], count: int) -> int:
    """Return how many different values there are among the first ``count``."""
    capacity = 4
    while capacity < 2 * count:
        capacity *= 2
    seen = np.empty(capacity, dtype=np.int64)
    used = np.zeros(capacity, dtype=np.bool_)
    found = 0
    for k in range(count):
        place = home(values[k], capacity - 1)
        while used[place] and seen[place] != values[k]:
            place = (place + 1) & (capacity - 1)
        if not used[place]:
            used[place] = True
            seen[place] = values[k]
            found += 1
    return found
