"""A small world to watch: scored events with a rhythm of the day, their labels, and the reference of their model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.schema import Schema
from millstream.core.batch import Array, Batch
from millstream.core.drift.declared import Monitors
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import ModelReference

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_533_081_600_000
WEEK_MS = 7 * DAY_MS


@dataclass(frozen=True)
class Traffic:
    """Events in order of time: features, the score and what is true."""

    times_ms: NDArray[np.int64]
    matrix: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]


def traffic(
    days: float,
    *,
    features: int = 3,
    per_hour: int = 60,
    seed: int = 1,
    start_ms: int = START_MS,
    moved_ms: tuple[int, int] | None = None,
    turned_ms: int | None = None,
) -> Traffic:
    """Draw events.

    Between ``moved_ms`` the last feature, which the model does not read, is higher by one standard deviation; from
    ``turned_ms`` on the odds of a positive are four times what the score says.
    """
    rng = np.random.default_rng(seed)
    count = round(days * 24 * per_hour)
    times_ms = start_ms + np.sort(rng.integers(0, round(days * DAY_MS), count))
    matrix = rng.normal(size=(count, features)) + 0.5 * np.sin(2 * np.pi * times_ms / DAY_MS)[:, None]
    if moved_ms is not None:
        matrix[(times_ms >= moved_ms[0]) & (times_ms < moved_ms[1]), -1] += 1.0
    scores = 1 / (1 + np.exp(2.5 - matrix[:, 0]))
    odds = scores / (1 - scores) * np.where(times_ms >= (turned_ms or 1 << 60), 4.0, 1.0)
    return Traffic(times_ms, matrix, scores, rng.random(count) < odds / (1 + odds))


def reference(
    names: Sequence[str], monitors: Monitors, days: int = 28, seed: int = 0, per_hour: int = 60
) -> ModelReference:
    """Return the reference of four weeks of the same traffic, before `START_MS`."""
    past = traffic(days, features=len(names), seed=seed, start_ms=START_MS - days * DAY_MS, per_hour=per_hour)
    return make_reference(
        names,
        past.matrix,
        past.scores,
        past.times_ms,
        past.labels.astype(np.float64),
        monitors,
        decision=0.5,
        importance={names[0]: 3.0, names[-1]: 1.0},
    )


def scored(schema: Schema, names: Sequence[str], model: str, seen: Traffic, version: int = 1) -> Batch:
    """Return traffic as records of the scored topic; what nobody looks at is made up."""
    count = len(seen.times_ms)
    columns: dict[str, Array] = {}
    for field in schema.fields:
        if field.kind in {"int", "long"}:
            columns[field.name] = np.arange(count) + 1
        elif field.kind in {"float", "double"}:
            columns[field.name] = np.full(count, 0.5)
        elif field.kind == "boolean":
            columns[field.name] = np.zeros(count, dtype=np.bool_)
        else:
            columns[field.name] = np.full(count, "x", dtype=object)
    integers = {field.name for field in schema.fields if field.kind in {"int", "long"}}
    for i, name in enumerate(names):
        # Counts are integers: as many steps as there are hundredths in the drawn value.
        drawn = seen.matrix[:, i]
        columns[name] = np.round(100 * drawn).astype(np.int64) if name in integers else drawn
    columns |= {
        "event_time_ms": seen.times_ms,
        "received_at_ms": seen.times_ms,
        "scored_at_ms": seen.times_ms + 20,
        "arm": np.full(count, "champion", dtype=object),
        "model": np.full(count, model, dtype=object),
        "model_version": np.full(count, version),
        "score": seen.scores,
        "champion_score": seen.scores,
        "champion_version": np.full(count, version),
    }
    return Batch(count, columns)


def examples(scored_batch: Batch, seen: Traffic, event_id: str, delay_ms: int = WEEK_MS) -> Batch:
    """Return the same events once their labels are known, in order of becoming known."""
    known_ms = seen.times_ms + delay_ms
    ones = np.ones(scored_batch.length, dtype=np.int64)
    none = np.ones(scored_batch.length, dtype=np.bool_)
    columns: dict[str, Array] = {
        "event_id": np.array([str(each) for each in scored_batch.columns[event_id].tolist()], dtype=object),
        "label": seen.labels.astype(np.float64),
        "label_known_at_ms": known_ms,
        "label_source": np.full(scored_batch.length, "bank", dtype=object),
        "label_delay_s": ones * (delay_ms // 1000),
        "revision": ones,
        "previous_label": np.zeros(scored_batch.length),
        "previous_known_at_ms": np.zeros(scored_batch.length, dtype=np.int64),
        "joined_at_ms": known_ms,
    }
    return scored_batch.with_columns(columns, {"previous_label": none, "previous_known_at_ms": none})
