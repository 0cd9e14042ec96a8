"""Monitors put to the test on traffic whose truth is known: false alarms of a year, and how soon a change is told.

The whole path is run, from scored events and examples to alerts: what is counted is what a subscriber would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.core.batch import Mask, Rows
from services.core.drift.alert import Alert
from services.core.drift.budget import DAY_MS
from services.core.drift.concept_watch import ConceptWatch, Labelled
from services.core.drift.declared import Limits, Monitors
from services.core.drift.detector import Floats
from services.core.drift.incidents import Policy
from services.core.drift.make_reference import make_reference
from services.core.drift.model_reference import ModelReference
from services.core.drift.partition_counts import Counting, Events, PartitionCounts
from services.core.drift.seasons import HOUR_MS
from services.core.drift.slot_summary import SLOT_MS
from services.core.drift.watch import Watch

FEATURES: Final = ("a", "b", "c", "d", "e", "f")
_BURN_IN_DAYS: Final = 8


@dataclass(frozen=True, slots=True)
class World:
    """How drill traffic is made.

    Parameters
    ----------
    events_per_day : int
    positive_share : float, in (0, 1)
        About; by the score's own account.
    """

    events_per_day: int = 2400
    positive_share: float = 0.02


@dataclass(frozen=True, slots=True)
class Change:
    """What changes, and when.

    Parameters
    ----------
    day : float
        From this day on.
    shift_std : float
        The first feature, which the model does not read, is higher by so many standard deviations.
    positive_ratio : float, > 0
        There are so many times the positives that scores say.
    driver_std : float
        The feature that the model goes by most is higher by so many standard deviations: scores follow, and are right.
    """

    day: float
    shift_std: float = 0.0
    positive_ratio: float = 1.0
    driver_std: float = 0.0


@dataclass(frozen=True, slots=True)
class Drilled:
    """Traffic in order of time."""

    times_ms: Rows
    matrix: Floats
    scores: Floats
    labels: Mask


def traffic(world: World, seed: int, first_day: int, days: int, change: Change | None = None) -> Drilled:
    """Draw events with a rhythm of day and week in volume and level, bursty by the hour.

    Volume varies by a gamma law of shape 4 from hour to hour, weekends have half the events, and every feature's level
    follows hour and weekend by 0.7 standard deviations.
    """
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 24) + first_day * 24
    daily = np.sin(2 * np.pi * hours / 24)
    weekend = (hours // 24) % 7 >= 5
    volume = (
        world.events_per_day / 24 * (1 + 0.7 * daily) * np.where(weekend, 0.5, 1.2) * rng.gamma(4, 0.25, len(hours))
    )
    rows = np.repeat(np.arange(len(hours)), rng.poisson(volume))
    times_ms = np.sort(hours[rows] * HOUR_MS + rng.integers(0, HOUR_MS, len(rows)))
    rows = (times_ms // HOUR_MS - first_day * 24).astype(np.int64)
    matrix = rng.normal(size=(len(rows), len(FEATURES))) + (0.7 * daily + np.where(weekend, 0.7, 0.0))[rows, None]
    after = times_ms >= (math.inf if change is None else change.day * DAY_MS)
    if change is not None:
        matrix[after, 1] += change.driver_std
    offset = math.log(world.positive_share / (1 - world.positive_share)) - 1.0
    scores = 1 / (1 + np.exp(-offset - matrix[:, 1] - 0.7 * matrix[:, 2]))
    truth = scores
    if change is not None:
        matrix[after, 0] += change.shift_std
        truth = np.where(after, np.minimum(scores * change.positive_ratio, 0.999), scores)
    return Drilled(times_ms, matrix, scores, rng.random(len(rows)) < truth)


def drill_reference(world: World, seed: int, days: int, monitors: Monitors) -> ModelReference:
    """Return the reference of so many days before day 0 of a week."""
    past = traffic(world, seed, 0, days)
    return make_reference(
        FEATURES,
        past.matrix,
        past.scores,
        past.times_ms,
        past.labels.astype(np.float64),
        monitors,
        decision=0.5,
        importance={"b": 2.0, "c": 1.0},
    )


def alerts_of(reference: ModelReference, seen: Drilled, batch: int = 20_000) -> list[Alert]:
    """Return every alert that the default monitors give on traffic whose labels are known at once."""
    counts, policy = PartitionCounts(0, SLOT_MS), Policy()
    watch = Watch("drill", lambda _version: reference, 1, Limits(), "scored", policy)
    concept = ConceptWatch("drill", lambda _version: reference, Limits(), "examples", policy)
    counting = {1: Counting.of(reference)}
    alerts: list[Alert] = []
    for start in range(0, len(seen.times_ms), batch):
        part = slice(start, start + batch)
        times_ms, scores, matrix = seen.times_ms[part], seen.scores[part], seen.matrix[part]
        offsets, versions = np.arange(start, start + len(times_ms)), np.ones(len(times_ms), dtype=np.int64)
        events = Events(times_ms, times_ms, times_ms, offsets, versions, scores, lambda _f, matrix=matrix: matrix)  # type: ignore[misc]
        for told in counts.update(events, counting):
            alerts += watch.update(told)
        labels, silent = seen.labels[part], np.full(len(offsets), np.nan)
        alerts += concept.update(
            Labelled(offsets, times_ms, times_ms, versions, scores, labels, silent, lambda _name, silent=silent: silent)  # type: ignore[misc]
        )
    return alerts


@dataclass(frozen=True, slots=True)
class Calm:
    """False alarms without drift.

    Parameters
    ----------
    days : float
    allowed : float
        By the budget.
    opened : mapping of str to int
        Incidents by kind.
    """

    days: float
    allowed: float
    opened: dict[str, int]


def calm(
    world: World,
    monitors: Monitors,
    runs: int,
    days: int = 365,
    reference_days: int = 56,
    progress: Callable[[], None] = lambda: None,
) -> Calm:
    """Count incidents on traffic in which nothing changes, each run with a reference of its own."""
    opened: dict[str, int] = {}
    for run in range(runs):
        reference = drill_reference(world, 10 * run, reference_days, monitors)
        for alert in alerts_of(reference, traffic(world, 10 * run + 1, reference_days, days)):
            if alert.event == "open":
                opened[alert.kind] = opened.get(alert.kind, 0) + 1
        progress()
    return Calm(runs * days, monitors.budget.per_day * runs * days, opened)


@dataclass(frozen=True, slots=True)
class Power:
    """How soon a change is told.

    Parameters
    ----------
    change : str
    found, runs : int
        Told within four weeks, of how many.
    median_events, median_days : float
        From the change to the alert, missed ones counted as later than all; infinite if most were.
    """

    change: str
    found: int
    runs: int
    median_events: float
    median_days: float


def power(
    world: World,
    monitors: Monitors,
    change: Change,
    runs: int,
    reference_days: int = 56,
    progress: Callable[[], None] = lambda: None,
) -> Power:
    """Measure how soon a change is told, by an incident of the right kind that opens after it.

    The change begins at a random hour of the week, after longest windows are full.
    """
    delays_days, events = [], []
    shifted = change.shift_std != 0
    reference = drill_reference(world, 1, reference_days, monitors)
    for run in range(runs):
        begins = reference_days + _BURN_IN_DAYS + np.random.default_rng(run).random() * 7
        seen = traffic(world, 1000 + run, reference_days, _BURN_IN_DAYS + 7 + 28, replace(change, day=begins))
        kinds = {"data"} if shifted else {"concept"}
        found = [
            each.at_ms
            for each in alerts_of(reference, seen)
            if each.event == "open" and each.kind in kinds and each.at_ms > begins * DAY_MS
        ]
        first_ms = min(found, default=math.inf)
        delays_days.append(first_ms / DAY_MS - begins)
        inside = (seen.times_ms >= begins * DAY_MS) & (seen.times_ms < first_ms)
        events.append(float(inside.sum()) if found else math.inf)
        progress()
    words = f"{change.shift_std:g} sd in one feature" if shifted else f"{change.positive_ratio - 1:+.0%} positives"
    told = sum(map(math.isfinite, delays_days))
    return Power(words, told, runs, float(np.median(events)), float(np.median(delays_days)))


@dataclass(frozen=True, slots=True)
class Told:
    """What kinds of incidents a change opened.

    Parameters
    ----------
    change : str
    runs : int
    opened : mapping of str to int
        Runs in which an incident of that kind opened after the change.
    """

    change: str
    runs: int
    opened: dict[str, int]


def meaning(
    world: World, monitors: Monitors, runs: int, reference_days: int = 56, progress: Callable[[], None] = lambda: None
) -> list[Told]:
    """Tell covariate shift from concept change: what opens within two weeks of either."""
    begins = reference_days + _BURN_IN_DAYS
    changes = {
        "features and scores move, meaning stays": Change(begins, driver_std=1.0),
        "meaning changes, features and scores stay": Change(begins, positive_ratio=2.0),
    }
    reference, found = drill_reference(world, 1, reference_days, monitors), []
    for words, change in changes.items():
        opened: dict[str, int] = {}
        for run in range(runs):
            seen = traffic(world, 2000 + run, reference_days, _BURN_IN_DAYS + 14, change)
            told = alerts_of(reference, seen)
            for kind in {each.kind for each in told if each.event == "open" and each.at_ms > begins * DAY_MS}:
                opened[kind] = opened.get(kind, 0) + 1
            progress()
        found.append(Told(words, runs, opened))
    return found
