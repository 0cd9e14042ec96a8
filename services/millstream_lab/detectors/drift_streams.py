"""Published streams with known drift, from their definitions, and the learner whose errors detectors are fed.

References
----------
.. [1] Gama, Medas, Castillo, Rodrigues (2004), "Learning with drift detection", SBIA: SINE1 and CIRCLES.
.. [2] Pesaranghader, Viktor (2016), "Fast Hoeffding drift detection method for evolving data streams", ECML PKDD: 10 %
       label noise, SINE1 changing every 20,000 events at once (over 50), CIRCLES every 25,000 gradually (over 500);
       a detection counts within 250 and 1,000 events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Floats, Mask
from millstream.core.jit import kernel

_CIRCLES: Final = ((0.2, 0.5, 0.15), (0.4, 0.5, 0.2), (0.6, 0.5, 0.25), (0.8, 0.5, 0.3))
_NOISE: Final = 0.1


@dataclass(frozen=True, slots=True)
class DriftStream:
    """A labelled stream and where it changes.

    Parameters
    ----------
    name : str
    features : float64 ndarray of shape (n, 2)
    labels : bool ndarray of shape (n,)
    drifts : tuple of int
        Rows where a change begins.
    within : int
        A detection less than so many rows later is of that change.
    """

    name: str
    features: Floats
    labels: Mask
    drifts: tuple[int, ...]
    within: int


def sine1(seed: int, length: int = 100_000, every: int = 20_000, width: int = 50) -> DriftStream:
    """Return SINE1: positive on or below sin(x), and the other way round after each drift [1]_, [2]_."""
    rng = np.random.default_rng(seed)
    points = rng.random((length, 2))
    below = points[:, 1] <= np.sin(points[:, 0])
    concept = _concepts(rng, length, every, width)
    return DriftStream("SINE1", points, _noisy(rng, below ^ (concept % 2 == 1)), _starts(length, every), 250)


def circles(seed: int, length: int = 100_000, every: int = 25_000, width: int = 500) -> DriftStream:
    """Return CIRCLES: positive inside a circle, the next of four after each drift [1]_, [2]_."""
    rng = np.random.default_rng(seed)
    points = rng.random((length, 2))
    inside = np.stack([np.hypot(points[:, 0] - x, points[:, 1] - y) <= r for x, y, r in _CIRCLES])
    concept = _concepts(rng, length, every, width) % len(_CIRCLES)
    labels = inside[concept, np.arange(length)]
    return DriftStream("CIRCLES", points, _noisy(rng, labels), _starts(length, every), 1000)


def two_levels(seed: int, length: int = 2000, drift: int = 1000) -> Floats:
    """Return the stream of River's examples: 0 or 1, then 4 to 7, float64 of shape (length,)."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 2, drift), rng.integers(4, 8, length - drift)
    return np.concatenate([low, high]).astype(np.float64)


def _starts(length: int, every: int) -> tuple[int, ...]:
    return tuple(range(every, length, every))


def _concepts(rng: np.random.Generator, length: int, every: int, width: int) -> NDArray[np.int64]:
    """Return the concept of each row; around each drift the next one's chance rises as a sigmoid of so many rows."""
    rows, draws = np.arange(length), rng.random(length)
    concept = np.zeros(length, dtype=np.int64)
    for start in _starts(length, every):
        concept += draws < 1 / (1 + np.exp(np.clip(-4 * (rows - start - width / 2) / width, -500, 500)))
    return concept


def _noisy(rng: np.random.Generator, labels: Mask) -> Mask:
    return np.asarray(labels ^ (rng.random(len(labels)) < _NOISE))


BLANK: Final = 10


@kernel
def learn_and_predict(state: Floats, features: Floats, labels: Mask, chances: Floats) -> None:
    """Fill in the chance of a positive before learning each row: Gaussian naive Bayes, two features, incremental.

    ``state`` has, for each class, its count and the mean and sum of squares of each feature: zeros to begin with.
    """
    for row in range(len(features)):
        logs = np.zeros(2)
        for c in range(2):
            n = state[5 * c]
            logs[c] = math.log(n + 1.0)
            for f in range(2):
                mean = state[5 * c + 1 + 2 * f]
                variance = (state[5 * c + 2 + 2 * f] + 0.1) / (n + 1.0)
                logs[c] -= 0.5 * math.log(variance) + (features[row, f] - mean) ** 2 / (2.0 * variance)
        chances[row] = 1.0 / (1.0 + math.exp(min(700.0, max(-700.0, logs[0] - logs[1]))))
        c = 1 if labels[row] else 0
        state[5 * c] += 1.0
        for f in range(2):
            x = features[row, f]
            gap = x - state[5 * c + 1 + 2 * f]
            state[5 * c + 1 + 2 * f] += gap / state[5 * c]
            state[5 * c + 2 + 2 * f] += gap * (x - state[5 * c + 1 + 2 * f])
