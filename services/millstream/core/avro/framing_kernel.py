"""Compiled code for the framing of a record: the id of its writer's schema, and where the body begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import inline


@inline
def little_endian(data: NDArray[np.uint8], at: int, count: int) -> int:
    """Return the unsigned little-endian number of ``count`` bytes."""
    value = np.int64(0)
    for k in range(count):
        value |= np.int64(data[at + k]) << np.int64(8 * k)
    return int(value)


@inline
def frame(data: NDArray[np.uint8], at: int, length: int) -> tuple[int, int, int]:
    """Return (0 fingerprint or 1 registry id, number, where the body begins); the kind is -1 for neither framing."""
    if length >= 10 and data[at] == 0xC3 and data[at + 1] == 0x01:
        return 0, little_endian(data, at + 2, 8), at + 10
    if length >= 5 and data[at] == 0:
        number = 0
        for k in range(1, 5):
            number = (number << 8) | int(data[at + k])
        return 1, number, at + 5
    return -1, 0, at


@inline
def find_schema(known: NDArray[np.int64], kind: int, number: int) -> int:
    """Return the row of a writer schema in ``known``, -1 if it is unknown."""
    for k in range(len(known)):
        if known[k, 0] == kind and known[k, 1] == number:
            return k
    return -1
