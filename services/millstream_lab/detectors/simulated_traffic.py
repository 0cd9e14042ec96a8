"""Simulated traffic with known changes, for testing monitors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from millstream.core.batch import Floats, Mask, Rows
from millstream.core.drift.alert import ONLINE
from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.seasons import HOUR_MS

FEATURES: Final = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """Parameters of the simulated traffic.

    Parameters
    ----------
    events_per_day : int
    positive_share : float, in (0, 1)
        About; by the score's own account.
    wander : float, >= 0
        Standard deviation of the online model's scores about the champion's, on the logit: what it learns and forgets
        again within about a week (an Ornstein-Uhlenbeck process). The default is that of the card stream's model.
    """

    events_per_day: int = 2400
    positive_share: float = 0.02
    wander: float = 0.1


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
    online_logit : float
        The online model's scores are higher by so much on the logit.
    """

    day: float
    shift_std: float = 0.0
    positive_ratio: float = 1.0
    driver_std: float = 0.0
    online_logit: float = 0.0

    @property
    def words(self) -> str:
        """What it is, for a person."""
        if self.online_logit:
            return f"online model {self.online_logit:+g} on the logit"
        return (
            f"{self.shift_std:g} sd in one feature" if self.shift_std else f"{self.positive_ratio - 1:+.0%} positives"
        )

    @property
    def told_as(self) -> str:
        """The `name` of the incident that must report it."""
        return f"score {ONLINE}" if self.online_logit else "data" if self.shift_std else "concept"


CHANGES: Final = (
    *(Change(0, shift_std=each) for each in (0.1, 0.25, 0.5)),
    *(Change(0, positive_ratio=each) for each in (1.25, 1.5, 2.0)),
    *(Change(0, online_logit=each) for each in (0.5, 1.0)),
)
"""Those whose delay is measured."""


@dataclass(frozen=True, slots=True)
class SimulatedEvents:
    """Traffic in order of time."""

    times_ms: Rows
    matrix: Floats
    scores: Floats
    online: Floats
    labels: Mask

    def take(self, rows: slice) -> SimulatedEvents:
        """Return some of it."""
        return SimulatedEvents(
            self.times_ms[rows], self.matrix[rows], self.scores[rows], self.online[rows], self.labels[rows]
        )


def traffic(
    world: TrafficSettings, seed: int, first_day: int, days: int, change: Change | None = None
) -> SimulatedEvents:
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
    online = -np.log(1 / scores - 1) + _wandering(world, seed, len(hours))[rows]
    if change is not None:
        matrix[after, 0] += change.shift_std
        online[after] += change.online_logit
        truth = np.where(after, np.minimum(scores * change.positive_ratio, 0.999), scores)
    return SimulatedEvents(times_ms, matrix, scores, 1 / (1 + np.exp(-online)), rng.random(len(rows)) < truth)


def _wandering(world: TrafficSettings, seed: int, hours: int) -> Floats:
    """Return how far the online model is from the champion in each hour, float64 of shape (hours,)."""
    from scipy.signal import lfilter  # type: ignore[import-untyped]

    kept = math.exp(-1 / 168)
    steps = np.random.default_rng((seed, 1)).normal(scale=world.wander * math.sqrt(1 - kept**2), size=hours)
    return np.asarray(lfilter([1.0], [1.0, -kept], steps))
