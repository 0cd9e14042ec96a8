"""What all default monitors cost: a workload to time, with the clock as an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.concept_watch import POLICY, ConceptWatch, LabelledScores
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.partition_counts import Counting, Events, PartitionCounts
from millstream.core.drift.slot_summary import SLOT_MS
from millstream.core.drift.watch import Watch


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

    For each model: reconstruction error, windows of every feature, the score and that error, expected performance,
    the online model's score, signals and incidents as hours
    close, and three concept monitors on every event (as if each had its label).

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
    times_ms = np.arange(rows, dtype=np.int64) * (DAY_MS // events_per_day)
    offsets = np.arange(rows, dtype=np.int64)
    reference = _reference(values, scores[0], labels[0], features)
    contenders = [_Model(f"m{i}", reference) for i in range(models)]
    started = 0.0
    for start in range(0, rows, batch):
        if start == batch:
            started = clock_s()
        part = slice(start, start + batch)
        for i, model in enumerate(contenders):
            model.update(values[part], scores[i, part], labels[i, part], times_ms[part], offsets[part])
    seconds = clock_s() - started
    readings, alerts = sum(each.watch.judged + 1 for each in contenders), sum(each.alerts for each in contenders)
    return Cost(events, models, features, readings, alerts, seconds)


def _reference(values: np.ndarray, scores: np.ndarray, labels: np.ndarray, features: int) -> ModelReference:
    """Return the reference of four weeks at 2,000 events a day, drawn from the same events."""
    rows = np.resize(np.arange(len(values)), 56_000)
    return make_reference(
        [f"x{i}" for i in range(features)],
        values[rows],
        scores[rows],
        np.arange(len(rows), dtype=np.int64) * (DAY_MS // 2000),
        labels[rows].astype(np.float64),
        Monitors(),
        decision=0.5,
        importance={"x0": 1.0},
    )


class _Model:
    """One model's default monitors."""

    def __init__(self, name: str, reference: ModelReference) -> None:
        policy = Policy()
        self.alerts = 0
        self._countings = {1: Counting.of(reference)}
        self._counts = PartitionCounts(0, SLOT_MS)
        self.watch = Watch(name, lambda _version: reference, 1, Monitors(), "scored", policy)
        self._concept = ConceptWatch(name, lambda _version: reference, Limits(), "examples", POLICY)

    def update(
        self, values: np.ndarray, scores: np.ndarray, labels: np.ndarray, times_ms: np.ndarray, offsets: np.ndarray
    ) -> None:
        versions = np.ones(len(times_ms), dtype=np.int64)
        events = Events(times_ms, times_ms, times_ms, offsets, versions, scores, scores, lambda _features: values)
        for summaries in self._counts.update(events, self._countings):
            self.alerts += len(self.watch.update(summaries))
        known = LabelledScores(offsets, times_ms, times_ms, versions, scores, labels, scores, lambda _name: scores)
        self.alerts += len(self._concept.update(known))
