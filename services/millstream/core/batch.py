"""Columnar micro-batches, and rejections of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that must not go on, and why.

    Parameters
    ----------
    row : int
        Position of the record in the micro-batch it came in, from 0.
    reason : str
        Stable machine-readable code, e.g. ``"range"`` or ``"undecodable"``.
    field : str
        The offending field, or ``""`` when the whole record is at fault.
    detail : str
        One sentence for a person: what was found and what is allowed.
    """

    row: int
    reason: str
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as columns.

    Parameters
    ----------
    length : int
        Number of rows, >= 0.
    columns : mapping of str to ndarray, each of shape (length,)
        dtype ``int64`` (Avro int, long and their logical types), ``float64`` (float, double), ``bool``, or
        ``object`` holding ``str`` (string, enum) or ``bytes``. The value at a null is unspecified but of the dtype.
    nulls : mapping of str to bool ndarray, each of shape (length,)
        True where the column is null. A column without an entry has no nulls.
    """

    length: int
    columns: Mapping[str, Array]
    nulls: Mapping[str, Mask] = field(default_factory=dict)

    def take(self, rows: Rows | Mask) -> Batch:
        """Return the given rows (positions or a mask), in that order."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        nulls = {name: mask[rows] for name, mask in self.nulls.items()}
        length = int(np.count_nonzero(rows)) if rows.dtype == np.bool_ else len(rows)
        return Batch(length, columns, nulls)

    def with_columns(self, columns: Mapping[str, Array], nulls: Mapping[str, Mask] | None = None) -> Batch:
        """Return a batch with these columns added or replaced."""
        kept = {name: mask for name, mask in self.nulls.items() if name not in columns}
        return Batch(self.length, {**self.columns, **columns}, {**kept, **(nulls or {})})

    def select(self, names: Sequence[str]) -> Batch:
        """Return only the named columns, in the given order.

        Raises
        ------
        KeyError
            If a name is not a column.
        """
        return Batch(
            self.length,
            {name: self.columns[name] for name in names},
            {name: self.nulls[name] for name in names if name in self.nulls},
        )

    def is_null(self, name: str) -> Mask:
        """Return the null mask of a column, all False if it has no nulls."""
        mask = self.nulls.get(name)
        return np.zeros(self.length, dtype=np.bool_) if mask is None else mask

    def as_floats(self, name: str) -> NDArray[np.float64]:
        """Return a numeric column as float64 with NaN at nulls (a copy only where needed)."""
        values = self.columns[name].astype(np.float64, copy=False)
        mask = self.nulls.get(name)
        return values if mask is None or not mask.any() else np.where(mask, np.nan, values)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the rows of batches of the same columns one after another; at least one batch."""
    if len(batches) == 1:
        return batches[0]
    nulls = dict.fromkeys(name for each in batches for name in each.nulls)
    return Batch(
        sum(each.length for each in batches),
        {name: np.concatenate([each.columns[name] for each in batches]) for name in batches[0].columns},
        {name: np.concatenate([each.is_null(name) for each in batches]) for name in nulls},
    )
