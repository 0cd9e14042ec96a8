"""From a reading of the windowed monitors to what they say of each column."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from services.core.drift.alert import Evidence, Kind, Signal
from services.core.drift.budget import Thresholds
from services.core.drift.incidents import Evaluation
from services.core.drift.seasons import HOUR_MS
from services.core.drift.windowed import Plan, Reading

_SHIFT = ("ks", "jensen_shannon")  # distances in [0, 1]


def evaluation(
    reading: Reading,
    thresholds: Thresholds,
    plan: Plan,
    columns: tuple[str, ...],
    *,
    model: str,
    model_version: int,
    kind_of: Callable[[str], Kind],
    importance: Mapping[str, float],
    topic: str,
    partition: int,
    reference: str = "",
    segment: str = "",
    metric_change: float | None = None,
) -> Evaluation:
    """Return what the monitors say at the end of a slot; those without a statistic say nothing.

    Parameters
    ----------
    kind_of : callable
        From a column to the kind of incident it belongs to.
    importance : mapping of str to float
        Each column's share of the model's importance, in [0, 1]; 0 where it is not named.
    metric_change : float or None
        Estimated change of the model's metric over the window.
    """
    monitors = plan.monitors(columns)
    shifts: dict[str, float] = {}
    for (column, distance, _), statistic in zip(monitors, reading.statistics.tolist(), strict=True):
        if distance in _SHIFT and not math.isnan(statistic):
            shifts[column] = max(shifts.get(column, 0.0), statistic)
    evidence = {
        window: Evidence(
            int(reading.from_ms[i]),
            reading.end_ms,
            topic,
            partition,
            int(reading.first_offset[i]),
            int(reading.last_offset[i]),
        )
        for i, window in enumerate(plan.windows_ms)
    }
    signals = [
        Signal(
            kind=kind_of(column),
            model=model,
            model_version=model_version,
            feature=column,
            segment=segment,
            monitor=f"{distance} over {window / HOUR_MS:g} h",
            statistic=statistic,
            threshold=threshold,
            evidence=evidence[window],
            reference=reference,
            importance=importance.get(column, 0.0),
            shift=min(1.0, shifts.get(column, 0.0)),
            metric_change=metric_change,
        )
        for (column, distance, window), statistic, threshold in zip(
            monitors, reading.statistics.tolist(), thresholds.values.tolist(), strict=True
        )
        if not math.isnan(statistic)
    ]
    return Evaluation(reading.end_ms, tuple(signals))
