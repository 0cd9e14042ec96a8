"""What the job's answers must be, computed the plain way, and which of a sample of answers differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from millstream_lab.bench.workload import DAY_MS, Workload

WINDOW_DAYS = (1, 7, 30)
FEATURES = tuple(f"customer_activity__{what}_amount_{days}d" for days in WINDOW_DAYS for what in ("count", "mean"))


@dataclass(frozen=True, slots=True)
class Answer:
    """One output record: features in the order of `FEATURES`, and the score."""

    features: tuple[float, ...]
    score: float


def features_of(workload: Workload, event: int) -> tuple[float, ...]:
    """Return count and mean amount over each (t - w, t] of the event's customer, this event and earlier ones."""
    mine = np.flatnonzero(workload.customers[: event + 1] == workload.customers[event])
    times_ms, amounts = workload.times_ms[mine], workload.amounts[mine]
    features: list[float] = []
    for days in WINDOW_DAYS:
        inside = times_ms > workload.times_ms[event] - days * DAY_MS
        features += [float(inside.sum()), float(amounts[inside].mean())]
    return tuple(features)


def read_answer(value: bytes, schema: Any) -> Answer:
    """Decode one output record, single-object framing included, with fastavro."""
    body = BytesIO(value)
    body.seek(10)
    record: Any = fastavro.schemaless_reader(body, schema)
    return Answer(tuple(float(record[name]) for name in FEATURES), float(record["score"]))


def wrong_answers(workload: Workload, answers: Mapping[int, Answer], model_file: str) -> list[str]:
    """Return a sentence per event whose features or score differ by more than 1e-9 (relative for means)."""
    import lightgbm

    if not answers:
        return []
    events = sorted(answers)
    expected: NDArray[np.float64] = np.array([features_of(workload, event) for event in events])
    scores = lightgbm.Booster(model_file=model_file).predict(expected, num_threads=1)
    wrong = []
    for event, features, score in zip(events, expected, scores, strict=True):
        got = answers[event]
        if not np.allclose(got.features, features, rtol=1e-9, atol=0):
            wrong.append(f"event {event}: features {got.features}, should be {tuple(features.tolist())}")
        # A mean that differs in its last bit may fall on the other side of a split.
        elif not np.isclose(got.score, score, rtol=1e-9, atol=0) and got.features == tuple(features.tolist()):
            wrong.append(f"event {event}: score {got.score}, should be {score}")
    return wrong
