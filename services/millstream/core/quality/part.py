"""Inputs of quality figures: sums of examples of some days, and how many predictions they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from millstream.core.batch import Mask, Rows
from millstream.core.metrics import card_precision_top_k
from millstream.core.quality.cohort import Cohort
from millstream.core.quality.score_cells import representatives


@dataclass(frozen=True, slots=True)
class PredictionCounts:
    """How many predictions a cohort's examples come from; of those called positive and of the others."""

    called: int
    uncalled: int

    @property
    def all(self) -> int:
        """Both together."""
        return self.called + self.uncalled

    @staticmethod
    def total(parts: Sequence[PredictionCounts]) -> PredictionCounts:
        """Return all together."""
        return PredictionCounts(sum(part.called for part in parts), sum(part.uncalled for part in parts))


@dataclass(frozen=True, slots=True)
class Part:
    """Labelled examples of some days as sums; parts of different days add up.

    Parameters
    ----------
    cohort : Cohort
        Without cards.
    predicted : PredictionCounts or None
        Of the same model and days; None where predictions are not counted.
    detected : int
        Compromised cards among each day's k most suspicious ones, summed over days.
    card_days : int
        Days that could be counted for that.
    undecided : int
        How many more or fewer are detected at most by the scores as served, where the k-th card shares its cell.
    """

    cohort: Cohort
    predicted: PredictionCounts | None
    detected: int
    card_days: int
    undecided: int = 0

    @staticmethod
    def of_day(cohort: Cohort, predicted: PredictionCounts | None, k: int) -> Part:
        """Return a day's part.

        A card counts with its highest score of the day [1]_ and is compromised if any of its events is. Each day is
        taken on its own: what was detected on another day is not left out.

        References
        ----------
        .. [1] `millstream.core.metrics.card_precision_top_k`, of scores rounded to their cells.
        """
        keys, counts = cohort.cards.keys, cohort.cards.counts
        same_day = np.zeros(len(keys), dtype=np.int64)
        found = card_precision_top_k(counts[:, 1] > 0, representatives(keys[:, 1]), keys[:, 0], same_day, k)
        detected = sum(round(day.precision * k) for day in found)
        return Part(cohort.without_cards(), predicted, detected, len(found), _undecided(keys, counts[:, 1] > 0, k))

    @staticmethod
    def total(parts: Sequence[Part]) -> Part:
        """Return all together."""
        counted = [part.predicted for part in parts if part.predicted is not None]
        return Part(
            Cohort.total([part.cohort for part in parts]),
            PredictionCounts.total(counted) if counted else None,
            sum(part.detected for part in parts),
            sum(part.card_days for part in parts),
            sum(part.undecided for part in parts),
        )

    def negative(self) -> Part:
        """Return what takes this part away."""
        predicted = self.predicted and PredictionCounts(-self.predicted.called, -self.predicted.uncalled)
        return Part(self.cohort.negative(), predicted, -self.detected, -self.card_days, -self.undecided)


def _undecided(keys: Rows, positive: Mask, k: int) -> int:
    """Return how far the count of detected cards can be from that of unrounded scores.

    A card above the cell of the k-th is among the k by any order of the scores in that cell, one below it is not.

    Parameters
    ----------
    keys : int64 ndarray of shape (m, 2)
        Card and score cell.
    positive : bool ndarray of shape (m,)
    """
    cards, position = np.unique(keys[:, 0], return_inverse=True)
    if len(cards) <= k:
        return 0
    highest, compromised = np.zeros(len(cards), dtype=np.int64), np.zeros(len(cards), dtype=np.bool_)
    np.maximum.at(highest, position, keys[:, 1])
    np.logical_or.at(compromised, position, positive)
    order = np.argsort(-highest, kind="stable")
    shared = highest == highest[order[k - 1]]
    room = k - int(np.count_nonzero(highest > highest[order[k - 1]]))
    found = int(np.count_nonzero(compromised[order[:k]] & shared[order[:k]]))
    bad, good = int(np.count_nonzero(compromised & shared)), int(np.count_nonzero(~compromised & shared))
    return max(min(room, bad) - found, found - max(0, room - good))
