"""The incidents of the demo, each as of its newest alert, from the topic `alerts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from millstream.core.avro.decode import RecordReader


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident, as of its newest alert.

    Parameters
    ----------
    kind, severity : str
    what : str
        The feature that leads it, or the model.
    subjects : int
        Features, models and segments that it is about, at most.
    opened_ms : int
        Event time.
    closed_ms : int or None
        None while it is open.
    """

    kind: str
    severity: str
    what: str
    subjects: int
    opened_ms: int
    closed_ms: int | None


class Alarms:
    """Keeps the incidents of the topic `alerts`."""

    def __init__(self, alerts: RecordReader) -> None:
        self._alerts = alerts
        self._by_id: dict[str, Incident] = {}

    @property
    def incidents(self) -> list[Incident]:
        """All of them, in the order in which they were opened."""
        return sorted(self._by_id.copy().values(), key=lambda each: (each.opened_ms, each.kind, each.what))

    def update(self, messages: Sequence[Message]) -> None:
        """Take messages of `alerts`."""
        batch = self._alerts.decode([each.value() for each in messages], 1 << 30).batch
        names = ("id", "event", "kind", "severity", "feature", "model", "subject_count", "opened_at_ms", "at_ms")
        for row in zip(*(batch.columns[name].tolist() for name in names), strict=True):
            name, event, kind, severity, feature, model, subjects, opened_ms, at_ms = row
            before = self._by_id[name].subjects if name in self._by_id else 0
            closed_ms = at_ms if event == "close" else None
            self._by_id[name] = Incident(kind, severity, feature or model, max(before, subjects), opened_ms, closed_ms)
