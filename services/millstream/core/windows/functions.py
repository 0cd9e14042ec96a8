"""Features of one key at one time, from its running cells and its entries."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline
from millstream.core.windows.exact_sum import WORDS, accumulate, rounded
from millstream.core.windows.id_table import home
from millstream.core.windows.integer_functions import FLOAT32_LIMIT, answer_whole
from millstream.core.windows.plan import (
    CELL,
    COLUMN,
    COUNT,
    COUNT_DISTINCT,
    FIRST,
    FLOAT32,
    FUNCTION,
    LAST,
    MAX,
    MEAN,
    MIN,
    STD,
    SUM,
    TYPE,
    VAR,
    WHOLE,
    WINDOW,
    Plan,
)
from millstream.core.windows.state import TAILS, Results, State


@fused
def answer(state: State, plan: Plan, slot: int, base: int, end: int, results: Results, i: int) -> None:
    """Write row ``i`` of the features of the windows a slot stands at; NaN where a function has no value.

    Parameters
    ----------
    slot : int
        Whose tails, counts and sums to use.
    base, end : int
        The key's segment, and the entry (counted from there) before which the windows end.
    """
    counts_at = TAILS + len(plan.windows_ms)
    sums_at = slot * len(plan.cells) * WORDS
    for f in range(len(plan.features)):
        function = plan.features[f, FUNCTION]
        cell = plan.features[f, CELL]
        if len(plan.wholes) > 0 and plan.features[f, WHOLE] != 0:
            answer_whole(state, plan, slot, base, end, results, i, f)
            continue
        if cell >= 0:
            count = state.narrow[slot, counts_at + cell]
            if function == COUNT:
                results.reals[i, f] = count
                if len(plan.exact) > 0:
                    results.wholes[i, f] = count
            elif count == 0:
                results.reals[i, f] = 0.0 if function == SUM else np.nan
            else:
                total = rounded(state.sums, sums_at + WORDS * cell)
                results.reals[i, f] = total if function == SUM else total / count
            if function in (COUNT, SUM, MEAN) or count == 0:
                continue
        value = _scanned(
            state.reals,
            base + state.narrow[slot, TAILS + plan.features[f, WINDOW]],
            base + end,
            2 + plan.features[f, COLUMN],
            function,
            results.reals[i, f],
        )
        if len(plan.exact) > 0 and function == COUNT_DISTINCT:
            results.wholes[i, f] = int(value)
        # Of doubles below 2**90, only squares are beyond a float.
        if plan.features[f, TYPE] == FLOAT32 and value >= FLOAT32_LIMIT:
            value = np.nan
            results.beyond[f] += 1
        results.reals[i, f] = value


@inline
def _scanned(reals: NDArray[np.float64], low: int, high: int, column: int, function: int, mean: float) -> float:
    """Return what a look through the entries ``low`` to before ``high`` finds; ``mean`` is theirs where needed."""
    if function == COUNT_DISTINCT:
        return _distinct(reals, low, high, column)
    if function in (VAR, STD):
        variance = _variance(reals, low, high, column, mean)
        return math.sqrt(variance) if function == STD else variance
    return _chosen(reals, low, high, column, function)


@inline
def _chosen(reals: NDArray[np.float64], low: int, high: int, column: int, function: int) -> float:
    """Return the least, greatest, first or last value, or NaN if there is none."""
    found = np.nan
    for k in range(low, high):
        value = reals[k, column]
        if np.isnan(value):
            continue
        if np.isnan(found) or function == LAST:
            found = value
        elif function == FIRST:
            break
        elif (function == MIN and value < found) or (function == MAX and value > found):
            found = value
    return found


@inline
def _variance(reals: NDArray[np.float64], low: int, high: int, column: int, mean: float) -> float:
    """Return the sample variance, NaN for a single value.

    Corrected two-pass: squares of deviations from the rounded mean, less what the mean's rounding adds. Deviations are
    scaled by a power of two to at most 1, so that their squares fit the exact sums whatever their size.

    References
    ----------
    .. [1] T. Chan, G. Golub, R. LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician
       37(3), 1983, eq. 1.7.
    """
    largest = 0.0
    count = 0
    for k in range(low, high):
        value = reals[k, column]
        if not np.isnan(value):
            largest = max(largest, abs(value - mean))
            count += 1
    if count < 2:
        return math.nan
    if largest == 0.0:
        return 0.0
    exponent = math.frexp(largest)[1]
    sums = np.zeros(2 * WORDS, dtype=np.uint64)
    scaled = np.empty(2)
    bits = scaled.view(np.int64)
    for k in range(low, high):
        value = reals[k, column]
        if not np.isnan(value):
            scaled[0] = math.ldexp(value - mean, -exponent)
            scaled[1] = scaled[0] * scaled[0]
            for part in range(2):
                accumulate(sums, WORDS * part, bits[part])
    for part in range(2):
        scaled[part] = rounded(sums, WORDS * part)
    variance = max(scaled[1] - scaled[0] * scaled[0] / count, 0.0) / (count - 1)
    return math.ldexp(variance, 2 * exponent)


@inline
def _distinct(reals: NDArray[np.float64], low: int, high: int, column: int) -> float:
    """Return how many different values there are, 0 if none."""
    capacity = 4
    while capacity < 2 * (high - low):
        capacity *= 2
    seen = np.full(capacity, np.nan)
    scratch = np.empty(1)
    bits = scratch.view(np.int64)
    found = 0
    for k in range(low, high):
        value = reals[k, column]
        if np.isnan(value):
            continue
        scratch[0] = value + 0.0
        place = home(bits[0], capacity - 1)
        while not np.isnan(seen[place]) and seen[place] != value:
            place = (place + 1) & (capacity - 1)
        if np.isnan(seen[place]):
            seen[place] = value
            found += 1
    return float(found)
