"""Pacing of a stored stream: when to send each row, at the original pace, faster, or unlimited."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pace(NamedTuple):
    """How fast: ``"rate"`` in rows per second, ``"speed"`` in event seconds per second, or ``"flat_out"``."""

    kind: Literal["rate", "speed", "flat_out"]
    factor: float = 1.0


FLAT_OUT = Pace("flat_out")


def due_s(pace: Pace, first_row: int, event_time_ms: NDArray[np.int64], origin_ms: int) -> NDArray[np.float64]:
    """Return when each row of a chunk is due.

    Parameters
    ----------
    pace : Pace
        ``factor`` > 0.
    first_row : int
        Rows sent before this chunk.
    event_time_ms : int64 ndarray of shape (n,)
        Event time of each row; only looked at for ``"speed"``. A row older than one before it is due with that one:
        the order of the file is kept.
    origin_ms : int
        Event time of the first row sent.

    Returns
    -------
    float64 ndarray of shape (n,)
        Seconds since the start, ascending.

    Examples
    --------
    >>> due_s(Pace("rate", 2.0), 4, np.zeros(3, dtype=np.int64), 0).tolist()
    [2.0, 2.5, 3.0]
    >>> due_s(Pace("speed", 10.0), 0, np.array([5000, 25000, 15000]), 5000).tolist()
    [0.0, 2.0, 2.0]
    """
    count = len(event_time_ms)
    if pace.kind == "flat_out":
        return np.zeros(count)
    if pace.kind == "rate":
        return (first_row + np.arange(count)) / pace.factor
    return np.maximum.accumulate((event_time_ms - origin_ms) / 1000.0 / pace.factor)
