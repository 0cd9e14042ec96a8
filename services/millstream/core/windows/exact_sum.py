"""Sums of doubles that are exact, so that they depend neither on order nor on grouping.

A sum is an integer of 256 bits in two's complement, 128 of them after the binary point: a superaccumulator of fixed
size. A value is rounded once, to a multiple of 2**-128 (values of 2**-76 and more are not changed at all), and from
then on adding and subtracting are integer arithmetic: a window may take its oldest value away again and be left with
what a fresh sum would give, bit for bit. With values below 2**90, 2**37 of them fit.

References
----------
.. [1] U. Kulisch, "Computer Arithmetic and Validity", 2nd ed., 2013, chapter 8, "Scalar products and complete
   arithmetic".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask
from millstream.core.jit import fused

WORDS = 4
LIMIT = 2.0**90
NEGATED = -(2**63)  # exclusive-or of a double's bits with this changes its sign
_POINT = 128
_FRACTION = (1 << 52) - 1
_BELOW = 52  # a sum of one bit still becomes a mantissa of 53
_POWERS = np.ldexp(1.0, np.arange(-_POINT - _BELOW, 64 * WORDS - _POINT))


def representable(values: NDArray[np.float64]) -> Mask:
    """Return where a value may be summed: below 2**90 (1.2e27) in size, or NaN, which stands for null."""
    return np.isnan(values) | (np.abs(values) < LIMIT)


@fused
def _placed(bits: int) -> tuple[np.uint64, int]:
    """Return a double's size as (integer, position of its last bit in the accumulator), rounded half to even."""
    exponent = (bits >> 52) & 0x7FF
    mantissa = np.uint64(bits & _FRACTION)
    if exponent == 0:
        exponent = 1
    else:
        mantissa |= np.uint64(1 << 52)
    place = exponent - 1075 + _POINT
    if place >= 0:
        return mantissa, place
    if place < -54:
        return np.uint64(0), 0
    down = np.uint64(-place)
    kept = mantissa >> down
    rest = mantissa - (kept << down)
    half = np.uint64(1) << (down - np.uint64(1))
    if rest > half or (rest == half and (kept & np.uint64(1)) == np.uint64(1)):
        kept += np.uint64(1)
    return kept, 0


@fused
def accumulate(words: NDArray[np.uint64], at: int, bits: int) -> None:
    """Add a double to the sum in ``words[at : at + 4]`` (least first); to take it away, add it with `NEGATED` bits.

    Parameters
    ----------
    bits : int
        The double's 64 bits as int64; finite and below 2**90 in size.
    """
    mantissa, place = _placed(bits)
    word = at + (place >> 6)
    shift = np.uint64(place & 63)
    low = mantissa << shift
    high = (mantissa >> np.uint64(1)) >> (np.uint64(63) - shift)  # in two steps: a shift by 64 is undefined
    old = words[word]
    if bits >= 0:
        words[word] = old + low
        high += np.uint64(words[word] < low)
        words[word + 1] += high
        carry = words[word + 1] < high
        for k in range(word + 2, at + WORDS):
            if not carry:
                break
            words[k] += np.uint64(1)
            carry = words[k] == np.uint64(0)
    else:
        words[word] = old - low
        high += np.uint64(old < low)
        old = words[word + 1]
        words[word + 1] = old - high
        carry = old < high
        for k in range(word + 2, at + WORDS):
            if not carry:
                break
            carry = words[k] == np.uint64(0)
            words[k] -= np.uint64(1)


@fused
def _magnitude(words: NDArray[np.uint64], k: int, lowest: int, negative: bool) -> np.uint64:
    """Return word ``k`` of the sum's size; ``lowest`` is the first word that is not zero."""
    word: np.uint64 = words[k]
    if negative and k >= lowest:
        # -x is ~x + 1 in two's complement, and that 1 is carried through zero words only
        word = ~word + np.uint64(1) if k == lowest else ~word
    return word


@fused
def rounded(words: NDArray[np.uint64], at: int) -> float:
    """Return the sum in ``words[at : at + 4]`` as the nearest double, half to even; zero is +0.0."""
    top = at + WORDS - 1
    negative = bool(np.int64(words[top]) < 0)
    lowest = at
    while lowest < top and words[lowest] == np.uint64(0):
        lowest += 1
    k = top
    lead = np.uint64(0)
    while k >= at:
        lead = _magnitude(words, k, lowest, negative)
        if lead != np.uint64(0):
            break
        k -= 1
    if k < at:
        return 0.0
    room = 0
    for step in (32, 16, 8, 4, 2, 1):
        if (lead >> np.uint64(64 - step)) == np.uint64(0):
            lead <<= np.uint64(step)
            room += step
    sticky = False
    if k > at:
        below = _magnitude(words, k - 1, lowest, negative)
        if room > 0:
            lead |= below >> np.uint64(64 - room)
            sticky = (below << np.uint64(room)) != np.uint64(0)
        else:
            sticky = below != np.uint64(0)
        sticky = sticky or lowest < k - 1
    kept = lead >> np.uint64(11)
    rest = lead & np.uint64(0x7FF)
    half = np.uint64(0x400)
    if rest > half or (rest == half and (sticky or (kept & np.uint64(1)) == np.uint64(1))):
        kept += np.uint64(1)
    value = float(np.int64(kept)) * float(_POWERS[(k - at) * 64 + 11 - room + _BELOW])
    return -value if negative else value
