"""Labels of a replay: each event's becomes known a while after it, and is handed over when the replay gets there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Array, Batch, Rows, joined
from millstream.core.ledger.label_timeline import LabelTimeline
from millstream.core.text import as_text
from millstream.runtime.log.records import Output
from millstream.topology import LABEL, LABEL_TIME, REVISION, LabelPlan

NEVER_MS = 1 << 60
_DUE = "due_ms"
_NO_CUTS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of n events.

    Parameters
    ----------
    label : float64 ndarray of shape (n,)
        0 or 1; NaN where there is none.
    known_at_ms : int64 ndarray of shape (n,)
        When each became known, after its event: milliseconds since the epoch; unspecified where there is none.
    """

    label: NDArray[np.float64]
    known_at_ms: Rows

    def take(self, rows: Rows) -> Labels:
        """Return those of some of the events."""
        return Labels(self.label[rows], self.known_at_ms[rows])

    @classmethod
    def after(cls, label: Array, times_ms: Rows, delay_ms: int) -> Labels:
        """Return labels that become known so long after their events."""
        return cls(np.asarray(label, dtype=np.float64), times_ms + delay_ms)


def _as_beliefs(labels: Labels | LabelTimeline) -> LabelTimeline:
    """Return labels as rows of their own."""
    if isinstance(labels, LabelTimeline):
        return labels
    known = np.flatnonzero(~np.isnan(labels.label))
    at = labels.known_at_ms[known]
    return LabelTimeline(known, labels.label[known], at, at, np.ones(len(known), dtype=np.int64))


def pieces(
    times_ms: Rows, labels: Labels | LabelTimeline | None, most: int, cuts_ms: Rows = _NO_CUTS
) -> Iterator[Rows]:
    """Yield the positions of events piece by piece, none so long that a label becomes known in its own piece.

    Parameters
    ----------
    times_ms : int64 ndarray of shape (n,)
    labels : Labels, LabelTimeline or None
        Of these events.
    most : int
        Events in a piece.
    cuts_ms : int64 ndarray
        Event times, ascending, that no piece reaches over: what is before one and what is not are in two pieces.

    Examples
    --------
    >>> labels = Labels.after(np.ones(5), np.array([0, 4, 9, 11, 30]), 10)
    >>> [rows.tolist() for rows in pieces(np.array([0, 4, 9, 11, 30]), labels, 100)]
    [[0, 1, 2], [3], [4]]
    """
    first_known_ms = np.full(len(times_ms), NEVER_MS, dtype=np.int64)
    if labels is not None:
        known = _as_beliefs(labels)
        np.minimum.at(first_known_ms, known.events, known.due_ms)
    start = 0
    while start < len(times_ms):
        end = min(start + most, len(times_ms))
        if labels is not None:
            newest_ms = np.maximum.accumulate(times_ms[start:end])
            sound = newest_ms < np.minimum.accumulate(first_known_ms[start:end])
            passed = np.searchsorted(cuts_ms, newest_ms, side="right")
            sound &= passed == passed[0]
            end = end if sound.all() else start + max(1, int(np.argmin(sound)))
        yield np.arange(start, end)
        start = end


class LateLabels:
    """What is known of events that were scored, until it is time to tell.

    Parameters
    ----------
    plans : sequence of LabelPlan
        Of the stages that have label-derived features.
    event_id : str
        Column.
    """

    def __init__(self, plans: Sequence[LabelPlan], event_id: str) -> None:
        self._targets = [(plan, RecordWriter(plan.schema)) for plan in plans]
        self._event_id = event_id
        columns = {field.name for plan in plans for field in plan.schema.fields}
        self._columns = sorted(columns - {LABEL, LABEL_TIME, REVISION})
        self._waiting: list[Batch] = []

    def wait(self, scored: Batch, ids: Array, labels: Labels | LabelTimeline) -> None:
        """Keep the labels of those events that were scored.

        Parameters
        ----------
        scored : Batch
            Rows of the scored topic.
        ids : ndarray of shape (n,)
            Event ids that ``labels`` are of.
        """
        places = {event: place for place, event in enumerate(ids.tolist())}
        of_scored = np.array([places[each] for each in scored.columns[self._event_id].tolist()], np.int64)
        row_of = np.full(len(ids), -1, dtype=np.int64)
        row_of[of_scored] = np.arange(len(of_scored))
        known = _as_beliefs(labels)
        there = row_of[known.events] >= 0
        taken_back = np.isnan(known.label[there])
        columns = {
            LABEL: np.where(taken_back, 0.0, known.label[there]),
            LABEL_TIME: known.known_at_ms[there],
            REVISION: known.revisions[there],
            _DUE: known.due_ms[there],
        }
        rows = scored.select(self._columns).take(row_of[known.events[there]])
        self._waiting.append(rows.with_columns(columns, {LABEL: taken_back}))

    def returning_ms(self, labels: Labels | LabelTimeline | None) -> Rows:
        """Return when labels come into force again that were known earlier, these ones and those that wait; ascending.

        Windows place a label by its known time, so that within one micro-batch it would be there too early.
        """
        parts = [(each.columns[_DUE], each.columns[LABEL_TIME]) for each in self._waiting]
        if isinstance(labels, LabelTimeline):
            parts.append((labels.due_ms, labels.known_at_ms))
        return np.unique(np.concatenate([_NO_CUTS, *(due_ms[due_ms > known_ms] for due_ms, known_ms in parts)]))

    def due(self, until_ms: int = NEVER_MS) -> list[Output]:
        """Return, and wait no longer with, what became known by ``until_ms``, in that order."""
        if not self._waiting:
            return []
        waiting = joined(self._waiting)
        due_ms = waiting.columns[_DUE]
        order = np.argsort(due_ms, kind="stable")
        count = int(np.searchsorted(due_ms[order], until_ms, side="right"))
        self._waiting = [waiting.take(order[count:])]
        ready = waiting.take(order[:count])
        return [_output(plan, writer, ready) for plan, writer in self._targets if count]


def _output(plan: LabelPlan, writer: RecordWriter, ready: Batch) -> Output:
    """Return labels keyed by an entity, without those of events that do not have it."""
    ready = ready.take(~ready.is_null(plan.key_column))
    stamps: list[int] = ready.columns[_DUE].tolist()
    return Output(plan.input, as_text(ready.columns[plan.key_column]), writer.encode(ready), timestamps_ms=stamps)
