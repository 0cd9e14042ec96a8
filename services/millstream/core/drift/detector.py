"""What a streaming detector is: values in, one after the other; drift or none out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows

Floats = NDArray[np.float64]

Convention = Literal["values", "errors"]
"""What a detector is fed: any real ``values``, or ``errors``, where 1 is an error and 0 a correct prediction.

Everything here follows that one convention, as River does. Elsewhere it is the other way round: the papers' own code
for FHDDM and MOA's for some of its detectors take 1 for *correct*.
"""


@dataclass(frozen=True, slots=True)
class Detections:
    """Where in a column a detector found drift.

    Parameters
    ----------
    rows : int64 ndarray of shape (k,)
        Positions in the column, ascending.
    statistics, thresholds : float64 ndarray of shape (k,)
        What was compared there.
    warnings : int64 ndarray of shape (w,)
        Positions at which the detector was in its warning zone.
    """

    rows: Rows
    statistics: Floats
    thresholds: Floats
    warnings: Rows


class Detector(Protocol):
    """A streaming change detector; ``drift`` and ``warning`` speak of the last value it was given.

    The value after a drift starts it anew. Nulls (NaN) are passed over: they change nothing.
    """

    @property
    def name(self) -> str:
        """What it is called in monitors' declarations and in alerts."""

    @property
    def convention(self) -> Convention:
        """What it is fed."""

    @property
    def statistic(self) -> float:
        """What is held against ``threshold``, in the detector's own unit; NaN while there is too little to go by."""

    @property
    def threshold(self) -> float:
        """Drift is a statistic above this; NaN while there is none, or if the detector keeps it to itself."""

    @property
    def drift(self) -> bool:
        """Whether the last value completed a drift."""

    @property
    def warning(self) -> bool:
        """Whether the last value left it in its warning zone; always False where a detector has none."""

    def update(self, x: float) -> None:
        """Take one value.

        Raises
        ------
        ValueError
            If it is fed errors and this is neither 0, 1 nor NaN.
        """

    def update_many(self, column: Floats) -> Detections:
        """Take values of shape (n,) in order: the same, bit for bit, as `update` with each; raises as that does."""

    def snapshot(self) -> bytes:
        """Return everything it knows."""

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a detector with the same name and parameters.

        Raises
        ------
        ValueError
            If it is no such snapshot; nothing has changed then.
        """


def check_errors(column: Floats) -> None:
    """Raise ValueError unless every value is 0, 1 or NaN."""
    wrong = (column != 0) & (column != 1) & ~np.isnan(column)
    if wrong.any():
        raise ValueError(f"this detector takes 1 for an error and 0 for a correct prediction, not {column[wrong][0]}")


def pack(name: str, params: Mapping[str, Any], state: Any) -> bytes:
    """Return a snapshot; floats survive exactly, infinities and NaN included."""
    return json.dumps({"detector": name, "params": params, "state": state}).encode()


def unpack(name: str, params: Mapping[str, Any], snapshot: bytes) -> Any:
    """Return the state in a snapshot; ValueError if it is of another detector or other parameters."""
    raw = json.loads(snapshot)
    if not isinstance(raw, dict) or (raw.get("detector"), raw.get("params")) != (name, dict(params)):
        found = (raw.get("detector"), raw.get("params")) if isinstance(raw, dict) else raw
        raise ValueError(f"the snapshot is of {found}, this detector is {name} with {dict(params)}")
    return raw["state"]
