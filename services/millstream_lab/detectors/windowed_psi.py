"""The baseline of `millstream_lab.detectors.evaluation`: PSI of the newest values against the first ones."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from millstream.core.drift.detector import Convention, Detections, Floats, pack, unpack
from millstream.core.drift.distance import psi

_BINS: Final = 10


class WindowedPsi:
    """PSI of the last ``window`` values against the ``window`` values after the last drift, every ``step`` values.

    Bins are deciles of those first values; a drift begins anew with what follows it.
    """

    name: Final = "windowed_psi"
    convention: Final[Convention] = "values"
    warning: Final = False

    def __init__(self, threshold: float = 0.25, window: int = 500, step: int = 25) -> None:
        self.threshold = threshold
        self._window, self._step = window, step
        self._values: list[float] = []
        self.statistic = math.nan
        self.drift = False

    def update(self, x: float) -> None:
        self.update_many(np.array([x], dtype=np.float64))

    def update_many(self, column: Floats) -> Detections:
        rows, statistics = [], []
        for row in np.flatnonzero(~np.isnan(column)).tolist():
            if self.drift:
                self._values, self.statistic, self.drift = [], math.nan, False
            self._values.append(float(column[row]))
            over = len(self._values) - 2 * self._window
            if over >= 0 and over % self._step == 0:
                self.statistic = self._psi()
                self.drift = self.statistic > self.threshold
            if self.drift:
                rows.append(row)
                statistics.append(self.statistic)
        found = np.array(rows, dtype=np.int64)
        thresholds = np.full(len(rows), self.threshold)
        return Detections(found, np.array(statistics, dtype=np.float64), thresholds, np.zeros(0, dtype=np.int64))

    def _psi(self) -> float:
        first, newest = np.array(self._values[: self._window]), np.array(self._values[-self._window :])
        cuts = np.unique(np.quantile(first, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
        cuts = cuts[cuts < first.max()]
        counts = [np.bincount(np.searchsorted(cuts, each), minlength=len(cuts) + 1) for each in (newest, first)]
        return float(psi(counts[0], counts[1], len(cuts) + 1))

    def snapshot(self) -> bytes:
        kept = self._values[: self._window], self._values[self._window :]
        return pack(self.name, self._params, [*kept, self.statistic, self.drift])

    def restore(self, snapshot: bytes) -> None:
        first, rest, self.statistic, self.drift = unpack(self.name, self._params, snapshot)
        self._values = first + rest

    @property
    def _params(self) -> dict[str, float]:
        return {"threshold": self.threshold, "window": self._window, "step": self._step}
