"""The order in which the published data set has events of the same second.

Its authors sorted with an *unstable* quicksort, so ties landed where that algorithm put them. The fraud scenarios draw
by position, so the same ties are needed to get the same frauds. The algorithm is written out here because library
sorts differ between versions and processors.

References
----------
.. [1] R. Sedgewick, "Implementing Quicksort programs", CACM 21(10), 1978: median of three, insertion sort for at most
   16 elements, the larger part waits on the stack.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import inline, kernel

_INSERTION_SPAN = 15
_STACK = 256  # two entries per halving, so enough for any array that fits in memory


@inline
def _insertion_sort(values: NDArray[np.int64], order: NDArray[np.int64], low: int, high: int) -> None:
    for i in range(low + 1, high + 1):
        moving = order[i]
        at = i
        while at > low and values[moving] < values[order[at - 1]]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = moving


@inline
def _partition(values: NDArray[np.int64], order: NDArray[np.int64], low: int, high: int) -> int:
    middle = low + ((high - low) >> 1)
    if values[order[middle]] < values[order[low]]:
        order[middle], order[low] = order[low], order[middle]
    if values[order[high]] < values[order[middle]]:
        order[high], order[middle] = order[middle], order[high]
    if values[order[middle]] < values[order[low]]:
        order[middle], order[low] = order[low], order[middle]
    pivot = values[order[middle]]
    left, right = low, high - 1
    order[middle], order[right] = order[right], order[middle]
    while True:
        left += 1
        while values[order[left]] < pivot:
            left += 1
        right -= 1
        while pivot < values[order[right]]:
            right -= 1
        if left >= right:
            break
        order[left], order[right] = order[right], order[left]
    order[left], order[high - 1] = order[high - 1], order[left]
    return left


@kernel
def published_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions that sort ``values``, with ties as the published data set has them.

    Parameters
    ----------
    values : int64 ndarray of shape (n,)
        What to sort by, in generation order.

    Returns
    -------
    int64 ndarray of shape (n,)
        A permutation of 0..n-1; a function of ``values`` alone, on every platform.

    Examples
    --------
    >>> published_order(np.array([3, 1, 2], dtype=np.int64)).tolist()
    [1, 2, 0]
    """
    order = np.arange(len(values))
    stack = np.empty(_STACK, dtype=np.int64)
    held = 0
    low, high = 0, len(values) - 1
    while True:
        while high - low > _INSERTION_SPAN:
            split = _partition(values, order, low, high)
            if split - low < high - split:
                stack[held], stack[held + 1] = split + 1, high
                high = split - 1
            else:
                stack[held], stack[held + 1] = low, split - 1
                low = split + 1
            held += 2
        _insertion_sort(values, order, low, high)
        if held == 0:
            return order
        held -= 2
        low, high = stack[held], stack[held + 1]
