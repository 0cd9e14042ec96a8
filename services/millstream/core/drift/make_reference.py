"""Computes a model's reference: describes events, calibrates monitors on them, and measures the achieved alarm rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.budget import DAY_MS, Budget
from millstream.core.drift.concept import MONITORS, Calibration, common_threshold
from millstream.core.drift.declared import CONCEPT_SHARE, WINDOWED_SHARE, Monitors
from millstream.core.drift.dispersion import dispersion
from millstream.core.drift.expected_metric import Cells
from millstream.core.drift.model_reference import SCORE, ModelReference
from millstream.core.drift.plan import Plan
from millstream.core.drift.reconstruction import COLUMN, Reconstruction
from millstream.core.drift.reference import Reference, calibrate, held_out
from millstream.core.drift.seasons import HOURS
from millstream.core.drift.slot_counts import ABSENT, Counts
from millstream.core.profile import FeatureProfile, profile

LEAST_DAYS: Final = 14
"""Whole days of history that thresholds need."""

_FIGURES: Final = 7
_MOST_LEVELS: Final = 32
_MOST_SEGMENTS: Final = 8
_LEAST_SEGMENT: Final = 0.05


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

    Raises
    ------
    ValueError
        If segments are declared by what is no feature, or has no value that a twentieth of events have.
    """
    ties = Reconstruction.fit(matrix)
    segments = _segments(monitors.segment_by, features, matrix)
    whole = (*(name for name in features if name not in monitors.ignore), *([SCORE] if watch_score else []), COLUMN)
    known = ~np.isnan(labels)
    positives = labels[known] == 1
    calibration, cells = None, None
    if positives.any() and not positives.all():
        calibration = Calibration.fit(scores[known], positives)
        cells = Cells.of(calibration(scores))
    share = max(sum(importance.values()), np.finfo(np.float64).tiny)
    days = (int(times_ms.max()) + 1) / DAY_MS - int(times_ms.min()) / DAY_MS
    budget = monitors.budget
    # Evidence is summed up over all events, once more in the segments, of which each event is in one at most, and over
    # what the online model says.
    sums = 2 + (len(segments) > 0)
    per_alarm = sums * int(known.sum()) / max(days, 1.0) / (budget.per_day * CONCEPT_SHARE)
    concept = 0.0
    if calibration is not None:
        clusters = dispersion(scores[known], positives, times_ms[known])
        concept = clusters * common_threshold(MONITORS, calibration(scores), max(per_alarm, 2.0))
    blank = ModelReference(
        features=tuple(features),
        columns=whole,
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
        segment_by=monitors.segment_by,
        segments=segments,
    )
    names = [f"{column}|{segment}" for segment in blank.segment_names() for column in whole]
    columns = (*whole, *names)
    blank = replace(blank, columns=columns)
    table = blank.table(matrix, scores)
    there = [table[:, i] != ABSENT for i in range(len(columns))]
    profiles = [profile(table[rows, i], times_ms=times_ms[rows]) for i, rows in enumerate(there)]
    ranges = [_range(table[rows, i]) for i, rows in enumerate(there)]
    counted = replace(
        blank,
        edges=tuple(each.edges for each in profiles),
        seasonal=_stacked(profiles),
        low=tuple(low for low, _ in ranges),
        high=tuple(high for _, high in ranges),
        levels=tuple(_levels(table[rows, i]) for i, rows in enumerate(there)),
    )
    return _calibrated(counted, table, times_ms, budget.share(WINDOWED_SHARE))


def _segments(by: str, features: Sequence[str], matrix: Floats) -> tuple[float, ...]:
    """Return the values of a feature that are segments: the most frequent, at most eight."""
    if not by:
        return ()
    if by not in features:
        raise ValueError(f"segments are told apart by {by!r}, which is no feature of the model: {', '.join(features)}")
    values, counts = np.unique(matrix[:, list(features).index(by)], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_SEGMENTS]
    found = [float(values[i]) for i in order if np.isfinite(values[i]) and counts[i] >= _LEAST_SEGMENT * len(matrix)]
    if not found:
        raise ValueError(
            f"no value of {by!r} has a twentieth of the events: it is no feature to tell segments apart by"
        )
    return tuple(sorted(found))


def _levels(values: Floats) -> tuple[float, ...]:
    present = np.unique(values[np.isfinite(values)])
    return tuple(present.tolist()) if len(present) <= _MOST_LEVELS and (present == np.round(present)).all() else ()


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
    plan = counted.plan.within(counted.events, (counted.to_ms - counted.from_ms) / DAY_MS)
    if plan is None:
        least = counted.plan.least_events
        return replace(counted, note=f"{counted.events} events are too few for windows of {least}")
    counted = replace(counted, plan=plan)
    binning = counted.binning()
    history = Reference.of(table, times_ms, binning, counted.plan)
    if history.days < LEAST_DAYS:
        return replace(counted, note=f"{history.days} whole days are too few to calibrate on: {LEAST_DAYS} are needed")
    thresholds = calibrate(history, binning, budget)
    values = tuple(float(f"{each:.{_FIGURES}g}") for each in thresholds.scaled.tolist())
    achieved = held_out(history, binning, budget)
    return replace(
        counted,
        thresholds=values,
        extrapolated=thresholds.level.extrapolated,
        days=history.days,
        held_out_alarms=float(achieved.alarms) if achieved else 0.0,
        held_out_days=achieved.days if achieved else 0.0,
    )
