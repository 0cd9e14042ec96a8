"""How far two tables of events are apart, with and without regard to the order of equal times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Batch


@dataclass(frozen=True, slots=True)
class RowDifferences:
    """Counts of differing rows.

    Parameters
    ----------
    ours, theirs : int
        Number of rows.
    by_position : int
        Rows that differ from the other table's row at the same position, plus the surplus of the longer one.
    only_ours, only_theirs : int
        Rows without a partner in the other table, wherever it stands (compared as multisets). Time is one of the
        compared columns, so this is equality up to the order of rows with the same time.
    """

    ours: int
    theirs: int
    by_position: int
    only_ours: int
    only_theirs: int

    @property
    def same_up_to_ties(self) -> bool:
        """Whether both tables hold the same rows."""
        return self.only_ours == self.only_theirs == 0


def row_differences(ours: Batch, theirs: Batch, positional: Sequence[str] = ()) -> RowDifferences:
    """Compare two tables on the columns of the first, exactly (floats too).

    Parameters
    ----------
    ours, theirs : Batch
        Both with the columns of ``ours``, of the same dtypes and without nulls.
    positional : sequence of str
        Columns that only say where a row stands, such as a running number; left out where position is.

    Examples
    --------
    >>> a = Batch(3, {"t": np.array([1, 1, 2]), "x": np.array([5, 6, 7])})
    >>> b = Batch(3, {"t": np.array([1, 1, 2]), "x": np.array([6, 5, 8])})
    >>> row_differences(a, b)
    RowDifferences(ours=3, theirs=3, by_position=3, only_ours=1, only_theirs=1)
    """
    shared = min(ours.length, theirs.length)
    differs = np.zeros(shared, dtype=np.bool_)
    for name, values in ours.columns.items():
        differs |= values[:shared] != theirs.columns[name][:shared]
    by_position = int(np.count_nonzero(differs)) + max(ours.length, theirs.length) - shared
    surplus = _surplus(ours, theirs, [name for name in ours.columns if name not in positional])
    return RowDifferences(
        ours.length,
        theirs.length,
        by_position,
        int(surplus[surplus > 0].sum()),
        int(-surplus[surplus < 0].sum()),
    )


def _surplus(ours: Batch, theirs: Batch, names: list[str]) -> NDArray[np.int64]:
    """Return, per distinct row, how many more of it there are in ours than in theirs."""
    columns = [np.concatenate((ours.columns[name], theirs.columns[name])) for name in names]
    sign = np.repeat(np.array([1, -1], dtype=np.int64), (ours.length, theirs.length))
    if not len(sign):
        return sign
    order = np.lexsort(columns)
    starts = np.zeros(len(order), dtype=np.bool_)
    starts[0] = True
    for values in columns:
        ordered = values[order]
        starts[1:] |= ordered[1:] != ordered[:-1]
    return np.add.reduceat(sign[order], np.flatnonzero(starts))
