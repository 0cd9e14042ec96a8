"""Freshness of the online view: samples events and checks that their rows can be read.

An event's row counts as there once the store has one at least as new. What is not there yet is asked for again, so that
a store that stands still is seen to fall behind, and not to be always just a moment late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from millstream.core.batch import Array, Batch

ReadTimes = Callable[[str, Array], Sequence[int | None]]
"""From a view and entity keys to the feature time (microseconds) of each one's row; None where it cannot be read."""

EVERY_S: Final = 5.0
_SAMPLED = 8
_MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the scored record has the entity key and feature time of a view's rows."""

    key: str
    time_us: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    view: str
    key: object
    time_us: int
    scored_at_ms: int


class Freshness:
    """How far the online view is behind; what it remembers is for the moment and no state.

    Parameters
    ----------
    read : callable
        See `ReadTimes`; it must not take long, and answers rather than raises.
    views : mapping of str to Columns
        By name of view.
    clock_s : callable
    """

    def __init__(
        self, read: ReadTimes, views: Mapping[str, Columns], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._views = views
        self._clock_s = clock_s
        self._asked_at_s = -EVERY_S
        self._waiting: list[_Waiting] = []

    @property
    def due(self) -> bool:
        """Whether it is time to ask again."""
        return self._clock_s() - self._asked_at_s >= EVERY_S

    def sample(self, scored: Batch) -> None:
        """Take note of some of these events, if there is room."""
        if not scored.length:
            return
        rows = np.unique(np.linspace(0, scored.length - 1, _SAMPLED).astype(np.int64))
        for view, columns in self._views.items():
            if columns.key not in scored.columns or columns.time_us not in scored.columns:
                continue
            times_us = scored.as_floats(columns.time_us)
            for row in rows.tolist():
                if len(self._waiting) < _MOST_WAITING and not np.isnan(times_us[row]):
                    key, scored_at_ms = scored.columns[columns.key][row], int(scored.columns["scored_at_ms"][row])
                    self._waiting.append(_Waiting(view, key, int(scored.columns[columns.time_us][row]), scored_at_ms))

    def behind_ms(self, now_ms: int) -> int:
        """Ask for what is waited for; return the age of the oldest that is not there, 0 if all is."""
        self._asked_at_s = self._clock_s()
        left: list[_Waiting] = []
        for view in self._views:
            mine = [each for each in self._waiting if each.view == view]
            if not mine:
                continue
            keys = np.array([each.key for each in mine])
            found = self._read(view, keys)
            left += [each for each, at_us in zip(mine, found, strict=True) if at_us is None or at_us < each.time_us]
        self._waiting = left
        return max((now_ms - each.scored_at_ms for each in left), default=0)
