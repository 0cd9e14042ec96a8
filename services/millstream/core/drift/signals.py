"""Signals of each column from the statistics of its windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from millstream.core.batch import Floats
from millstream.core.drift.alert import Evidence, Kind, Signal
from millstream.core.drift.declared import Limits
from millstream.core.drift.model_reference import SCORE, ModelReference, subject
from millstream.core.drift.plan import Plan
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.windowed import Reading, thresholds_at

_SHIFT = ("ks", "jensen_shannon")  # distances in [0, 1]


def distribution_signals(
    reading: Reading, reference: ModelReference, model: str, version: int, topic: str
) -> Iterator[Signal]:
    """Yield what the windowed monitors say; those without a statistic say nothing.

    Parameters
    ----------
    reading : Reading
        Of a reference with thresholds.
    model, version : str, int
        Whose reference it is.
    topic : str
        Where the events are.
    """
    change = _metric_change(reading, reference)
    for check in compared(reading, reference.plan, reference.columns, np.array(reference.thresholds)):
        feature, segment = subject(check.column)
        kind: Kind = "score" if feature == SCORE else "data"
        yield Signal(
            kind=kind,
            model=model,
            model_version=version,
            feature=feature,
            segment=segment,
            monitor=check.monitor,
            statistic=check.statistic,
            threshold=check.threshold,
            evidence=evidence_of(reading, check.window, topic),
            reference=described(reference),
            importance=1.0 if feature == SCORE else reference.importance.get(feature, 0.0),
            shift=check.shift,
            metric_change=change,
        )


class StatisticCheck(NamedTuple):
    """One statistic and its threshold; ``window`` is its place in the plan, ``shift`` as `Signal` has it."""

    column: str
    monitor: str
    window: int
    statistic: float
    threshold: float
    shift: float


def compared(reading: Reading, plan: Plan, columns: Sequence[str], thresholds: Floats) -> Iterator[StatisticCheck]:
    """Yield what there is to say of windows.

    Parameters
    ----------
    columns : sequence of str, length c
    thresholds : float64 ndarray of shape (m,)
        Scaled, in the order of ``plan.monitors(columns)``.
    """
    monitors, statistics = plan.monitors(columns), reading.statistics.tolist()
    limits = thresholds_at(thresholds, reading.by_column, plan).tolist()
    shifts: dict[str, float] = {}
    for (column, distance, _), statistic in zip(monitors, statistics, strict=True):
        if distance in _SHIFT and not math.isnan(statistic):
            shifts[column] = max(shifts.get(column, 0.0), statistic)
    for (column, distance, window_ms), statistic, limit in zip(monitors, statistics, limits, strict=True):
        if not math.isnan(statistic):
            monitor, shift = f"{distance} over {window_ms / HOUR_MS:g} h", min(1.0, shifts.get(column, 0.0))
            yield StatisticCheck(column, monitor, plan.windows_ms.index(window_ms), statistic, limit, shift)


def quality_signals(
    reading: Reading, reference: ModelReference, limits: Limits, model: str, version: int, topic: str
) -> Iterator[Signal]:
    """Yield the signals about nulls and about values absent from the reference, in the shortest window."""
    found: list[tuple[str, float | None, Floats]] = [
        ("nulls", limits.null_share, reading.null_excess[0]),
        ("unseen values", limits.unseen_share, reading.outside[0]),
    ]
    if reading.events[0] < reference.plan.least_events:
        return
    for what, limit, shares in found:
        if limit is None:
            continue
        for column, share in zip(reference.columns, shares.tolist(), strict=True):
            if column in reference.features:
                yield Signal(
                    kind="quality",
                    model=model,
                    model_version=version,
                    feature=column,
                    segment="",
                    monitor=f"{what} over {reference.plan.windows_ms[0] / HOUR_MS:g} h",
                    statistic=max(share, 0.0),
                    threshold=limit,
                    evidence=evidence_of(reading, 0, topic),
                    reference=described(reference),
                    importance=reference.importance.get(column, 0.0),
                    shift=min(1.0, max(share, 0.0)),
                    metric_change=_metric_change(reading, reference),
                )


def evidence_of(reading: Reading, window: int, topic: str) -> Evidence:
    """Return the events of a length of window."""
    return Evidence(int(reading.from_ms[window]), reading.end_ms, topic, reading.offsets[window])


def described(reference: ModelReference) -> str:
    """Return what events are compared with, for a person."""
    return described_span(reference.events, reference.from_ms, reference.to_ms)


def described_span(events: int, from_ms: int, to_ms: int) -> str:
    """Return the same of so many events of some days."""
    first, last = (str(np.datetime64(each, "ms").astype("datetime64[D]")) for each in (from_ms, to_ms))
    return f"{events:,} events from {first} to {last}, by hour of the week"


def _metric_change(reading: Reading, reference: ModelReference) -> float | None:
    """Return the expected change of the average precision in the longest full window up to a day."""
    lengths = [i for i, each in enumerate(reference.plan.windows_ms) if each <= 24 * HOUR_MS and reading.events[i]]
    if reference.cells is None or not lengths:
        return None
    return reference.cells.change(reading.cells[max(lengths, key=lambda i: reference.plan.windows_ms[i])])
