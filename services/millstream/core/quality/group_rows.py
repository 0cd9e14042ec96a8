"""Rows of columns by their distinct values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from millstream.core.batch import Array, Rows


def by_values(columns: Sequence[Array]) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    """Yield each distinct row of some columns, in order, with the positions that hold it."""
    if not len(columns[0]):
        return
    uniques, code = [], np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        unique, inverse = distinct(column)
        uniques.append(unique)
        code = code * len(unique) + inverse
    order = np.argsort(code, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        rest, values = int(code[members[0]]), []
        for unique in reversed(uniques):
            rest, place = divmod(rest, len(unique))
            values.append(unique[place])
        yield tuple(reversed(values)), members


def distinct(column: Array) -> tuple[list[object], Rows]:
    """Return the distinct values of a column, and the position of each row's among them."""
    if column.dtype != object:
        unique, inverse = np.unique(column, return_inverse=True)
        return unique.tolist(), inverse
    places: dict[object, int] = {}
    inverse = np.fromiter((places.setdefault(value, len(places)) for value in column.tolist()), np.int64, len(column))
    return list(places), inverse
