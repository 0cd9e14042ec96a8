"""The baseline of `millstream_lab.detectors.evaluation`: PSI of the newest values against the first ones."""

from __future__ import annotations

from typing import Final

import numpy as np

from millstream.core.drift.distance import psi

_BINS: Final = 10


class WindowedPsi:
    """PSI of the last ``window`` values against the ``window`` values after the last drift, every ``step`` values.

    Bins are deciles of those first values; after a drift it starts again with what follows.
    """

    def __init__(self, threshold: float = 0.25, window: int = 500, step: int = 25) -> None:
        self._threshold, self._window, self._step = threshold, window, step
        self._values: list[float] = []
        self.drift_detected = False

    def update(self, x: float) -> None:
        if self.drift_detected:
            self._values, self.drift_detected = [], False
        self._values.append(x)
        over = len(self._values) - 2 * self._window
        if over >= 0 and over % self._step == 0:
            self.drift_detected = self._psi() > self._threshold

    def _psi(self) -> float:
        first, newest = np.array(self._values[: self._window]), np.array(self._values[-self._window :])
        cuts = np.unique(np.quantile(first, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
        cuts = cuts[cuts < first.max()]
        counts = [np.bincount(np.searchsorted(cuts, each), minlength=len(cuts) + 1) for each in (newest, first)]
        return float(psi(counts[0], counts[1], len(cuts) + 1))
