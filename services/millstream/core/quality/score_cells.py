"""Scores rounded to a grid that is fine at both ends, and counts of them that can be taken back.

A cell is the first ten bits after the leading one of min(p, 1 - p): a relative precision of 2**-10 towards 0 and
towards 1, where fraud scores are. Ranking figures computed from cells are exact for scores so rounded: scores in one
cell are ties. The resolution of each figure says how much that can matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows

_BITS: Final = 10
_LEAST: Final = 40  # probabilities below 2**-40 (and above 1 - 2**-40) share a cell
_SHIFT: Final = 52 - _BITS
_ZERO: Final = (1023 - _LEAST) << _BITS
_HALF: Final = (1022 << _BITS) - _ZERO  # cell of 1/2
TOP: Final = 2 * _HALF
"""Largest cell, that of 1; cells ascend with the score from 0."""


def cells(scores: NDArray[np.float64]) -> Rows:
    """Return the cell of each score in [0, 1]; a higher score never has a lower cell.

    Examples
    --------
    >>> cells(np.array([0.0, 0.5, 1.0])).tolist() == [0, TOP // 2, TOP]
    True
    """
    low = scores <= 0.5
    folded = np.where(low, scores, 1 - scores)
    place = np.maximum((folded.view(np.int64) >> _SHIFT) - _ZERO, 0)
    found: Rows = np.where(low, place, TOP - place)
    return found


def representatives(cell: Rows) -> NDArray[np.float64]:
    """Return one score of each cell, itself in that cell."""
    low = cell <= _HALF
    place = np.where(low, cell, TOP - cell)
    folded = np.where(place > 0, ((place + _ZERO) << _SHIFT).view(np.float64), 0.0)
    return np.where(low, folded, 1 - folded)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each row was counted: rows sorted and distinct, no count zero in every column.

    Parameters
    ----------
    keys : int64 ndarray of shape (m, k)
        Rows.
    counts : int64 ndarray of shape (m, c)
        Their counts; negative while something was taken back that has not come yet.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]

    @staticmethod
    def empty(k: int, c: int) -> Counts:
        """Return counts of nothing."""
        return Counts(np.zeros((0, k), dtype=np.int64), np.zeros((0, c), dtype=np.int64))

    @staticmethod
    def total(parts: Sequence[Counts]) -> Counts:
        """Return the sum of at least one; as all are canonical, so is it: equal sums are equal arrays."""
        if len(parts) == 1:
            return parts[0]
        keys = np.concatenate([part.keys for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        if not len(keys):
            return parts[0]
        order = np.lexsort(keys.T[::-1])
        keys = keys[order]
        first = np.ones(len(keys), dtype=np.bool_)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        totals = np.add.reduceat(counts[order], np.flatnonzero(first), axis=0)
        kept = (totals != 0).any(axis=1)
        return Counts(keys[first][kept], totals[kept])

    def negative(self) -> Counts:
        """Return what takes these counts away."""
        return Counts(self.keys, -self.counts)
