"""The sums of one cohort: integers all, so that adding and taking away in any order leaves the same.

Real quantities are rounded once per example to a multiple of 2**-40 and summed as integers of any size: a mean is right
to 2**-41 (4.5e-13), and does not depend on order, grouping, or what was added and removed in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.core.batch import Mask, Rows
from services.core.quality.score_cells import Counts, cells

ONE: Final = 1 << 40
BINS: Final = 20
"""Calibration bins: scores in [i/20, (i+1)/20), the last one closed."""

COUNTS: Final = ("negatives", "positives", "false_alarms", "hits")
"""Labelled 0 and labelled 1; those of them that were called positive."""

_EPSILON: Final = 1e-15
_SUMS: Final = 4


@dataclass(frozen=True, slots=True)
class Rated:
    """Labelled examples as one model saw them, n rows.

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
    scores : float64 ndarray of shape (n,)
        In [0, 1].
    called : bool ndarray of shape (n,)
        What the decision threshold made of the score then.
    groups : int64 ndarray of shape (n,)
        What is investigated, e.g. the card, as a number.
    days : int64 ndarray of shape (n,)
        Day of the event, since 1970-01-01 UTC.
    """

    labels: Mask
    scores: NDArray[np.float64]
    called: Mask
    groups: Rows
    days: Rows

    def take(self, rows: Rows) -> Rated:
        """Return the given rows."""
        return Rated(self.labels[rows], self.scores[rows], self.called[rows], self.groups[rows], self.days[rows])


@dataclass(frozen=True, slots=True)
class Cohort:
    """Sums over examples; equal sets of examples give equal cohorts, whatever came and went.

    Parameters
    ----------
    counts : tuple of int
        See `COUNTS`.
    sums : tuple of int
        Log-loss, its square, Brier score, its square; multiples of 2**-40.
    bins : tuple of (int, int, int)
        Per calibration bin: examples, positives, sum of scores as a multiple of 2**-40.
    ranking : Counts
        By score cell: negatives, positives.
    cards : Counts
        By (day, group, score cell): negatives, positives.
    """

    counts: tuple[int, ...]
    sums: tuple[int, ...]
    bins: tuple[tuple[int, int, int], ...]
    ranking: Counts
    cards: Counts

    @staticmethod
    def empty() -> Cohort:
        """Return the cohort of no examples."""
        return Cohort((0,) * 4, (0,) * _SUMS, ((0, 0, 0),) * BINS, Counts.empty(1, 2), Counts.empty(3, 2))

    @staticmethod
    def of(rated: Rated, weights: Rows) -> Cohort:
        """Return the sums over examples, each counted ``weights`` times: 1 adds it, -1 takes it away.

        Parameters
        ----------
        weights : int64 ndarray of shape (n,)
        """
        labels, scores = rated.labels, rated.scores
        signs = np.stack([np.where(labels, 0, weights), np.where(labels, weights, 0)], axis=1)
        calls = (signs * rated.called[:, None]).sum(axis=0)
        clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
        loss = -np.log(np.where(labels, clipped, 1 - clipped))
        brier = (scores - labels) ** 2
        sums = tuple(_fixed(each, weights) for each in (loss, loss**2, brier, brier**2))
        place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        bins = []
        for each in range(BINS):
            rows = np.flatnonzero(place == each)
            bins.append(
                (int(weights[rows].sum()), int(signs[rows, 1].sum()), _fixed(scores[rows], weights[rows]))
                if len(rows)
                else (0, 0, 0)
            )
        cell = cells(scores)
        ranking = Counts.empty(1, 2).plus(Counts(cell[:, None], signs))
        cards = Counts.empty(3, 2).plus(Counts(np.stack([rated.days, rated.groups, cell], axis=1), signs))
        totals = signs.sum(axis=0)
        return Cohort((*map(int, totals), *map(int, calls)), sums, tuple(bins), ranking, cards)

    def plus(self, other: Cohort) -> Cohort:
        """Return both together."""
        return Cohort(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple((a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a, b in zip(self.bins, other.bins, strict=True)),
            self.ranking.plus(other.ranking),
            self.cards.plus(other.cards),
        )

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return self.counts[0] + self.counts[1]

    @property
    def nothing(self) -> bool:
        """Whether everything that was added has been taken away."""
        return not (any(self.counts) or any(self.sums) or len(self.ranking.keys) or len(self.cards.keys))

    def mean(self, which: int) -> tuple[float, float]:
        """Return mean and variance of the log-loss (0) or the Brier score (1); NaN without examples."""
        n = self.examples
        if n <= 0:
            return float("nan"), float("nan")
        total, squared = self.sums[2 * which], self.sums[2 * which + 1]
        mean = total / (n * ONE)
        return mean, max(0.0, squared / (n * ONE) - mean * mean)


def _fixed(values: NDArray[np.float64], weights: Rows) -> int:
    """Return the weighted sum of values below 2**12, each rounded to a multiple of 2**-40, as such a multiple."""
    whole = np.rint(values * ONE).astype(np.int64)
    high, low = whole >> 26, whole & ((1 << 26) - 1)  # in two parts: no sum of 2**36 of them leaves 64 bits
    return (int((high * weights).sum()) << 26) + int((low * weights).sum())
