"""Label completeness: counters derived from the ledger's entries.

A tally is an int64 vector. What a micro-batch adds to it is what its events count for afterwards less what they
counted for before, so the tally is the sum over all events held: independent of order and repetition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows
from millstream.core.drift.slot_counts import whole_number
from millstream.core.ledger.fold import LedgerEntries, LedgerUpdate
from millstream.core.ledger.horizon import ExpiredEvents
from millstream.core.ledger.label_sets import LATEST_MS
from millstream.core.ledger.resolution import ResolvedLabels

STATES: Final = ("pending", "labelled", "retracted", "waiting", "conflicts")
"""Predictions without a label in time; with a label; whose labels were all retracted; events with labels and no
prediction; predictions whose sources contradict each other. Each is a number of events."""

EVENTS: Final = ("repeated_predictions", "repeated_labels", "forgotten", "unmatched", "retired")
"""Repeated predictions and labels; at the horizon: predictions never labelled, events labelled but never
predicted, and labelled predictions whose time for corrections is over."""

COUNTERS: Final = (*STATES, *EVENTS)
_STEPS = 32  # resolution of delays: 1/32 of their size
_OCTAVES = 32  # of seconds: up to 136 years
SIZE: Final = len(COUNTERS) + _STEPS * _OCTAVES


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What the join reports of the ledger of a partition.

    Parameters
    ----------
    tally : int64 ndarray of shape (`SIZE`,)
    scored_to_ms, labels_to_ms : int
        How far predictions have come in event time, and labels in when they became known; -1 before the first.
    """

    tally: NDArray[np.int64]
    scored_to_ms: int = -1
    labels_to_ms: int = -1


def encode_report(report: LedgerReport) -> bytes:
    """Return it as JSON; of the tally, position and value of what is not zero."""
    places = np.flatnonzero(report.tally).tolist()
    tally = [[place, int(report.tally[place])] for place in places]
    return json.dumps(
        {"tally": tally, "scored_to_ms": report.scored_to_ms, "labels_to_ms": report.labels_to_ms}
    ).encode()


def decode_report(value: bytes) -> LedgerReport:
    """Return what `encode_report` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError
        If it is none.
    """
    read = json.loads(value)
    tally = np.zeros(SIZE, dtype=np.int64)
    for place, count in read["tally"]:
        tally[whole_number(place, 0, SIZE - 1)] = whole_number(count, -(1 << 53))
    to_ms = [whole_number(read[name], -1, LATEST_MS) for name in ("scored_to_ms", "labels_to_ms")]
    return LedgerReport(tally, *to_ms)


def of_batch(folded: LedgerUpdate, predictions: int, labels: int) -> NDArray[np.int64]:
    """Return what a folded micro-batch of so many predictions and labels adds to the tally, int64 of (`SIZE`,)."""
    tally = of_entries(folded.entries, folded.after) - of_entries(folded.entries_before, folded.before)
    tally[COUNTERS.index("repeated_predictions")] += predictions - int(np.count_nonzero(folded.arrived))
    tally[COUNTERS.index("repeated_labels")] += labels - folded.new_labels
    return tally


def of_forgetting(entries: LedgerEntries, resolved: ResolvedLabels, expired: ExpiredEvents) -> NDArray[np.int64]:
    """Return what forgetting adds to the tally of what is held, int64 of shape (`SIZE`,)."""
    kept = LedgerEntries(
        entries.predicted & ~expired.dropped, entries.event_time_ms, entries.labels.about(~expired.dropped)
    )
    labels = np.where(expired.dropped, -1, resolved.labels)
    known_at_ms = np.where(expired.dropped, -1, resolved.known_at_ms)
    left = ResolvedLabels(labels, known_at_ms, resolved.sources, resolved.conflicts & ~expired.dropped)
    tally = of_entries(kept, left) - of_entries(entries, resolved)
    for name in ("forgotten", "unmatched", "retired"):
        tally[COUNTERS.index(name)] += np.count_nonzero(getattr(expired, name))
    return tally


def of_entries(entries: LedgerEntries, resolved: ResolvedLabels) -> NDArray[np.int64]:
    """Return what n events count for, int64 of shape (`SIZE`,); events of which nothing is held count for nothing."""
    tally = np.zeros(SIZE, dtype=np.int64)
    n = len(entries.predicted)
    labelled = resolved.labels >= 0
    decided = resolved.known_at_ms >= 0
    states = {
        "pending": entries.predicted & ~decided,
        "labelled": labelled,
        "retracted": decided & ~labelled,
        "waiting": ~entries.predicted & (entries.labels.counts(n) > 0),
        "conflicts": resolved.conflicts,
    }
    for position, name in enumerate(STATES):
        tally[position] = np.count_nonzero(states[name])
    delay_s = (resolved.known_at_ms - entries.event_time_ms)[labelled] / 1000.0
    tally[len(COUNTERS) :] = np.bincount(_cells(delay_s), minlength=_STEPS * _OCTAVES)
    return tally


def counters(tally: NDArray[np.int64]) -> dict[str, int]:
    """Return the counters of a tally by name, see `STATES` and `EVENTS`."""
    return dict(zip(COUNTERS, tally[: len(COUNTERS)].tolist(), strict=True))


def coverage(tally: NDArray[np.int64]) -> float:
    """Return the share of predictions held that have a label, in [0, 1]; NaN without any."""
    count = counters(tally)
    predictions = count["pending"] + count["labelled"] + count["retracted"]
    return count["labelled"] / predictions if predictions else float("nan")


def delay_quantile_s(tally: NDArray[np.int64], quantile: float) -> float:
    """Return a quantile of the time from event to label of labelled predictions, in seconds; NaN without any.

    Parameters
    ----------
    quantile : float
        In [0, 1]. The answer is right to 1/32 of 1 s + itself.
    """
    entries = tally[len(COUNTERS) :]
    total = int(entries.sum())
    if not total:
        return float("nan")
    cell = int(np.searchsorted(np.cumsum(entries), max(1, int(np.ceil(quantile * total)))))
    return float(np.ldexp(1 + cell % _STEPS / _STEPS, cell // _STEPS) - 1)


def _cells(delay_s: NDArray[np.float64]) -> Rows:
    """Return the place of each delay in the histogram: octave of 1 s + delay, and 32 steps within it."""
    mantissa, exponent = np.frexp(1 + np.maximum(delay_s, 0))
    cells: Rows = (exponent - 1) * _STEPS + ((2 * mantissa - 1) * _STEPS).astype(np.int64)
    return np.minimum(cells, _STEPS * _OCTAVES - 1)
