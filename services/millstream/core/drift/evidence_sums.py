"""Sums of evidence that rise while scores mean something else than they did, each with where it began to grow.

A change of meaning lasts until it is acted upon, so sums are not reset at an alarm, as a CUSUM's usually are: they
stay above the threshold, capped at twice of it, while it lasts, and fall when it is over.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Mask, Rows
from millstream.core.jit import kernel

CAP: Final = 2.0


@kernel
def advance(
    sums: Floats, since: Rows, evidence: Floats, thresholds: Floats, cap: float, first: int
) -> tuple[int, bool]:
    """Take rows from ``first`` on until a sum rises above its threshold.

    Returns how many rows were taken in all, and whether that is because one did.

    Parameters
    ----------
    sums : float64 ndarray of shape (m,)
        Changed in place, kept in [0, cap * threshold].
    since : int64 ndarray of shape (m,)
        Row after the last at which the sum was 0; -1 if that was before these rows.
    evidence : float64 ndarray of shape (n, m)
    thresholds : float64 ndarray of shape (m,)
    """
    for row in range(first, len(evidence)):
        crossed = False
        for i in range(len(sums)):
            before = sums[i]
            sums[i] = min(max(before + evidence[row, i], 0.0), cap * thresholds[i])
            if sums[i] == 0.0:
                since[i] = row + 1
            crossed = crossed or (before <= thresholds[i] and sums[i] > thresholds[i])
        if crossed:
            return row + 1, True
    return len(evidence), False


def cusum_alarms(evidence: Floats, threshold: float) -> list[int]:
    """Return the rows at which a CUSUM rises above ``threshold``; it starts again at 0 after each.

    Parameters
    ----------
    evidence : float64 ndarray of shape (n,)
        Log-likelihood ratios.
    threshold : float, > 0
    """
    column, thresholds = np.ascontiguousarray(evidence)[:, None], np.array([threshold])
    since, done, found = np.full(1, -1, dtype=np.int64), 0, []
    while done < len(column):
        done, crossed = advance(np.zeros(1), since, column, thresholds, math.inf, done)
        if crossed:
            found.append(done - 1)
    return found


class EvidenceSums:
    """Some sums side by side.

    Parameters
    ----------
    count : int

    Attributes
    ----------
    values : float64 ndarray of shape (count,)
    since : list of (offset, event time)
        Of the example after which each was last 0; (-1, 0) if that is yet to come.
    last_offset : int
        Of the newest example; -1 before the first.
    newest_ms : int
        Newest event time of an example; -1 before the first.
    """

    def __init__(self, count: int) -> None:
        self.values = np.zeros(count)
        self.since: list[tuple[int, int]] = [(-1, 0)] * count
        self.last_offset = -1
        self.newest_ms = -1

    def restart(self, kept: int, more: int) -> None:
        """Keep the first so many sums as they are, and begin so many others."""
        self.values = np.concatenate([self.values[:kept], np.zeros(more)])
        self.since = [*self.since[:kept], *[(-1, 0)] * more]

    def take(self, evidence: Floats, offsets: Rows, times_ms: Rows, threshold: float, start: int) -> tuple[int, bool]:
        """Take examples from row ``start`` on; see `advance`."""
        since = np.full(len(self.values), -1, dtype=np.int64)
        thresholds = np.full(len(self.values), threshold)
        done, crossed = advance(self.values, since, evidence, thresholds, CAP, start)
        self.last_offset = int(offsets[done - 1])
        self.newest_ms = max(self.newest_ms, int(times_ms[start:done].max()))
        for i, row in enumerate(since.tolist()):
            if row >= done:
                self.since[i] = (-1, 0)
            elif row >= 0 or self.since[i][0] < 0:
                began = max(row, start)
                self.since[i] = int(offsets[began]), int(times_ms[began])
        return done, crossed

    def to_json(self) -> list[Any]:
        return [self.values.tolist(), self.since, self.last_offset, self.newest_ms]

    @staticmethod
    def of_json(raw: list[Any]) -> EvidenceSums:
        values, since, last_offset, *newest_ms = raw
        made = EvidenceSums(len(values))
        made.values = np.array(values, dtype=np.float64)
        made.since = [(offset, since_ms) for offset, since_ms in since]
        made.last_offset = last_offset
        made.newest_ms = newest_ms[0] if newest_ms else 0  # snapshots of earlier versions have none
        return made


_BINS: Final = 48
_KNOWN: Final = 100
_MOST: Final = 2000


@kernel
def _chances(scores: Floats, labels: Mask, events: Rows, positives: Rows, chances: Floats) -> None:
    for row in range(len(scores)):
        p = min(max(scores[row], 1e-9), 1 - 1e-9)
        place = int(min(max((np.log(p / (1 - p)) + 12.0) * 2.0, 0.0), len(events) - 1.0))
        n, k = events[place], positives[place]
        known = k >= _KNOWN and n - k >= _KNOWN
        chances[row] = k / n if known else np.nan
        events[place] += 1
        positives[place] += labels[row]
        if min(positives[place], events[place] - positives[place]) > _MOST:
            events[place] //= 2
            positives[place] //= 2


class RunningCalibration:
    """From scores to probabilities as labels so far have it, for a model that goes on learning and has no reference.

    Scores are binned by their logits, in halves; a cell says nothing before it has a hundred labels of each class,
    and forgets half of them at two thousand. Each row is predicted before it is counted, so batches make no difference.
    """

    def __init__(self) -> None:
        self.events = np.zeros(_BINS, dtype=np.int64)
        self.positives = np.zeros(_BINS, dtype=np.int64)

    def __call__(self, scores: Floats, labels: Mask) -> Floats:
        """Return the chance of a positive before each row, NaN where it is not known, and count the rows."""
        chances = np.empty(len(scores))
        _chances(scores, labels, self.events, self.positives, chances)
        return chances

    def to_json(self) -> list[list[int]]:
        return [self.events.tolist(), self.positives.tolist()]

    @staticmethod
    def of_json(raw: list[list[int]]) -> RunningCalibration:
        made = RunningCalibration()
        made.events, made.positives = (np.array(each, dtype=np.int64) for each in raw)
        return made
