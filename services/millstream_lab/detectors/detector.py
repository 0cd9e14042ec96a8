"""What a streaming detector is, as in `river.drift`: values in, one after the other; drift or none out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from millstream.core.batch import Floats


class Detector(Protocol):
    """A streaming change detector; the value after a drift starts it again."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value completed a drift."""

    def update(self, x: float) -> object:
        """Take one value: any real number, or 1 for an error and 0 for a correct prediction."""


def detect(detector: Detector, column: Floats) -> Iterator[int]:
    """Yield each row at which the detector finds drift; it has not seen later rows by then."""
    update = detector.update
    for row, x in enumerate(column.tolist()):
        update(x)
        if detector.drift_detected:
            yield row


class Cusum:
    """CUSUM [1]_ of *standardised* values: mean 0 and standard deviation 1 while nothing has changed.

    Its memory reaches back to where the sum was last 0, so the reference is the caller's, not the recent past: a slow
    change is not learnt away.

    Parameters
    ----------
    threshold : float, > 0
        In standard deviations; about ``log(2 * allowance**2 * n) / (2 * allowance)`` for a false alarm in n values.
    allowance : float, >= 0
        Half of the smallest shift worth an alarm, in standard deviations.
    two_sided : bool
        Whether decreases count as well.

    References
    ----------
    .. [1] Page (1954), "Continuous inspection schemes", Biometrika 41.
    """

    def __init__(self, threshold: float, allowance: float = 0.25, two_sided: bool = True) -> None:
        self._threshold, self._allowance, self._two_sided = threshold, allowance, two_sided
        self._up = self._down = 0.0
        self.drift_detected = False

    def update(self, x: float) -> None:
        if self.drift_detected:
            self._up = self._down = 0.0
        self._up = max(0.0, self._up + x - self._allowance)
        if self._two_sided:
            self._down = max(0.0, self._down - x - self._allowance)
        self.drift_detected = self._up > self._threshold or self._down > self._threshold
