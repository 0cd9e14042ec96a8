"""Strings as numbers: event ids for telling duplicates, and column values for counting.

The hash is MurmurHash3 (x64, 128 bits, seed 0, first half), so it is the same on every machine and in every release.
"""

from __future__ import annotations

from collections.abc import Iterable

import mmh3
import numpy as np
from numpy.typing import NDArray

from services.core.batch import Array, Batch, Rows

_VALUE_MASK = (1 << 52) - 1


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
    return np.fromiter(_hashes(column.tolist()), np.int64, len(column))


def as_values(batch: Batch, column: str) -> NDArray[np.float64]:
    """Return a column as the numbers windows keep, shape (batch.length,), NaN at nulls.

    Numbers are rounded to double (integers are exact up to 2**53 in size), booleans are 0 and 1. Strings and bytes
    become 52 bits of their hash, which `count` and `count_distinct` can use and no other function: among n distinct
    ones in a window the chance that `count_distinct` is short at all is below n**2 / 2**53 (1e-8 for ten thousand).
    """
    values = batch.columns[column]
    if values.dtype != object:
        return batch.as_floats(column)
    nulls = batch.is_null(column)
    hashed = np.fromiter(_hashes(values.tolist()), np.int64, len(values)) & _VALUE_MASK
    return np.where(nulls, np.nan, hashed.astype(np.float64))


def _hashes(values: list[str | bytes]) -> Iterable[int]:
    hash64 = mmh3.hash64
    return (hash64(value, 0, True, True)[0] for value in values)
