"""Monitors on simulated traffic with known changes: false alarms in a year, and detection delays.

The whole path is run, from scored events and examples to alerts: what is counted is what a subscriber would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from millstream.core.batch import Rows
from millstream.core.drift.alert import ONLINE, Alert
from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.concept_watch import POLICY, ConceptWatch, LabelledScores
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.partition_counts import Counting, Events, PartitionCounts
from millstream.core.drift.slot_summary import SLOT_MS
from millstream.core.drift.watch import Watch
from millstream_lab.detectors.simulated_traffic import FEATURES, Change, SimulatedEvents, TrafficSettings, traffic

_BURN_IN_DAYS: Final = 8
_ONLINE_DAYS: Final = 29


def drill_reference(world: TrafficSettings, seed: int, days: int, monitors: Monitors) -> ModelReference:
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


def alerts_of(reference: ModelReference, seen: SimulatedEvents, monitors: Monitors, batch: int = 20_000) -> list[Alert]:
    """Return every alert that monitors give on traffic whose labels are known at once."""
    counts, policy = PartitionCounts(0, SLOT_MS), Policy()
    watch = Watch("drill", lambda _version: reference, 1, monitors, "scored", policy)
    concept = ConceptWatch("drill", lambda _version: reference, Limits(), "examples", POLICY)
    counting = {1: Counting.of(reference)}
    alerts: list[Alert] = []
    for start in range(0, len(seen.times_ms), batch):
        part = seen.take(slice(start, start + batch))
        offsets = np.arange(start, start + len(part.times_ms))
        for kinds_opened in counts.update(_events(part, offsets), counting):
            alerts += watch.update(kinds_opened)
        alerts += concept.update(_labelled(part, offsets))
    return alerts


def _events(seen: SimulatedEvents, offsets: Rows) -> Events:
    times_ms, version = seen.times_ms, np.ones(len(offsets), dtype=np.int64)
    return Events(times_ms, times_ms, times_ms, offsets, version, seen.scores, seen.online, lambda _f: seen.matrix)


def _labelled(seen: SimulatedEvents, offsets: Rows) -> LabelledScores:
    times_ms, version = seen.times_ms, np.ones(len(offsets), dtype=np.int64)
    return LabelledScores(
        offsets, times_ms, times_ms, version, seen.scores, seen.labels, seen.online, lambda _name: seen.scores
    )


def name(alert: Alert) -> str:
    """Return the kind of an incident, and of which model it is where that is not the champion."""
    return f"{alert.kind} {ONLINE}" if alert.model == ONLINE else alert.kind


@dataclass(frozen=True, slots=True)
class Calm:
    """False alarms without drift.

    Parameters
    ----------
    days : float
    allowed : float
        By the budget.
    opened : mapping of str to int
        Incidents by `name`.
    """

    days: float
    allowed: float
    opened: dict[str, int]


def calm(
    world: TrafficSettings,
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
        for alert in alerts_of(reference, traffic(world, 10 * run + 1, reference_days, days), monitors):
            if alert.event == "open":
                opened[name(alert)] = opened.get(name(alert), 0) + 1
        progress()
    return Calm(runs * days, monitors.budget.per_day * runs * days, opened)


@dataclass(frozen=True, slots=True)
class Power:
    """Detection delays of a change.

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
    world: TrafficSettings,
    monitors: Monitors,
    change: Change,
    runs: int,
    reference_days: int = 56,
    progress: Callable[[], None] = lambda: None,
) -> Power:
    """Measure the detection delay of changes, by an incident of the right kind that opens after it.

    The change begins at a random hour of the week, once longest windows are full and the online model has a past.
    """
    delays_days, events = [], []
    burn_in_days = _ONLINE_DAYS if change.online_logit else _BURN_IN_DAYS
    reference = drill_reference(world, 1, reference_days, monitors)
    for run in range(runs):
        begins = reference_days + burn_in_days + np.random.default_rng(run).random() * 7
        seen = traffic(world, 1000 + run, reference_days, burn_in_days + 7 + 28, replace(change, day=begins))
        found = [
            each.at_ms
            for each in alerts_of(reference, seen, monitors)
            if each.event == "open" and name(each) == change.told_as and each.at_ms > begins * DAY_MS
        ]
        first_ms = min(found, default=math.inf)
        delays_days.append(first_ms / DAY_MS - begins)
        inside = (seen.times_ms >= begins * DAY_MS) & (seen.times_ms < first_ms)
        events.append(float(inside.sum()) if found else math.inf)
        progress()
    kinds_opened = sum(map(math.isfinite, delays_days))
    return Power(change.words, kinds_opened, runs, float(np.median(events)), float(np.median(delays_days)))


@dataclass(frozen=True, slots=True)
class OpenedIncidents:
    """What kinds of incidents a change opened.

    Parameters
    ----------
    change : str
    runs : int
    opened : mapping of str to int
        Runs in which an incident of that `name` opened after the change.
    """

    change: str
    runs: int
    opened: dict[str, int]


def meaning(
    world: TrafficSettings,
    monitors: Monitors,
    runs: int,
    reference_days: int = 56,
    progress: Callable[[], None] = lambda: None,
) -> list[OpenedIncidents]:
    """Distinguish covariate shift from concept change: what opens within two weeks of either, and of no change at all.

    Each run has a reference of its own.
    """
    begins = reference_days + _BURN_IN_DAYS
    changes = {
        "nothing changes": Change(begins),
        "features and scores move, meaning stays": Change(begins, driver_std=1.0),
        "meaning changes, features and scores stay": Change(begins, positive_ratio=2.0),
    }
    opened: dict[str, dict[str, int]] = {words: {} for words in changes}
    for run in range(runs):
        reference = drill_reference(world, 3000 + run, reference_days, monitors)
        for words, change in changes.items():
            seen = traffic(world, 2000 + run, reference_days, _BURN_IN_DAYS + 14, change)
            kinds_opened = alerts_of(reference, seen, monitors)
            for kind in {name(each) for each in kinds_opened if each.event == "open" and each.at_ms > begins * DAY_MS}:
                opened[words][kind] = opened[words].get(kind, 0) + 1
            progress()
    return [OpenedIncidents(words, runs, found) for words, found in opened.items()]
