"""Choosing how trees are grown on weeks that are over, so that the week that counts is not looked at.

References
----------
.. [1] Le Borgne, Siblini, Lebichot, Bontempi (2022), "Reproducible Machine Learning for Credit Card Fraud Detection:
       Practical Handbook", chapter 5, section "Prequential validation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask
from millstream.stages.retrain.fit import Growth, Progress, fit


@dataclass(frozen=True, slots=True)
class Choice:
    """What did best.

    Parameters
    ----------
    growth : Growth
        With as many rounds as were best; grow it without a validation part.
    average_precision : float
        The mean over the folds after that many trees.
    tried : tuple of (Growth, float)
        Every candidate, with as many rounds as were best for it, and what it reached.
    """

    growth: Growth
    average_precision: float
    tried: tuple[tuple[Growth, float], ...]


def choose(
    names: Sequence[str],
    matrix: NDArray[np.float64],
    labels: Mask,
    folds: Sequence[tuple[Mask, Mask]],
    candidates: Sequence[Growth],
    progress: Callable[[int, int, Progress], None] | None = None,
) -> Choice:
    """Return the growth, rounds included, with the highest mean average precision over the folds [1]_.

    Parameters
    ----------
    names : sequence of str, length f
    matrix : float64 ndarray of shape (n, f)
    labels : bool ndarray of shape (n,)
    folds : sequence of (train, test)
        Bool ndarrays of shape (n,), both classes in each.
    candidates : sequence of Growth, at least one
        Their rounds are the most that are tried; of equals the first is chosen.
    progress : callable, optional
        Called after each tree with candidate, fold and how far that one has come.
    """
    tried = []
    for place, candidate in enumerate(candidates):
        patient = replace(candidate, patience=candidate.rounds)
        curves = []
        for number, (train, test) in enumerate(folds):

            def report(grown: Progress, place: int = place, number: int = number) -> None:
                if progress is not None:
                    progress(place, number, grown)

            curves.append(fit(names, matrix, labels, train, test, patient, report).curve)
        mean = np.mean(curves, axis=0)
        rounds = int(np.argmax(mean)) + 1
        tried.append((replace(candidate, rounds=rounds), float(mean[rounds - 1])))
    return Choice(*max(tried, key=lambda each: each[1]), tuple(tried))
