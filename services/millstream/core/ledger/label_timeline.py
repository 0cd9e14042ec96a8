"""Labels of past events in the order in which each took effect: the sequence a live join would have published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows
from millstream.core.ledger.label_sets import LabelSets
from millstream.core.ledger.resolution import Policy, ResolvedLabels, resolve


@dataclass(frozen=True, slots=True)
class LabelTimeline:
    """Labels of n events, k in all: each one that replaces another, and each retraction, is a row of its own.

    Parameters
    ----------
    events : int64 ndarray of shape (k,)
        Position of the event, ascending; of one event in the order in which they were believed.
    label : float64 ndarray of shape (k,)
        0 or 1; NaN where the labels were retracted.
    known_at_ms : int64 ndarray of shape (k,)
        Known time of the label that decided.
    due_ms : int64 ndarray of shape (k,)
        When it began to be believed: never before ``known_at_ms``, and later where a retraction brought it back.
    revisions : int64 ndarray of shape (k,)
        Of one event ascending.
    """

    events: Rows
    label: NDArray[np.float64]
    known_at_ms: Rows
    due_ms: Rows
    revisions: Rows

    def take(self, rows: Rows) -> LabelTimeline:
        """Return those of some of the events, given by ascending position."""
        place = np.searchsorted(rows, self.events)
        place_in = np.minimum(place, max(0, len(rows) - 1))
        kept = rows[place_in] == self.events if len(rows) else np.zeros(len(self.events), dtype=np.bool_)
        return LabelTimeline(
            place[kept], self.label[kept], self.known_at_ms[kept], self.due_ms[kept], self.revisions[kept]
        )


def label_timeline(policy: Policy, labels: LabelSets, event_time_ms: Rows) -> LabelTimeline:
    """Resolve labels as of each moment at which one became known.

    Parameters
    ----------
    labels : LabelSets
        Every label of n events, in any order.
    event_time_ms : int64 ndarray of shape (n,)
        Milliseconds since the epoch.
    """
    n = len(event_time_ms)
    every = LabelSets.empty().joined(labels)
    order = np.lexsort((every.stamps, every.owners))
    owners, known_at_ms = every.owners[order], every.known_at_ms[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (owners[1:] != owners[:-1]) | (known_at_ms[1:] != known_at_ms[:-1])
    counts = np.cumsum(begins)
    first = np.zeros(n, dtype=np.int64)
    opens = np.ones(len(order), dtype=np.bool_)
    opens[1:] = owners[1:] != owners[:-1]
    first[owners[opens]] = counts[opens]
    step = np.empty(len(order), dtype=np.int64)
    step[order] = counts - first[owners]  # of each label: how many moments before it brought labels of its event
    there = np.ones(n, dtype=np.bool_)
    before = resolve(policy, LabelSets.empty(), there)
    parts: list[tuple[Rows, ResolvedLabels, Rows, int]] = []
    for at in range(int(step.max()) + 1 if len(step) else 0):
        arrived = step <= at
        known = LabelSets(every.owners[arrived], every.sources[arrived], every.stamps[arrived]).settled(
            there, event_time_ms, policy.horizon_ms
        )
        now = resolve(policy, known, there)
        changed = np.flatnonzero(now.differs(before))
        due_ms = np.zeros(n, dtype=np.int64)
        newly = step == at
        due_ms[every.owners[newly]] = every.known_at_ms[newly]
        parts.append((changed, now, due_ms, at))
        before = now
    return _together(parts)


def _together(parts: list[tuple[Rows, ResolvedLabels, Rows, int]]) -> LabelTimeline:
    nothing = np.zeros(0, dtype=np.int64)
    events = np.concatenate([nothing, *(changed for changed, *_ in parts)])
    labels = np.concatenate([nothing, *(now.labels[changed] for changed, now, *_ in parts)])
    known = np.concatenate([nothing, *(now.known_at_ms[changed] for changed, now, *_ in parts)])
    due = np.concatenate([nothing, *(due_ms[changed] for changed, _, due_ms, _ in parts)])
    revisions = np.concatenate([nothing, *(np.full(len(changed), at + 1) for changed, _, _, at in parts)])
    order = np.argsort(events, kind="stable")
    label = np.where(labels < 0, np.nan, labels.astype(np.float64))
    return LabelTimeline(events[order], label[order], known[order], due[order], revisions[order])
