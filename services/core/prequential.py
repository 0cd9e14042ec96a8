"""How good scores were that were given before their labels were learnt: running sums that do not depend on batching.

Prequential ("predictive sequential") evaluation [1]_: each example first tests, then teaches.

References
----------
.. [1] Dawid (1984), "Present position and potential developments: the prequential approach", JRSS A 147.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 512
"""Of equal width on the logit, from -16 to 16; the outermost are open."""

_LOGIT_SPAN: Final = 32.0
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

    def update(self, labels: Iterable[bool], scores: Iterable[float]) -> None:
        """Take examples in order; a score is in [0, 1] or NaN."""
        log, bins = math.log, self._bins
        for label, score in zip(labels, scores, strict=True):
            if math.isnan(score):
                self.silent += 1
                continue
            low = _EPSILON if score < _EPSILON else 1 - _EPSILON if score > 1 - _EPSILON else score
            loss, other = log(low), log(1 - low)
            self.examples += 1
            self.positives += label
            self._log_loss -= loss if label else other
            self._brier += (label - score) ** 2
            place = int((loss - other) / _LOGIT_SPAN * BINS + BINS // 2)
            bins[int(label), min(max(place, 0), BINS - 1)] += 1

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
