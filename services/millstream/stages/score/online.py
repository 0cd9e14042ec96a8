"""The online model's scores beside the champion's, within a time budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.river_model import OnlineScorer
from millstream.core.batch import Batch
from millstream.errors import Refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnlineAnswer:
    """The online model's scores of a micro-batch.

    Parameters
    ----------
    scores : float64 ndarray of shape (n,)
        In [0, 1]; NaN where there is none.
    version : int or None
        Of the snapshot; None while there is none.
    counts : mapping of str to int
        Rows a snapshot gave no score: ``online_budget`` (no time left), ``online_failed``, ``online_silent`` (no
        opinion yet).
    """

    scores: NDArray[np.float64]
    version: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class Online:
    """Asks the newest snapshot; never raises, so that the champion can always answer.

    Parameters
    ----------
    budget_ms : float or None
        Most time per micro-batch for models that are scored row by row, in milliseconds; None: as long as it takes.
        Models that are scored as columns need none.
    clock_s : callable
        Monotonic seconds.

    Attributes
    ----------
    scorer : OnlineScorer or None
        Replace it between two micro-batches to swap snapshots.
    """

    def __init__(self, budget_ms: float | None = None, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self.scorer: OnlineScorer | None = None
        self._budget_s = None if budget_ms is None else budget_ms / 1000
        self._clock_s = clock_s
        self._failure = ""

    @property
    def name(self) -> str:
        """Name of the model; "" while there is none."""
        return "" if self.scorer is None else self.scorer.name

    def score(self, batch: Batch) -> OnlineAnswer:
        """Return the opinion on each row.

        Parameters
        ----------
        batch : Batch
            Features as served, and the champion's score.
        """
        scorer, nothing = self.scorer, np.full(batch.length, np.nan)
        if scorer is None or not batch.length:
            return OnlineAnswer(nothing, None if scorer is None else scorer.version)
        try:
            scores, beyond = scorer.score_within(batch, self._spare())
        except Refused as error:
            if str(error) != self._failure:
                self._failure = str(error)
                logger.error("online model %r, snapshot %s: %s", scorer.name, scorer.version, error)
            return OnlineAnswer(nothing, scorer.version, {"online_failed": batch.length})
        self._failure = ""
        valid = (scores >= 0) & (scores <= 1)
        silent = batch.length - int(np.count_nonzero(valid)) - beyond
        counts = {"online_budget": beyond, "online_silent": silent}
        return OnlineAnswer(np.where(valid, scores, np.nan), scorer.version, counts)

    def _spare(self) -> Callable[[], bool] | None:
        if self._budget_s is None:
            return None
        clock_s, deadline_s = self._clock_s, self._clock_s() + self._budget_s
        return lambda: clock_s() < deadline_s
