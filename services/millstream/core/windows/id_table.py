"""A hash table from int64 to int64 in one array: linear probing, deletion by shifting back.

A table is an int64 array of shape (capacity, 2), capacity a power of two: number, value; ``VACANT`` as the value marks
a free place. It never grows on `put`: call `roomy` before.

References
----------
.. [1] D. Knuth, "The Art of Computer Programming", vol. 3, 2nd ed., 1998, section 6.4, algorithms L and R.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, kernel

VACANT = -(2**63)
_GOLDEN = 0x9E3779B97F4A7C15


def new_table(capacity: int) -> NDArray[np.int64]:
    """Return an empty table; ``capacity`` is a power of two."""
    return np.full((capacity, 2), VACANT, dtype=np.int64)


def roomy(table: NDArray[np.int64], used: int, more: int) -> NDArray[np.int64]:
    """Return the table, or a larger copy where ``more`` insertions would fill over 3/4 of it."""
    need = used + more
    if 4 * need <= 3 * len(table):
        return table
    larger = new_table(1 << (4 * need // 3).bit_length())
    _refill(table, larger)
    return larger


@fused
def home(number: int, mask: int) -> int:
    """Return where a number belongs by its hash."""
    mixed = np.uint64(number) * np.uint64(_GOLDEN)
    return int(np.int64(mixed ^ (mixed >> np.uint64(32))) & mask)


@fused
def find(table: NDArray[np.int64], number: int) -> int:
    """Return the place of a number, or -1 - p where p is the free place it would take."""
    mask = len(table) - 1
    place = home(number, mask)
    while table[place, 1] != VACANT:
        if table[place, 0] == number:
            return place
        place = (place + 1) & mask
    return -1 - place


@fused
def put(table: NDArray[np.int64], number: int, value: int) -> int:
    """Set a number's value; return 1 if the number is new, else 0."""
    place = find(table, number)
    fresh = 0
    if place < 0:
        place = -1 - place
        fresh = 1
    table[place, 0] = number
    table[place, 1] = value
    return fresh


@fused
def erase(table: NDArray[np.int64], place: int) -> None:
    """Free a place and close the gap, so that no search ends early."""
    mask = len(table) - 1
    gap = place
    while True:
        place = (place + 1) & mask
        if table[place, 1] == VACANT:
            break
        wanted = home(table[place, 0], mask)
        if ((place - wanted) & mask) >= ((place - gap) & mask):
            table[gap, 0] = table[place, 0]
            table[gap, 1] = table[place, 1]
            gap = place
    table[gap, 1] = VACANT


@kernel
def _refill(table: NDArray[np.int64], larger: NDArray[np.int64]) -> None:
    for place in range(len(table)):
        if table[place, 1] != VACANT:
            put(larger, table[place, 0], table[place, 1])
