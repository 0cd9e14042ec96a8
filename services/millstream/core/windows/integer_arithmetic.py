"""Exact integer sums, means and variances, rounded once.

Beyond 64 bits a number is a row of digits to the base 2**32, least first, each in a uint64 of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline

EXACT = 2**53
"""Whole numbers up to here are doubles."""
_DIGIT = 0xFFFFFFFF


@fused
def add_whole(words: NDArray[np.uint64], at: int, value: int, change: int) -> None:
    """Add a whole number to the sum in ``words[at : at + 4]`` of `millstream.core.windows.exact_sum`, or take it away.

    Parameters
    ----------
    change : int
        1 to add it, -1 to take it away.
    """
    low = np.uint64(value)
    old = words[at + 2]
    # The sign's bits, and the carry: together they leave the top word alone, or add or take one.
    if change > 0:
        words[at + 2] = old + low
        words[at + 3] += np.uint64(words[at + 2] < low) - np.uint64(value < 0)
    else:
        words[at + 2] = old - low
        words[at + 3] -= np.uint64(old < low) - np.uint64(value < 0)


@fused
def whole_sum(words: NDArray[np.uint64], at: int) -> tuple[int, bool]:
    """Return the sum of whole numbers in ``words[at : at + 4]`` as int64, and whether it is one."""
    low = np.int64(words[at + 2])
    return int(low), bool(np.int64(words[at + 3]) == (low >> np.int64(63)))


@inline
def whole_mean(words: NDArray[np.uint64], at: int, count: int) -> float:
    """Return the sum of whole numbers in ``words[at : at + 4]`` by their count, rounded once."""
    low, fits = whole_sum(words, at)
    if fits and -EXACT <= low <= EXACT:
        return float(low) / count
    negative = bool(np.int64(words[at + 3]) < 0)
    first, second = words[at + 2], words[at + 3]
    if negative:
        first = ~first + np.uint64(1)
        second = ~second + np.uint64(first == np.uint64(0))
    digits = np.zeros(6, dtype=np.uint64)  # two of them fraction: the quotient has 86 bits at least
    _put(digits, 2, first)
    _put(digits, 4, second)
    sticky = _divide(digits, np.uint64(count))
    mean = _rounded(digits, sticky, 64)
    return -mean if negative else mean


@inline
def whole_variance(values: NDArray[np.int64], count: int) -> float:
    """Return the sample variance of the first ``count`` values, rounded once; NaN for a single one.

    (n * sum of squares - square of the sum) / (n * (n - 1)) of their distances from the least.
    """
    if count < 2:
        return math.nan
    least = values[0]
    for k in range(1, count):
        least = min(least, values[k])
    total = np.zeros(4, dtype=np.uint64)
    squares = np.zeros(6, dtype=np.uint64)
    for k in range(count):
        distance = np.uint64(values[k]) - np.uint64(least)
        low, high = distance & np.uint64(_DIGIT), distance >> np.uint64(32)
        _add_product(total, 0, low, np.uint64(1))
        _add_product(total, 1, high, np.uint64(1))
        _add_product(squares, 0, low, low)
        _add_product(squares, 1, low, high)
        _add_product(squares, 1, low, high)
        _add_product(squares, 2, high, high)
    # The square of the sum is smaller, and both are below 2**190.
    scaled = np.zeros(6, dtype=np.uint64)
    square = np.zeros(8, dtype=np.uint64)
    for j in range(6):
        if j < 5:
            _add_product(scaled, j, squares[j], np.uint64(count))
        else:
            scaled[5] += squares[5] * np.uint64(count)
    for j in range(3):
        for k in range(3):
            _add_product(square, j + k, total[j], total[k])
    digits = np.zeros(12, dtype=np.uint64)  # half of them fraction: the quotient has 130 bits at least, or is zero
    borrow = np.uint64(0)
    for j in range(6):
        taken = square[j] + borrow
        borrow = np.uint64(scaled[j] < taken)
        digits[6 + j] = (scaled[j] + (borrow << np.uint64(32))) - taken
    sticky = _divide(digits, np.uint64(count))
    sticky = _divide(digits, np.uint64(count - 1)) or sticky
    return _rounded(digits, sticky, 192)


@fused
def _put(digits: NDArray[np.uint64], at: int, word: np.uint64) -> None:
    digits[at] = word & np.uint64(_DIGIT)
    digits[at + 1] = word >> np.uint64(32)


@fused
def _add_product(digits: NDArray[np.uint64], at: int, one: np.uint64, other: np.uint64) -> None:
    """Add the product of two digits; there must be a place for every carry."""
    product = one * other
    carry = digits[at] + (product & np.uint64(_DIGIT))
    digits[at] = carry & np.uint64(_DIGIT)
    carry = digits[at + 1] + (product >> np.uint64(32)) + (carry >> np.uint64(32))
    digits[at + 1] = carry & np.uint64(_DIGIT)
    k = at + 2
    carry >>= np.uint64(32)
    while carry != np.uint64(0):
        carry += digits[k]
        digits[k] = carry & np.uint64(_DIGIT)
        carry >>= np.uint64(32)
        k += 1


@fused
def _divide(digits: NDArray[np.uint64], divisor: np.uint64) -> bool:
    """Divide by a number below 2**31; return whether there is a remainder."""
    rest = np.uint64(0)
    for k in range(len(digits) - 1, -1, -1):
        dividend = (rest << np.uint64(32)) | digits[k]
        digits[k] = dividend // divisor
        rest = dividend - digits[k] * divisor
    return bool(rest != np.uint64(0))


@fused
def _rounded(digits: NDArray[np.uint64], sticky: bool, fraction: int) -> float:
    """Return the nearest double, half to even, of digits with so many bits of fraction; ``sticky``: more follows."""
    top = len(digits) - 1
    while top >= 0 and digits[top] == np.uint64(0):
        top -= 1
    if top < 2:
        return 0.0
    # The 64 leading bits; what is below only matters for rounding.
    room = 0
    while (digits[top] << np.uint64(room + 1)) >> np.uint64(32) == np.uint64(0):
        room += 1
    lead = (digits[top] << np.uint64(32 + room)) | (digits[top - 1] << np.uint64(room))
    lead |= digits[top - 2] >> np.uint64(32 - room)
    sticky = sticky or ((digits[top - 2] << np.uint64(room)) & np.uint64(_DIGIT)) != np.uint64(0)
    for k in range(top - 2):
        sticky = sticky or digits[k] != np.uint64(0)
    kept = lead >> np.uint64(11)
    rest = lead & np.uint64(0x7FF)
    half = np.uint64(0x400)
    if rest > half or (rest == half and (sticky or (kept & np.uint64(1)) == np.uint64(1))):
        kept += np.uint64(1)
    return math.ldexp(float(np.int64(kept)), (top - 1) * 32 - room + 11 - fraction)
