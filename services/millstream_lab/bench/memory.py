"""Resident memory of workers, sampled while they run."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping
from typing import Any

from millstream.adapters.telemetry.process_usage import usage_of

_INTERVAL_S = 0.5
_STEADY_SAMPLES = 6


class MemoryWatch:
    """Samples each worker's process tree from `start` until `stop`.

    Parameters
    ----------
    pids : mapping of str to int
        By worker name.
    """

    def __init__(
        self, pids: Mapping[str, int], rss: Callable[[int], int] = lambda pid: usage_of(pid).rss_bytes
    ) -> None:
        self._pids = dict(pids)
        self._rss = rss
        self._taken: dict[str, list[float]] = {name: [] for name in pids}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def start(self) -> MemoryWatch:
        """Begin to sample."""
        self._thread.start()
        return self

    def stop(self) -> dict[str, Any]:
        """Take a last sample; return peak and steady MB by worker, steady being the median of the last 3 seconds."""
        self._ending.set()
        self._thread.join()
        self._once()
        return {
            name: {
                "peak_mb": max(taken, default=0.0),
                "steady_mb": statistics.median(taken[-_STEADY_SAMPLES:]) if taken else 0.0,
            }
            for name, taken in self._taken.items()
        }

    def _sample(self) -> None:
        while not self._ending.wait(_INTERVAL_S):
            self._once()

    def _once(self) -> None:
        for name, pid in self._pids.items():
            rss = self._rss(pid)
            if rss:
                self._taken[name].append(rss / 1e6)
