"""Strings as numbers: event ids for telling duplicates, and column values for counting.

The hash is MurmurHash3 (x64, 128 bits, seed 0, first half), so it is the same on every machine and in every release.
"""

from __future__ import annotations

from collections.abc import Iterable

import mmh3
import numpy as np

from millstream.core.batch import Array, Rows


def id_hashes(column: Array) -> Rows:
    """Return event ids as int64: integers as they are, strings and bytes by their 64-bit hash.

    Among n ids in store the chance that any two distinct ones collide (and the second passes for a duplicate) is below
    n**2 / 2**65: 3e-8 for a million, 3e-4 for a hundred million.

    Examples
    --------
    >>> id_hashes(np.array(["a"], dtype=object))
    array([-8839064797231613815])
    """
    if column.dtype != object:
        return column.astype(np.int64, copy=False)
    return np.fromiter(hashes(column.tolist()), np.int64, len(column))


def hashes(values: Iterable[str | bytes]) -> Iterable[int]:
    """Yield the 64-bit hash of each string."""
    hash64 = mmh3.hash64
    return (hash64(value, 0, True, True)[0] for value in values)
