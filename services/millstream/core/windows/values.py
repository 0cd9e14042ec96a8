"""Columns of events as words of entries: doubles for real numbers, integers for whole numbers.

A word holds a double's bits (NaN is null) or an int64. Integers have no bit pattern to spare for null, so where there
are any, words of null bits follow the columns' words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Batch, Mask, Rows
from millstream.core.declaration import ColumnType, View
from millstream.core.identity import hashes
from millstream.core.windows.exact_sum import representable

Words = NDArray[np.int64] | NDArray[np.float64]

WHOLE: frozenset[ColumnType] = frozenset({"long", "text"})
"""Types of columns that are kept as int64; the others are kept as doubles, which hold an Avro int exactly."""
_BITS = 64


class Layout:
    """Which word of an entry holds which column.

    Parameters
    ----------
    views : tuple of View
        Whose aggregated columns are kept.

    Attributes
    ----------
    columns : tuple of str
        The distinct aggregated columns, in alphabetical order (so that stored rows outlive a reordering).
    types : tuple of ColumnType
        Of each column.
    null_bits : int64 ndarray of shape (len(columns),)
        Which bit of the null words is a column's; -1 for one kept as doubles.
    width : int
        Words of an entry: columns, then null words.
    """

    def __init__(self, views: Sequence[View]) -> None:
        found: dict[str, ColumnType] = {}
        for aggregate in (each for view in views for each in view.aggregates):
            kept = found.setdefault(aggregate.column, aggregate.column_type)
            if kept != aggregate.column_type and WHOLE & {kept, aggregate.column_type}:
                raise ValueError(f"column {aggregate.column!r} cannot be of two types")
        self.columns = tuple(sorted(found))
        self.types = tuple(found[column] for column in self.columns)
        whole = np.array([each in WHOLE for each in self.types], dtype=np.bool_)
        self.null_bits: Rows = np.where(whole, np.cumsum(whole) - 1, -1).astype(np.int64)
        self.width = len(self.columns) + -(-int(whole.sum()) // _BITS)

    @property
    def names(self) -> list[str | list[str]]:
        """The fingerprint's part about the columns: the name alone of one kept as doubles, as it has always been."""
        return [
            [column, kind] if kind in WHOLE else column for column, kind in zip(self.columns, self.types, strict=True)
        ]

    def words(self, batch: Batch, rows: Rows | None = None, gone: Mask | None = None) -> NDArray[np.int64]:
        """Return the words of these rows (default: all), shape (n, width).

        Strings and bytes become their 64-bit hash, which only `count` and `count_distinct` can use: among n distinct
        ones in a window the chance that `count_distinct` is short at all is below n**2 / 2**65.

        Parameters
        ----------
        gone : bool ndarray of shape (batch.length,), optional
            Rows that are null in every column.
        """
        words = np.zeros((batch.length if rows is None else len(rows), self.width), dtype=np.int64)
        for at, column in enumerate(self.columns):
            bit = int(self.null_bits[at])
            if bit < 0:
                reals = batch.as_floats(column)
                if gone is not None:
                    reals = np.where(gone, np.nan, reals)
                words[:, at] = (reals if rows is None else reals[rows]).view(np.int64)
                continue
            values, nulls = batch.columns[column], batch.is_null(column)
            if gone is not None:
                nulls = nulls | gone
            if rows is not None:
                values, nulls = values[rows], nulls[rows]
            if values.dtype == object:
                values = np.fromiter(hashes(values.tolist()), np.int64, len(values))
            words[:, at] = np.where(nulls, 0, values)
            self.set_nulls(words, bit, nulls)
        return words

    def set_nulls(self, words: NDArray[np.int64], bit: int, nulls: Mask) -> None:
        """Set a column's bit of the null words where the column is null."""
        words[:, len(self.columns) + bit // _BITS] |= nulls.astype(np.int64) << (bit % _BITS)

    def of_reals(self, values: Words) -> NDArray[np.int64]:
        """Return words for values that may be given as doubles where every column is kept as such."""
        whole = values.dtype != np.float64
        if not whole and self.width > len(self.columns):
            raise ValueError(f"whole numbers are given as words, not as doubles: {', '.join(self.columns)}")
        return np.ascontiguousarray(values).view(np.int64)

    def summable(self, words: NDArray[np.int64]) -> bool:
        """Return whether every value may be summed; all whole numbers may."""
        reals = words[:, : len(self.columns)][:, self.null_bits < 0]
        return bool(representable(np.ascontiguousarray(reals).view(np.float64)).all())
