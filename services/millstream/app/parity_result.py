"""What a parity check finds, and the exact comparison it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Comparison:
    """One feature, served and as Feast gives it.

    Parameters
    ----------
    feature : str
        ``{view}__{feature}``.
    compared, mismatches : int
        Values held against each other, and those of them that are not the same, null included.
    largest : float or None
        Largest difference between two numbers; None where nothing differs, or by more than a number.
    example : str
        The first mismatch in words, "" without any.
    """

    feature: str
    compared: int
    mismatches: int
    largest: float | None = None
    example: str = ""


@dataclass(slots=True)
class Parity:
    """What was compared and what came of it.

    Parameters
    ----------
    events : int
        Scored events recomputed from the offline log.
    unlogged : int
        Of the newest events of the topic, those that the offline log does not hold yet.
    historical, online : list of Comparison
        By feature: against Feast's point-in-time join, and against Feast's online rows.
    ahead : int
        Rows of keys that had newer events by the time they were read, and so were not compared.
    disordered : int
        Rows of keys whose newest event was older than another: those hold the features as of that other one.
    behind : int
        Online rows that are missing or older than what was served.
    left_out : list of str
        Views that Feast cannot recompute from an event alone, and why.
    """

    events: int = 0
    unlogged: int = 0
    historical: list[Comparison] = field(default_factory=list)
    online: list[Comparison] = field(default_factory=list)
    ahead: int = 0
    disordered: int = 0
    behind: int = 0
    left_out: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        """Values that differ, on either side."""
        return sum(each.mismatches for each in (*self.historical, *self.online))

    @property
    def holds(self) -> bool:
        """Whether everything compared is the same and no online row is stale."""
        return not (self.mismatches or self.behind)


def compare(feature: str, served: pa.Array, given: pa.Array, name: Callable[[int], str]) -> Comparison:
    """Compare two arrays of one type exactly; NaN is null.

    Parameters
    ----------
    name : callable
        Names a row for the example.

    Examples
    --------
    >>> compare("f", pa.array([1.0, None, 2.0]), pa.array([1.0, None, 2.5]), lambda row: f"row {row}")
    Comparison(feature='f', compared=3, mismatches=1, largest=0.5, example='row 2: served 2.0, Feast gives 2.5')
    """
    served, given = (_without_nan(pa.chunked_array([each]).combine_chunks()) for each in (served, given))
    same = pc.fill_null(pc.equal(served, given), False).to_numpy(zero_copy_only=False)
    same |= (pc.is_null(served).to_numpy(zero_copy_only=False)) & (pc.is_null(given).to_numpy(zero_copy_only=False))
    rows = np.flatnonzero(~same)
    if not len(rows):
        return Comparison(feature, len(served), 0)
    largest = None
    if pa.types.is_integer(served.type) or pa.types.is_floating(served.type):
        gaps = pc.max(pc.abs(pc.subtract(served.cast(pa.float64()), given.cast(pa.float64())))).as_py()
        largest = None if gaps is None else float(gaps)
    first = int(rows[0])
    words = f"{name(first)}: served {_said(served[first])}, Feast gives {_said(given[first])}"
    return Comparison(feature, len(served), len(rows), largest, words)


def _without_nan(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def _said(value: pa.Scalar) -> str:
    return "null" if value.as_py() is None else str(value.as_py())
