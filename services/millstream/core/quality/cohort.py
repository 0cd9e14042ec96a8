"""The sums of one cohort: integers all, so that adding and taking away in any order leaves the same.

Real quantities are rounded once per example to a multiple of 2**-40 and summed as integers of any size: a mean is right
to 2**-41 (4.5e-13), and does not depend on order, grouping, or what was added and removed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask, Rows
from millstream.core.quality.score_cells import Counts, cells

ONE: Final = 1 << 40
BINS: Final = 20
"""Calibration bins: scores in [i/20, (i+1)/20), the last one closed."""

COUNTS: Final = ("negatives", "positives", "false_alarms", "hits")
"""Labelled 0 and labelled 1; those of them that were called positive."""

_EPSILON: Final = float(np.finfo(np.float64).eps)  # scores of 0 and 1 in the log-loss, as scikit-learn has them
_SUMS: Final = 4
_NO_CARDS: Final = Counts.empty(2, 2)


@dataclass(frozen=True, slots=True)
class RatedExamples:
    """Labelled examples as one model saw them, n rows.

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
    scores : float64 ndarray of shape (n,)
        In [0, 1].
    called : bool ndarray of shape (n,)
        What the decision threshold made of the score then.
    investigated : int64 ndarray of shape (n,)
        What is investigated, e.g. the card, as a number.
    """

    labels: Mask
    scores: NDArray[np.float64]
    called: Mask
    investigated: Rows

    def take(self, rows: Rows) -> RatedExamples:
        """Return the given rows."""
        return RatedExamples(self.labels[rows], self.scores[rows], self.called[rows], self.investigated[rows])


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
        By (what is investigated, score cell): negatives, positives. Nothing where cohorts of several days were summed.
    """

    counts: tuple[int, ...]
    sums: tuple[int, ...]
    bins: tuple[tuple[int, int, int], ...]
    ranking: Counts
    cards: Counts

    @staticmethod
    def empty() -> Cohort:
        """Return the cohort of no examples."""
        return Cohort((0,) * 4, (0,) * _SUMS, ((0, 0, 0),) * BINS, Counts.empty(1, 2), _NO_CARDS)

    @staticmethod
    def of(rated: RatedExamples, weights: Rows) -> Cohort:
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
        bins = [(0, 0, 0)] * BINS
        for each in np.unique(place).tolist():
            rows = np.flatnonzero(place == each)
            bins[each] = (int(weights[rows].sum()), int(signs[rows, 1].sum()), _fixed(scores[rows], weights[rows]))
        cell = cells(scores)
        ranking = Counts.total([Counts.empty(1, 2), Counts(cell[:, None], signs)])
        cards = Counts.total([_NO_CARDS, Counts(np.stack([rated.investigated, cell], axis=1), signs)])
        totals = signs.sum(axis=0)
        return Cohort((*map(int, totals), *map(int, calls)), sums, tuple(bins), ranking, cards)

    @staticmethod
    def total(parts: Sequence[Cohort]) -> Cohort:
        """Return all together; of no parts, the cohort of no examples."""
        if not parts:
            return Cohort.empty()
        if len(parts) == 1:
            return parts[0]
        return Cohort(
            tuple(map(sum, zip(*(part.counts for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.sums for part in parts), strict=True))),
            tuple(
                (sum(n), sum(positives), sum(scores))
                for n, positives, scores in (
                    zip(*column, strict=True) for column in zip(*(part.bins for part in parts), strict=True)
                )
            ),
            Counts.total([part.ranking for part in parts]),
            Counts.total([part.cards for part in parts]),
        )

    def negative(self) -> Cohort:
        """Return what takes this cohort away."""
        return Cohort(
            tuple(-count for count in self.counts),
            tuple(-total for total in self.sums),
            tuple((-n, -positives, -scores) for n, positives, scores in self.bins),
            self.ranking.negative(),
            self.cards.negative(),
        )

    def without_cards(self) -> Cohort:
        """Return the cohort for summing over days; precision among cards is a day's own."""
        return replace(self, cards=_NO_CARDS)

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
