"""Which partitions are checkpointed now: each in its turn, so that no micro-batch waits for the state of all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

_TURN_MS = 250


class CheckpointTurns:
    """Spread the checkpoints of a stage's partitions over the interval.

    Parameters
    ----------
    interval_ms : int
        Each changed partition is checkpointed once in so many milliseconds.
    clock_s : callable
        Monotonic, in seconds.
    """

    def __init__(self, interval_ms: int, clock_s: Callable[[], float]) -> None:
        self._interval_ms = interval_ms
        self._clock_s = clock_s
        self._turn_at_s = clock_s()

    def due(self, changed: Iterable[int], owned: int) -> list[int]:
        """Return the partitions to checkpoint now, those first that have waited longest.

        Parameters
        ----------
        changed : iterable of int
            Partitions whose state has changed since their checkpoint, the one that waits longest first.
        owned : int
            Number of partitions of this stage.
        """
        turn_ms = max(self._interval_ms / max(1, owned), min(_TURN_MS, self._interval_ms))
        if (self._clock_s() - self._turn_at_s) * 1000 < turn_ms:
            return []
        self._turn_at_s = self._clock_s()
        return list(itertools.islice(changed, math.ceil(owned * turn_ms / self._interval_ms)))
