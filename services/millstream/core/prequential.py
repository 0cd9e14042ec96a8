"""Prequential metrics of scores: running sums independent of batching.

Prequential ("predictive sequential") evaluation [1]_: each example first tests, then teaches.

References
----------
.. [1] Dawid (1984), "Present position and potential developments: the prequential approach", JRSS A 147.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask

Floats = NDArray[np.float64]

BINS: Final = 512
"""Of equal width on the logit, from -16 to 16; the outermost are open."""

_EDGES: Final = np.array([1 / (1 + math.exp(-32 * (place / BINS - 0.5))) for place in range(1, BINS)])
_EPSILON: Final = 1e-15


class Prequential:
    """Counts and sums over (label, score) in the order given.

    Sums are taken one by one, so that any cutting of the sequence gives the same figures to the last bit.

    Attributes
    ----------
    examples, positives : int
        Scored examples, and those labelled positive.
    silent : int
        Examples that had no score (NaN); they count nowhere else.
    """

    def __init__(self) -> None:
        self.examples = 0
        self.positives = 0
        self.silent = 0
        self._log_loss = 0.0
        self._brier = 0.0
        self._bins: NDArray[np.int64] = np.zeros((2, BINS), dtype=np.int64)

    def update(self, labels: Mask, scores: Floats) -> None:
        """Take examples in order.

        Parameters
        ----------
        labels : bool ndarray of shape (n,)
        scores : float64 ndarray of shape (n,)
            In [0, 1], or NaN.
        """
        known = ~np.isnan(scores)
        labels, scores = labels[known], scores[known]
        self.silent += len(known) - len(scores)
        self.examples += len(scores)
        self.positives += int(np.count_nonzero(labels))
        clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
        sure = np.where(labels, clipped, 1 - clipped)
        # One logarithm at a time: a vectorised one may differ in its last bit from place to place in an array.
        self._log_loss = _running(self._log_loss, [-each for each in map(math.log, sure.tolist())])
        self._brier = _running(self._brier, (labels - scores) ** 2)
        places = np.searchsorted(_EDGES, scores, side="right")
        self._bins += np.bincount(labels * BINS + places, minlength=2 * BINS).reshape(2, BINS)

    def figures(self) -> dict[str, float]:
        """Return ``log_loss`` (nats), ``brier`` and ``auc`` as far as they are defined.

        The area under the ROC curve counts scores of one bin (1/16 of a logit wide) as ties.
        """
        found: dict[str, float] = {}
        if self.examples:
            found = {"log_loss": self._log_loss / self.examples, "brier": self._brier / self.examples}
        negatives, positives = self._bins
        pairs = int(negatives.sum()) * int(positives.sum())
        if pairs:
            below = np.cumsum(negatives) - negatives
            found["auc"] = float(positives @ (2 * below + negatives)) / (2 * pairs)
        return found

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values; floats survive exactly."""
        sums = [self._log_loss, self._brier]
        counts = [self.examples, self.positives, self.silent]
        filled = [[[int(place), int(row[place])] for place in np.flatnonzero(row)] for row in self._bins]
        return {"counts": counts, "sums": sums, "bins": filled}

    @staticmethod
    def of_state(state: dict[str, Any]) -> Prequential:
        """Return what `state` was taken of; TypeError, KeyError, ValueError or IndexError if it is none."""
        made = Prequential()
        made.examples, made.positives, made.silent = map(int, state["counts"])
        made._log_loss, made._brier = map(float, state["sums"])
        for row, filled in zip(made._bins, state["bins"], strict=True):
            for place, count in filled:
                row[place] = count
        return made


def _running(total: float, terms: Sequence[float] | Floats) -> float:
    """Return ``total`` with each term added in turn: not pairwise, which would depend on where the batch was cut."""
    return float(np.cumsum(np.concatenate([[total], terms]))[-1])
