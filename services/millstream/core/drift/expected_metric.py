"""The model's expected average precision from counts alone: confidence-based estimation, binned.

Events are counted by calibrated probability, in cells that hold the same share of the expected positives each, so that
few cells give precision at every recall. The estimate assumes that scores are calibrated, and that only the events'
distribution changes, not what a score means: `millstream.core.drift.concept` watches that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from millstream.core.batch import Floats, Rows

_CELLS: Final = 24


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of probability.

    Parameters
    ----------
    edges : tuple of float, length k - 1
        Ascending; cell i holds edges[i - 1] < p <= edges[i].
    probabilities : tuple of float, length k
        Mean probability of the reference's events in each.
    events : tuple of float, length k
        How many of them there are.
    """

    edges: tuple[float, ...]
    probabilities: tuple[float, ...]
    events: tuple[float, ...]

    @staticmethod
    def of(probabilities: Floats) -> Cells:
        """Cut a reference's probabilities, shape (n,), n >= 1, into cells of equal expected positives."""
        ordered = np.sort(probabilities)
        mass = np.cumsum(ordered)
        at = np.searchsorted(mass, mass[-1] * np.arange(1, _CELLS) / _CELLS)
        edges = np.unique(ordered[np.minimum(at, len(ordered) - 1)])
        edges = edges[edges < ordered[-1]]
        place = np.searchsorted(edges, probabilities, side="left")
        events = np.bincount(place, minlength=len(edges) + 1)
        means = np.bincount(place, probabilities, minlength=len(edges) + 1) / np.maximum(events, 1)
        return Cells(tuple(edges.tolist()), tuple(means.tolist()), tuple(events.astype(np.float64).tolist()))

    def count(self, probabilities: Floats) -> Rows:
        """Return how many events fall into each cell, int64 of shape (k,)."""
        place = np.searchsorted(self.edges, probabilities, side="left")
        return np.bincount(place, minlength=len(self.probabilities)).astype(np.int64)

    def average_precision(self, events: ArrayLike) -> float:
        """Return the expected average precision of events counted by cell; NaN if there are none.

        Cells come from the top down; within one, order carries no information. A positive with n events above it, k of
        them positives, has precision (1 + k) / (1 + n), itself included: what few events add to the figure of many is
        in it. Its mean over the places a positive may have in a cell is that quotient's integral.
        """
        counts, chances = np.asarray(events, dtype=np.float64)[::-1], np.array(self.probabilities)[::-1]
        positives = counts * chances
        total = float(positives.sum())
        if total <= 0:
            return math.nan
        called, hits = 1 + np.cumsum(counts) - counts, 1 + np.cumsum(positives) - positives
        surplus = (hits - chances * called) * np.log1p(counts / called) / np.maximum(counts, 1e-12)
        return float((positives / total * (chances + surplus)).sum())

    def change(self, events: Rows) -> float | None:
        """Return how far the expected average precision has moved from as many events of the reference's.

        None if it is undefined.
        """
        before = np.array(self.events)
        moved = self.average_precision(events) - self.average_precision(before * (events.sum() / before.sum()))
        return None if math.isnan(moved) else moved
