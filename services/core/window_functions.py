"""Features of one key at one time, from its running cells and its entries."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from services.core.exact_sum import WORDS, accumulate, rounded
from services.core.id_table import home
from services.core.jit import inline
from services.core.window_plan import (
    CELL,
    COLUMN,
    COUNT,
    COUNT_DISTINCT,
    FIRST,
    FUNCTION,
    LAST,
    MAX,
    MEAN,
    MIN,
    STD,
    SUM,
    VAR,
    WINDOW,
    Plan,
)


@inline
def answer(
    plan: Plan,
    tails: NDArray[np.int32],
    counts: NDArray[np.int32],
    sums: NDArray[np.uint64],
    at: int,
    reals: NDArray[np.float64],
    base: int,
    end: int,
    out: NDArray[np.float64],
) -> None:
    """Write the features of the windows that end before entry ``end``; NaN where a function has nothing to tell.

    Parameters
    ----------
    tails : int32 ndarray of shape (windows,)
        First entry of each window, counted from ``base``.
    counts : int32 ndarray of shape (cells,)
        Values that are not null.
    sums : uint64 ndarray
        Sums, four words per cell, from ``at`` on.
    reals : float64 ndarray of shape (rows, 2 + columns)
        Entries; the values are in columns 2 and up, NaN is null.
    """
    for f in range(len(plan.features)):
        function = plan.features[f, FUNCTION]
        cell = plan.features[f, CELL]
        if function == COUNT:
            out[f] = counts[cell]
            continue
        if cell >= 0 and counts[cell] == 0:
            out[f] = np.nan
            continue
        place = at + WORDS * cell
        column = 2 + plan.features[f, COLUMN]
        low, high = base + tails[plan.features[f, WINDOW]], base + end
        if function == SUM:
            out[f] = rounded(sums, place)
        elif function == MEAN:
            out[f] = rounded(sums, place) / counts[cell]
        elif function in (VAR, STD):
            variance = _variance(reals, low, high, column, counts[cell], rounded(sums, place) / counts[cell])
            out[f] = math.sqrt(variance) if function == STD else variance
        elif function == COUNT_DISTINCT:
            out[f] = _distinct(reals, low, high, column)
        else:
            out[f] = _chosen(reals, low, high, column, function)


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
    return found + 0.0  # -0.0 and 0.0 are equal, so which one came first must not show


@inline
def _variance(reals: NDArray[np.float64], low: int, high: int, column: int, count: int, mean: float) -> float:
    """Return the sample variance, NaN for a single value.

    Corrected two-pass: squares of deviations from the rounded mean, less what the mean's rounding adds. Deviations are
    scaled by a power of two to at most 1, so that their squares fit the exact sums whatever their size.

    References
    ----------
    .. [1] T. Chan, G. Golub, R. LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician
       37(3), 1983, eq. 1.7.
    """
    if count < 2:
        return np.nan
    largest = 0.0
    for k in range(low, high):
        value = reals[k, column]
        if not np.isnan(value):
            largest = max(largest, abs(value - mean))
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
            accumulate(sums, 0, bits[0], False)
            accumulate(sums, WORDS, bits[1], False)
    excess = rounded(sums, 0)
    variance = max(rounded(sums, WORDS) - excess * excess / count, 0.0) / (count - 1)
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
