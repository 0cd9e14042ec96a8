"""River's ADWIN and KSWIN behind `millstream.core.drift.detector.Detector`.

References
----------
.. [1] Bifet, Gavalda (2007), "Learning from time-changing data with adaptive windowing", SIAM SDM.
.. [2] Raab, Heusinger, Schleif (2020), "Reactive soft prototype computing for concept drift streams",
       Neurocomputing 416.
"""

from __future__ import annotations

import base64
import collections
import math
from typing import Any

import numpy as np
from millstream.core.drift.detector import Convention, Detections, Floats, pack, unpack


class _RiverDetector:
    """What both have in common: one value at a time into River's object."""

    name: str
    convention: Convention = "values"
    warning = False
    _inner: Any
    _params: dict[str, Any]

    @property
    def drift(self) -> bool:
        return bool(self._inner.drift_detected)

    @property
    def statistic(self) -> float:
        raise NotImplementedError

    @property
    def threshold(self) -> float:
        raise NotImplementedError

    def update(self, x: float) -> None:
        if not math.isnan(x):
            self._inner.update(x)

    def update_many(self, column: Floats) -> Detections:
        rows: list[int] = []
        statistics: list[float] = []
        thresholds: list[float] = []
        inner = self._inner
        update = inner.update
        for row in np.flatnonzero(~np.isnan(column)).tolist():
            update(float(column[row]))
            if inner._drift_detected:  # the property costs as much as the update
                rows.append(row)
                statistics.append(self.statistic)
                thresholds.append(self.threshold)
        return Detections(
            np.array(rows, dtype=np.int64), np.array(statistics), np.array(thresholds), np.zeros(0, dtype=np.int64)
        )


class Adwin(_RiverDetector):
    """ADWIN [1]_: cuts a window of adaptive width wherever two parts of it differ in mean; parameters as River's.

    Its bound differs from cut to cut, so ``threshold`` is NaN; ``statistic`` is the mean of the window. 0.2 us a value.
    """

    name = "adwin"

    def __init__(
        self,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
    ) -> None:
        from river.drift import ADWIN

        self._params = {
            "delta": delta,
            "clock": clock,
            "max_buckets": max_buckets,
            "min_window_length": min_window_length,
            "grace_period": grace_period,
        }
        self._inner = ADWIN(**self._params)  # type: ignore[no-untyped-call]

    @property
    def statistic(self) -> float:
        return float(self._inner.estimation) if self._inner.width else math.nan

    @property
    def threshold(self) -> float:
        return math.nan

    def snapshot(self) -> bytes:
        window = base64.b64encode(self._inner._helper.__getstate__()).decode()
        return pack(self.name, self._params, [window, self.drift])

    def restore(self, snapshot: bytes) -> None:
        window, drift = unpack(self.name, self._params, snapshot)
        self._inner._helper.__setstate__(base64.b64decode(window))
        self._inner._drift_detected = drift


class Kswin(_RiverDetector):
    """KSWIN [2]_: a Kolmogorov-Smirnov test of the newest values against a sample of older ones.

    Parameters as River's; the seed is needed so that a replay gives the same result. ``statistic`` and ``threshold``
    are -log10 of the p-value and of ``alpha``; River also asks a distance above 0.1, so drift does not follow from
    the two alone. A test for each value: 0.3 ms, not for a hot path.
    """

    name = "kswin"

    def __init__(self, alpha: float = 0.005, window_size: int = 100, stat_size: int = 30, seed: int = 0) -> None:
        from river.drift import KSWIN

        self._params = {"alpha": alpha, "window_size": window_size, "stat_size": stat_size, "seed": seed}
        self._inner = KSWIN(**self._params)

    @property
    def statistic(self) -> float:
        if not self._inner.drift_detected and len(self._inner.window) < self._inner.window_size:
            return math.nan
        p_value = float(self._inner.p_value)
        return -math.log10(p_value) if p_value > 0 else math.inf

    @property
    def threshold(self) -> float:
        return -math.log10(self._inner.alpha)

    def snapshot(self) -> bytes:
        inner = self._inner
        version, words, gauss = inner._rng.getstate()
        state = [list(inner.window), inner.n, float(inner.p_value), [version, list(words), gauss], self.drift]
        return pack(self.name, self._params, state)

    def restore(self, snapshot: bytes) -> None:
        window, n, p_value, (version, words, gauss), drift = unpack(self.name, self._params, snapshot)
        inner = self._inner
        inner._rng.setstate((version, tuple(words), gauss))
        inner.window = collections.deque(window, maxlen=inner.window_size)
        inner.n, inner.p_value, inner._drift_detected = n, p_value, drift
