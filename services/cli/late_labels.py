"""Labels of a replay: each event's becomes known a while after it, and is handed over when the replay gets there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.avro.encode import RecordWriter
from services.core.batch import Array, Batch, Rows, joined
from services.core.text import as_text
from services.topology import LABEL, LABEL_TIME, REVISION, LabelPlan
from services.transport.records import Output

NEVER_MS = 1 << 60


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


def pieces(times_ms: Rows, labels: Labels | None, most: int) -> Iterator[Rows]:
    """Yield the positions of events piece by piece, none so long that a label becomes known in its own piece.

    Parameters
    ----------
    times_ms : int64 ndarray of shape (n,)
    labels : Labels or None
        Of these events.
    most : int
        Events in a piece.

    Examples
    --------
    >>> labels = Labels.after(np.ones(5), np.array([0, 4, 9, 11, 30]), 10)
    >>> [rows.tolist() for rows in pieces(np.array([0, 4, 9, 11, 30]), labels, 100)]
    [[0, 1, 2], [3], [4]]
    """
    start = 0
    while start < len(times_ms):
        end = min(start + most, len(times_ms))
        if labels is not None:
            newest_ms = np.maximum.accumulate(times_ms[start:end])
            known_ms = np.where(np.isnan(labels.label[start:end]), NEVER_MS, labels.known_at_ms[start:end])
            sound = newest_ms < np.minimum.accumulate(known_ms)
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

    def wait(self, scored: Batch, ids: Array, labels: Labels) -> None:
        """Keep the labels of those events that were scored.

        Parameters
        ----------
        scored : Batch
            Rows of the scored topic.
        ids : ndarray of shape (n,)
            Event ids that ``labels`` are of.
        """
        places = {event: place for place, event in enumerate(ids.tolist())}
        of_scored = labels.take(np.array([places[each] for each in scored.columns[self._event_id].tolist()], np.int64))
        known = np.flatnonzero(~np.isnan(of_scored.label))
        told = {
            LABEL: of_scored.label[known],
            LABEL_TIME: of_scored.known_at_ms[known],
            REVISION: np.ones(len(known), dtype=np.int64),
        }
        self._waiting.append(scored.select(self._columns).take(known).with_columns(told))

    def due(self, until_ms: int = NEVER_MS) -> list[Output]:
        """Return, and wait no longer with, what became known by ``until_ms``, in that order."""
        if not self._waiting:
            return []
        waiting = joined(self._waiting)
        known_at_ms = waiting.columns[LABEL_TIME]
        order = np.argsort(known_at_ms, kind="stable")
        count = int(np.searchsorted(known_at_ms[order], until_ms, side="right"))
        self._waiting = [waiting.take(order[count:])]
        ready = waiting.take(order[:count])
        stamps: list[int] = ready.columns[LABEL_TIME].tolist()
        return [
            Output(plan.input, as_text(ready.columns[plan.key_column]), writer.encode(ready), timestamps_ms=stamps)
            for plan, writer in self._targets
            if count
        ]
