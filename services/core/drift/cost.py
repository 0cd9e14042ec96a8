"""What all default monitors cost: a workload to time, with the clock as an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.core.drift.alert import Kind
from services.core.drift.budget import Thresholds
from services.core.drift.concept import MONITORS, Calibration, threshold_for
from services.core.drift.estimated_performance import estimate
from services.core.drift.incidents import Policy, initial, update
from services.core.drift.reconstruction import COLUMN, Reconstruction
from services.core.drift.signals import evaluation
from services.core.drift.slot_counts import Binning
from services.core.drift.windowed import Plan, WindowedMonitors
from services.core.profile import profile

SCORE = "score"


@dataclass(frozen=True, slots=True)
class Cost:
    """What was timed.

    Parameters
    ----------
    events, models, features : int
    readings, alerts : int
        How often windows were evaluated, and what came of it.
    seconds : float
        In all.
    """

    events: int
    models: int
    features: int
    readings: int
    alerts: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


def measure(
    clock_s: Callable[[], float],
    events: int = 200_000,
    batch: int = 2000,
    features: int = 15,
    models: int = 2,
    events_per_day: int = 10_000,
) -> Cost:
    """Time the default monitors on one thread, after a warm-up of one batch.

    For each model: reconstruction error, windows of every feature, the score and that error, signals and incidents as
    hours close, three concept monitors and the estimate of performance on every event (as if each had its label).

    Parameters
    ----------
    clock_s : callable
        Seconds since some moment, e.g. ``time.perf_counter``.
    events, batch : int
        How many, and how many at a time.
    events_per_day : int
        Few events a day mean that windows close often: 10,000 at 20,000 events/s is two days of traffic each second.
    """
    rng = np.random.default_rng(0)
    rows = events + batch
    values = rng.gamma(2.0, 1.0, (rows, features))
    values[rng.random(values.shape) < 0.02] = np.nan
    scores = rng.beta(0.5, 20.0, (models, rows))
    labels = rng.random((models, rows)) < scores
    times_ms = np.arange(rows, dtype=np.int64) * (86_400_000 // events_per_day)
    offsets = np.arange(rows, dtype=np.int64)
    contenders = [_Model(f"m{i}", values[:20_000], scores[i, :20_000], times_ms[:20_000]) for i in range(models)]
    started = 0.0
    for start in range(0, rows, batch):
        if start == batch:
            started = clock_s()
        part = slice(start, start + batch)
        for i, model in enumerate(contenders):
            model.update(values[part], scores[i, part], labels[i, part], times_ms[part], offsets[part])
    seconds = clock_s() - started
    readings, alerts = sum(each.readings for each in contenders), sum(each.alerts for each in contenders)
    return Cost(events, models, features, readings, alerts, seconds)


class _Model:
    """One model's default monitors."""

    def __init__(self, name: str, values: np.ndarray, scores: np.ndarray, times_ms: np.ndarray) -> None:
        self.name = name
        self.readings = self.alerts = 0
        self._ties = Reconstruction.fit(values)
        table = self._columns(values, scores)
        names = [*(f"x{i}" for i in range(values.shape[1])), SCORE, COLUMN]
        self._plan = Plan()
        self._binning = Binning.of({each: profile(table[:, i], times_ms=times_ms) for i, each in enumerate(names)})
        self._windows = WindowedMonitors(self._binning, self._plan)
        count = len(self._plan.monitors(names))
        self._thresholds = Thresholds(np.zeros(count), np.full(count, 0.05), 1.0, 1.0, False)
        self._calibration = Calibration((0.0, 1.0), (0.0, 1.0))
        self._concept = [(each, each.detector(threshold_for(1e6))) for each in MONITORS]
        self._state, self._policy = initial(), Policy()

    def _columns(self, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.column_stack([values, scores, self._ties.error(values)])

    def update(
        self, values: np.ndarray, scores: np.ndarray, labels: np.ndarray, times_ms: np.ndarray, offsets: np.ndarray
    ) -> None:
        readings = self._windows.update(self._columns(values, scores), times_ms, offsets)
        said = [
            evaluation(
                reading,
                self._thresholds,
                self._plan,
                self._binning.columns,
                model=self.name,
                model_version=1,
                kind_of=_kind,
                importance={},
                topic="scored",
                partition=0,
            )
            for reading in readings
        ]
        self._state, alerts = update(self._state, said, self._policy)
        probabilities = self._calibration(scores)
        estimate(scores, probabilities, 0.5)
        for monitor, detector in self._concept:
            detector.update_many(monitor.evidence(labels, probabilities))
        self.readings += len(readings)
        self.alerts += len(alerts)


def _kind(column: str) -> Kind:
    return "score" if column == SCORE else "data"
