"""A model's reference for monitoring, kept in its manifest.

Made of events the model was not fitted to, so that its scores look as they will when it serves.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Mask
from millstream.core.drift.concept import Calibration
from millstream.core.drift.expected_metric import Cells
from millstream.core.drift.plan import Plan
from millstream.core.drift.reconstruction import COLUMN, Reconstruction
from millstream.core.drift.seasons import HOURS, seasonal_shares
from millstream.core.drift.slot_counts import ABSENT, Binning, Counts

SCORE: Final = "score"


def subject(column: str) -> tuple[str, str]:
    """Return the feature and the segment of a column's name.

    Examples
    --------
    >>> subject("amount"), subject("amount|is_night=1")
    (('amount', ''), ('amount', 'is_night=1'))
    """
    feature, _, segment = column.partition("|")
    return feature, segment


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The reference of one model version.

    Parameters
    ----------
    features : tuple of str
        The model's, in the order of its vector.
    columns : tuple of str, length c
        What windows compare: features that are not ignored, `SCORE` and the reconstruction error; then the same for
        each segment alone, named as `subject` reads it.
    edges : tuple of tuples of float, length c
        Of each column's bins, as in `FeatureProfile`.
    seasonal : int64 ndarray of shape (168, c, b)
        Events by hour of the week and bin, nulls first.
    low, high : tuple of float, length c
        The range of each column.
    plan : Plan
        Windows that the history has enough events for.
    thresholds : tuple of float
        Scaled (`millstream.core.drift.windowed.thresholds_at`), in the order of ``plan.monitors(columns)``; empty if
        the history is too short to calibrate them.
    extrapolated : bool
        Whether the budget is rarer than what the history shows.
    ties : Reconstruction
        Of all features.
    calibration : Calibration or None
        From score to probability; None if labels of both classes were not known.
    cells : Cells or None
        What the model's metric is estimated by; None where ``calibration`` is.
    concept_threshold : float
        Of each concept monitor's sum; 0 where ``calibration`` is None.
    decision : float
        Events scored so or higher are called positive.
    importance : mapping of str to float
        Share of each feature.
    from_ms, to_ms : int
        Event times of the history: from, and before.
    events, days : int
        How many events, on how many whole days.
    alarms_per_day : float
        The budget the thresholds keep.
    segment_by : str
        The feature that defines segments; "" for none.
    segments : tuple of float
        Its values that are segments.
    levels : tuple of tuples of float, length c or 0
        All values there are, where a column is of few whole numbers; else empty.
    held_out_alarms, held_out_days : float
        Incidents that opened in the last weeks of the history by thresholds of those before, and in how many days; 0
        days if it is too short for that.
    note : str
        Why there are no thresholds; "" if there are.
    """

    features: tuple[str, ...]
    columns: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    seasonal: Counts
    low: tuple[float, ...]
    high: tuple[float, ...]
    plan: Plan
    thresholds: tuple[float, ...]
    extrapolated: bool
    ties: Reconstruction
    calibration: Calibration | None
    cells: Cells | None
    concept_threshold: float
    decision: float
    importance: Mapping[str, float]
    from_ms: int
    to_ms: int
    events: int
    days: int
    alarms_per_day: float
    segment_by: str = ""
    segments: tuple[float, ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    held_out_alarms: float = 0.0
    held_out_days: float = 0.0
    note: str = ""

    def binning(self) -> Binning:
        """Return how columns are cut, and what to expect at each hour of the week."""
        bins = np.array([len(each) + 2 for each in self.edges], dtype=np.int64)
        edges = np.full((len(self.columns), self.seasonal.shape[2] - 2), np.inf)
        for row, each in zip(edges, self.edges, strict=True):
            row[: len(each)] = each
        shares = np.zeros(self.seasonal.shape)
        for i, count in enumerate(bins.tolist()):
            shares[:, i, :count] = seasonal_shares(self.seasonal[:, i, :count])
        return Binning(self.columns, edges, bins, shares)

    def table(self, matrix: Floats, scores: Floats) -> Floats:
        """Return the columns of events, shape (n, c), from the features (n, f) and scores (n,); NaN is null."""
        by_name = {name: matrix[:, i] for i, name in enumerate(self.features)}
        by_name |= {SCORE: scores, COLUMN: self.ties.error(matrix)}
        whole = [by_name[name] for name in self.columns if not subject(name)[1]]
        parts = [
            np.where(mine, column, ABSENT) for mine in self.members(by_name.get(self.segment_by)) for column in whole
        ]
        return np.column_stack([*whole, *parts])

    def members(self, values: Floats | None) -> list[Mask]:
        """Return which events are in each segment, by the feature that defines segments."""
        return [] if values is None else [np.asarray(values == each) for each in self.segments]

    def segment_names(self) -> list[str]:
        """Return what each segment is called in alerts."""
        return [f"{self.segment_by}={each:g}" for each in self.segments]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `of_json` reads back to an equal value; arrays are compressed."""
        raw = asdict(replace(self, seasonal=np.zeros(0, dtype=np.int64)))
        packed = zlib.compress(self.seasonal.astype("<i4").tobytes(), 9)
        return {
            **raw,
            "edges": [_packed(each) for each in self.edges],
            "levels": [_packed(each) for each in self.levels],
            "seasonal": base64.b64encode(packed).decode(),
            "width": self.seasonal.shape[2],
            "thresholds": _packed(self.thresholds),
            "ties": [_packed(self.ties.mean), _packed(self.ties.std), *map(_packed, self.ties.components)],
            "calibration": None
            if self.calibration is None
            else [_packed(self.calibration.scores), _packed(self.calibration.probabilities)],
            "cells": None
            if self.cells is None
            else [_packed(self.cells.edges), _packed(self.cells.probabilities), _packed(self.cells.events)],
        }

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> ModelReference:
        """Return the reference whose JSON object this is; TypeError, KeyError or ValueError if it is none."""
        given = {"levels": (), "segments": (), **raw}
        width = int(given.pop("width"))
        columns = tuple(map(str, given["columns"]))
        counts = np.frombuffer(zlib.decompress(base64.b64decode(given["seasonal"])), dtype="<i4")
        mean, std, *components = map(_unpacked, given["ties"])
        calibration, cells = given["calibration"], given["cells"]
        plan: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in given["plan"].items()
        }
        return ModelReference(
            **{
                **given,
                "features": tuple(map(str, given["features"])),
                "columns": columns,
                "edges": tuple(map(_unpacked, given["edges"])),
                "levels": tuple(map(_unpacked, given["levels"])),
                "segments": tuple(map(float, given["segments"])),
                "seasonal": counts.reshape(HOURS, len(columns), width).astype(np.int64),
                "low": tuple(map(float, given["low"])),
                "high": tuple(map(float, given["high"])),
                "plan": Plan(**plan),
                "thresholds": _unpacked(given["thresholds"]),
                "ties": Reconstruction(mean, std, tuple(components)),
                "calibration": None if calibration is None else Calibration(*map(_unpacked, calibration)),
                "cells": None if cells is None else Cells(*map(_unpacked, cells)),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelReference) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment] # holds an array


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(zlib.compress(np.array(values, dtype="<f8").tobytes(), 9)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    return tuple(np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8").tolist())
