"""What a model's monitors need to know of the history it was made from: kept in its manifest, replaced with it.

Made of events the model was not fitted to, so that its scores look as they will when it serves.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from services.core.batch import Rows
from services.core.drift.budget import DAY_MS, Budget
from services.core.drift.concept import MONITORS, Calibration, common_threshold
from services.core.drift.declared import Monitors
from services.core.drift.detector import Floats
from services.core.drift.expected_metric import Cells
from services.core.drift.plan import Plan
from services.core.drift.reconstruction import COLUMN, Reconstruction
from services.core.drift.reference import Reference, calibrate
from services.core.drift.seasons import HOURS, seasonal_shares
from services.core.drift.slot_counts import Binning, Counts, count_rows
from services.core.profile import FeatureProfile, profile

SCORE: Final = "score"
LEAST_DAYS: Final = 14
"""Whole days of history that thresholds need."""

_WINDOWED_SHARE: Final = 0.5
_FIGURES: Final = 7


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The reference of one model version.

    Parameters
    ----------
    features : tuple of str
        The model's, in the order of its vector.
    columns : tuple of str, length c
        What windows compare: features that are not ignored, `SCORE` and the reconstruction error.
    edges : tuple of tuples of float, length c
        Of each column's bins, as in `FeatureProfile`.
    seasonal : int64 ndarray of shape (168, c, b)
        Events by hour of the week and bin, nulls first.
    low, high : tuple of float, length c
        The range of each column.
    plan : Plan
        Windows that the history has enough events for.
    thresholds : tuple of float
        Scaled (`services.core.drift.windowed.thresholds_at`), in the order of ``plan.monitors(columns)``; empty if the
        history is too short to calibrate them.
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
        return np.column_stack([by_name[name] for name in self.columns])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `of_json` reads back to an equal value; arrays are compressed."""
        raw = asdict(replace(self, seasonal=np.zeros(0, dtype=np.int64)))
        packed = zlib.compress(self.seasonal.astype("<i4").tobytes(), 9)
        return {
            **raw,
            "edges": [_packed(each) for each in self.edges],
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
        given = dict(raw)
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


def make_reference(
    features: Sequence[str],
    matrix: Floats,
    scores: Floats,
    times_ms: Rows,
    labels: Floats,
    monitors: Monitors,
    *,
    decision: float,
    importance: Mapping[str, float],
    watch_score: bool = True,
) -> ModelReference:
    """Describe events that a model was not fitted to, and calibrate its monitors on them.

    Parameters
    ----------
    features : sequence of str, length f
    matrix : float64 ndarray of shape (n, f)
        NaN is null; n >= 1.
    scores : float64 ndarray of shape (n,)
        The model's.
    times_ms : int64 ndarray of shape (n,)
        Event times.
    labels : float64 ndarray of shape (n,)
        0, 1, or NaN where it is not known.
    monitors : Monitors
        As declared; features that are not there are passed over.
    decision : float
        Events scored so or higher are called positive.
    importance : mapping of str to float
        Any non-negative figures by feature.
    watch_score : bool
        Whether the scores are like those it will serve; not where the model was fitted to some of the events.
    """
    ties = Reconstruction.fit(matrix)
    columns = (*(name for name in features if name not in monitors.ignore), *([SCORE] if watch_score else []), COLUMN)
    known = ~np.isnan(labels)
    positives = labels[known] == 1
    calibration, cells = None, None
    if positives.any() and not positives.all():
        calibration = Calibration.fit(scores[known], positives)
        cells = Cells.of(calibration(scores))
    share = max(sum(importance.values()), np.finfo(np.float64).tiny)
    days = (int(times_ms.max()) + 1) / DAY_MS - int(times_ms.min()) / DAY_MS
    budget = monitors.budget
    # Each half of the budget is for one of the two folds that alert.
    per_alarm = int(known.sum()) / max(days, 1.0) / (budget.per_day * (1 - _WINDOWED_SHARE))
    concept = 0.0 if calibration is None else common_threshold(MONITORS, calibration(scores), max(per_alarm, 2.0))
    blank = ModelReference(
        features=tuple(features),
        columns=columns,
        edges=(),
        seasonal=np.zeros((HOURS, 0, 2), dtype=np.int64),
        low=(),
        high=(),
        plan=Plan(windows_ms=monitors.windows_ms),
        thresholds=(),
        extrapolated=False,
        ties=ties,
        calibration=calibration,
        cells=cells,
        concept_threshold=concept,
        decision=decision,
        importance={name: importance.get(name, 0.0) / share for name in features},
        from_ms=int(times_ms.min()),
        to_ms=int(times_ms.max()) + 1,
        events=len(times_ms),
        days=int(days),
        alarms_per_day=budget.per_day,
    )
    table = blank.table(matrix, scores)
    profiles = [profile(table[:, i], times_ms=times_ms) for i in range(len(columns))]
    ranges = [_range(table[:, i]) for i in range(len(columns))]
    counted = replace(
        blank,
        edges=tuple(each.edges for each in profiles),
        seasonal=_stacked(profiles),
        low=tuple(low for low, _ in ranges),
        high=tuple(high for _, high in ranges),
    )
    return _calibrated(counted, table, times_ms, budget.share(_WINDOWED_SHARE))


def _range(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (-math.inf, math.inf)


def _stacked(profiles: Sequence[FeatureProfile]) -> Counts:
    width = max(len(each.edges) for each in profiles) + 2
    counts = np.zeros((HOURS, len(profiles), width), dtype=np.int64)
    for i, each in enumerate(profiles):
        counts[:, i, : len(each.edges) + 2] = each.seasonal
    return counts


def _calibrated(counted: ModelReference, table: Floats, times_ms: Rows, budget: Budget) -> ModelReference:
    """Return the reference with thresholds for the windows that have enough events, or a note why there are none."""
    plan = counted.plan
    per_ms = counted.events / max(counted.to_ms - counted.from_ms, 1)
    windows = tuple(
        each for each in plan.windows_ms if per_ms * each >= 2 * plan.least_events and 2 * each <= counted.days * DAY_MS
    )
    if not windows:
        return replace(counted, note=f"{counted.events} events are too few for windows of {plan.least_events}")
    counted = replace(counted, plan=replace(plan, windows_ms=windows))
    binning = counted.binning()
    history = Reference.of(table, times_ms, binning, counted.plan)
    if history.days < LEAST_DAYS:
        return replace(counted, note=f"{history.days} whole days are too few to calibrate on: {LEAST_DAYS} are needed")
    thresholds = calibrate(history, binning, budget)
    values = tuple(float(f"{each:.{_FIGURES}g}") for each in thresholds.scaled.tolist())
    return replace(counted, thresholds=values, extrapolated=thresholds.level.extrapolated, days=history.days)


def count_once(table: Floats, binning: Binning) -> Counts:
    """Return the counts of all rows together, int64 of shape (c, b)."""
    counts = np.zeros((1, *binning.shares.shape[1:]), dtype=np.int64)
    count_rows(np.ascontiguousarray(table), binning.edges, np.zeros(len(table), dtype=np.int64), counts)
    return np.asarray(counts[0])
