"""Signals, the output of monitors, and alerts, which subscribers receive."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Kind = Literal["data", "score", "concept", "quality", "operations"]
Event = Literal["open", "update", "close"]
Severity = Literal["warning", "critical"]

RUNBOOK: Final = "infra/runbook.md#{kind}"

ONLINE: Final = "online"
"""What the online model is called in alerts, whichever snapshot answered."""
ONLINE_VERSION: Final = 0
"""Stands where versions of models do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The events a statistic was computed from.

    Parameters
    ----------
    from_ms, to_ms : int
        Event times: from, and before.
    topic : str
    offsets : tuple of (partition, first, last)
        Lowest and highest offset in each partition, by partition; empty if it is not known which events they are.
    """

    from_ms: int
    to_ms: int
    topic: str = ""
    offsets: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Signal:
    """One monitor's word on one subject, above its threshold or not.

    Parameters
    ----------
    kind : str
        What sort of incident it would be; signals of one kind about one model version are one incident.
    model, model_version : str, int
        Whose reference it is measured against.
    feature, segment : str
        The subject; ``""`` where it is none of the kind.
    monitor : str
        What was measured, e.g. ``psi over 24 h``.
    statistic : float
        Above ``threshold`` is an alarm; may be infinite.
    threshold : float, > 0
    evidence : Evidence
    reference : str
        What it was compared with, for a person.
    importance : float, in [0, 1]
        The feature's share of the model's importance; 1 where the whole model is the subject.
    shift : float, in [0, 1]
        How far the distribution has moved.
    metric_change : float or None
        Estimated change of the model's metric, in the metric's unit.
    """

    kind: Kind
    model: str
    model_version: int
    feature: str
    segment: str
    monitor: str
    statistic: float
    threshold: float
    evidence: Evidence
    reference: str = ""
    importance: float = 0.0
    shift: float = 0.0
    metric_change: float | None = None

    def __post_init__(self) -> None:
        if not self.threshold > 0 or math.isnan(self.statistic):
            raise ValueError(
                f"{self.monitor} of {self.feature or self.model}: a signal needs a threshold above 0 and a statistic, "
                f"not {self.threshold} and {self.statistic}"
            )

    @property
    def ratio(self) -> float:
        """Statistic over threshold: above 1 is an alarm."""
        return self.statistic / self.threshold

    @property
    def impact(self) -> float:
        """Importance times shift, in [0, 1]."""
        return self.importance * self.shift

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> Signal:
        evidence = raw["evidence"]
        offsets = tuple((int(partition), int(first), int(last)) for partition, first, last in evidence["offsets"])
        return Signal(**{**raw, "evidence": Evidence(**{**evidence, "offsets": offsets})})


@dataclass(frozen=True, slots=True)
class Alert:
    """An incident began, changed or ended; one field each of ``schemas/alerts.avsc``.

    The leading subject is the one with the highest impact, then the highest ratio, of those above their thresholds if
    any is; ``subjects`` holds them all, those that recovered included.
    """

    id: str
    event_id: str
    sequence: int
    event: Event
    reason: str
    severity: Severity
    kind: Kind
    model: str
    model_version: int
    feature: str
    segment: str
    monitor: str
    statistic: float
    threshold: float
    reference: str
    window_from_ms: int
    window_to_ms: int
    topic: str
    offsets: str
    subjects: str
    subject_count: int
    impact: float
    estimated_metric_change: float | None
    suppressed: int
    opened_at_ms: int
    at_ms: int
    runbook: str


def leading(signals: Sequence[Signal]) -> Signal:
    """Return the strongest signal: above its threshold, then by impact, ratio and name."""
    return min(signals, key=lambda s: (s.ratio <= 1, -s.impact, -s.ratio, s.feature, s.segment, s.monitor))


def incident_id(signals: Sequence[Signal]) -> str:
    """Return the id of the incident these signals open: 32 hexadecimal digits, the same on every run.

    A hash of kind, model version, subjects and opening window, so that a replay opens the same incident and the next
    incident about the same subjects is another one.
    """
    windows = [
        [
            s.feature,
            s.segment,
            s.evidence.topic,
            s.evidence.offsets,
            s.evidence.from_ms,
            s.evidence.to_ms,
        ]
        for s in sorted(signals, key=lambda s: (s.feature, s.segment))
    ]
    about = signals[0]
    text = json.dumps([about.kind, about.model, about.model_version, windows], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def offsets_json(evidence: Evidence) -> str:
    """Return the offsets as a JSON object, from partition to lowest and highest offset."""
    return json.dumps({str(partition): [first, last] for partition, first, last in evidence.offsets})


def subjects_json(signals: Sequence[Signal]) -> str:
    """Return the subjects as a JSON list, the one with the highest impact first; infinite statistics as null."""
    rows = []
    for s in sorted(signals, key=lambda s: (-s.impact, -s.ratio, s.feature, s.segment)):
        row = asdict(s)
        evidence = row.pop("evidence")
        for name in ("kind", "model", "model_version"):
            del row[name]
        rows.append({**row, "statistic": s.statistic if math.isfinite(s.statistic) else None, **evidence})
    return json.dumps(rows, ensure_ascii=False, allow_nan=False)
