"""From signals to alerts: one incident per change, opened, updated and closed once.

A fold. Its unit is an `Evaluation`, all that monitors say at one moment, so that a change that moves nine features at
once is one incident with nine subjects and one alert; how evaluations are batched makes no difference.

- Signals of one kind about one model version are one *group*; a group has one incident at a time.
- Hysteresis: a subject joins above its threshold, and leaves only after some evaluations clearly below it.
- Deduplication: what an open incident already reports is counted (``suppressed``), and reported again once a reminder
  is due.
- Cooldown: for a while after it closed, a group opens again only if it is worse than before; the rest is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

from millstream.core.drift.alert import (
    RUNBOOK,
    Alert,
    Event,
    Kind,
    Severity,
    Signal,
    incident_id,
    leading,
    offsets_json,
    subjects_json,
)

_HOUR_MS = 3_600_000

GroupKey: TypeAlias = tuple[Kind, str, int]
SubjectKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Policy:
    """When to speak.

    Parameters
    ----------
    open_after, close_after : int, >= 1
        Evaluations in a row above the threshold before a subject joins; clearly below it before it leaves.
    close_ratio : float, in (0, 1]
        Clearly below: under this share of the threshold.
    critical_ratio : float, > 1
        From this multiple of the threshold on, an incident is critical.
    cooldown_ms, reminder_ms : int
        Event time after a close, and between two alerts of an open incident with nothing new.
    """

    open_after: int = 1
    close_after: int = 3
    close_ratio: float = 0.8
    critical_ratio: float = 3.0
    cooldown_ms: int = 24 * _HOUR_MS
    reminder_ms: int = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything monitors say at one moment of event time; monitors that say nothing are left as they were."""

    at_ms: int
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class ModelReplaced:
    """Another version of a model serves from now on: incidents about earlier references end."""

    at_ms: int
    model: str
    version: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of one subject: its last word, and how many evaluations in a row it was above or clearly below."""

    last: Signal
    above: int = 0
    below: int = 0
    active: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """An open incident: its subjects so far, and its last alert."""

    id: str
    opened_at_ms: int
    alerted_at_ms: int
    sequence: int
    severity: Severity
    subjects: tuple[SubjectKey, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of trouble of one model version."""

    subjects: Mapping[SubjectKey, Subject] = field(default_factory=dict)
    incident: Incident | None = None
    closed_at_ms: int | None = None
    closed_severity: Severity = "warning"
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """The whole state of the fold; `to_json` and `from_json` keep it exactly."""

    groups: Mapping[GroupKey, Group] = field(default_factory=dict)

    def to_json(self) -> str:
        rows: list[tuple[GroupKey, dict[str, Any]]] = []
        for key, group in sorted(self.groups.items()):
            subjects = [asdict(group.subjects[name]) for name in sorted(group.subjects)]
            row = asdict(replace(group, subjects={})) | {"subjects": subjects}
            if group.incident is not None:
                row["incident"]["told_at_ms"] = row["incident"].pop("alerted_at_ms")  # the name in stored state
            rows.append((key, row))
        return json.dumps(rows, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> State:
        groups: dict[GroupKey, Group] = {}
        for (kind, model, version), raw in json.loads(text):
            subjects = [Subject(**{**each, "last": Signal.of_json(each["last"])}) for each in raw["subjects"]]
            by_key = {(each.last.feature, each.last.segment): each for each in subjects}
            open_now = raw["incident"]
            if open_now is not None:
                named = tuple((feature, segment) for feature, segment in open_now["subjects"])
                alerted_at_ms = open_now.pop("told_at_ms")
                open_now = Incident(**{**open_now, "subjects": named, "alerted_at_ms": alerted_at_ms})
            groups[kind, model, version] = Group(**{**raw, "subjects": by_key, "incident": open_now})
        return State(groups)


def initial() -> State:
    return State()


def update(state: State, inputs: Iterable[Evaluation | ModelReplaced], policy: Policy) -> tuple[State, list[Alert]]:
    """Take inputs in order; return the new state and the alerts they give rise to, in order."""
    groups = dict(state.groups)
    alerts: list[Alert] = []
    for each in inputs:
        if isinstance(each, ModelReplaced):
            for key in sorted(key for key in groups if key[1] == each.model and key[2] != each.version):
                alerts += _superseded(key, groups.pop(key), each.at_ms)
            continue
        by_group: dict[GroupKey, list[Signal]] = {}
        for signal in each.signals:
            by_group.setdefault((signal.kind, signal.model, signal.model_version), []).append(signal)
        for key in sorted(by_group):
            groups[key], updated = _advance(key, groups.get(key, Group()), by_group[key], each.at_ms, policy)
            alerts += updated
    return State(groups), alerts


def _advance(
    key: GroupKey, group: Group, signals: list[Signal], at_ms: int, policy: Policy
) -> tuple[Group, list[Alert]]:
    group = replace(group, subjects=_updated_subjects(group.subjects, signals, policy))
    active = sorted(name for name, subject in group.subjects.items() if subject.active)
    loud = sum(subject.last.ratio > 1 for name in active if (subject := group.subjects[name]))
    worst = max((group.subjects[name].last.ratio for name in active), default=0.0)
    severity: Severity = "critical" if worst >= policy.critical_ratio else "warning"
    incident = group.incident
    if incident is None:
        if not active:
            return group, []
        cooling = group.closed_at_ms is not None and at_ms < group.closed_at_ms + policy.cooldown_ms
        if cooling and not _worse(severity, group.closed_severity):
            return replace(group, suppressed=group.suppressed + loud), []
        opening = [group.subjects[name].last for name in active]
        incident = Incident(incident_id(opening), at_ms, at_ms, 0, severity, tuple(active))
        return _alert(key, group, incident, "open", "opened", at_ms)
    if not active:
        group, alerts = _alert(
            key, group, replace(incident, sequence=incident.sequence + 1), "close", "recovered", at_ms
        )
        closed = replace(group, incident=None, closed_at_ms=at_ms, closed_severity=incident.severity)
        return closed, alerts
    named = tuple(sorted({*incident.subjects, *active}))
    grown, worse = named != incident.subjects, _worse(severity, incident.severity)
    reminder_due = at_ms - incident.alerted_at_ms >= policy.reminder_ms
    if not (grown or worse or reminder_due):
        return replace(group, suppressed=group.suppressed + loud), []
    updated = replace(
        incident,
        alerted_at_ms=at_ms,
        sequence=incident.sequence + 1,
        severity=severity if worse else incident.severity,
        subjects=named,
    )
    reason = "new-subjects" if grown else "worse" if worse else "still-open"
    return _alert(key, group, updated, "update", reason, at_ms)


def _updated_subjects(
    subjects: Mapping[SubjectKey, Subject], signals: list[Signal], policy: Policy
) -> dict[SubjectKey, Subject]:
    """Update subjects from signals; of several monitors of one subject the one furthest above its threshold counts."""
    loudest: dict[SubjectKey, Signal] = {}
    for signal in signals:
        name = signal.feature, signal.segment
        if name not in loudest or (signal.ratio, signal.monitor) > (loudest[name].ratio, loudest[name].monitor):
            loudest[name] = signal
    subjects_now = dict(subjects)
    for name in sorted(loudest):
        signal = loudest[name]
        before = subjects_now.get(name)
        above = (before.above if before else 0) + 1 if signal.ratio > 1 else 0
        below = (before.below if before else 0) + 1 if signal.ratio < policy.close_ratio else 0
        active = above >= policy.open_after or (before is not None and before.active and below < policy.close_after)
        subjects_now[name] = Subject(signal, above, below, active)
    return subjects_now


def _worse(severity: Severity, than: Severity) -> bool:
    return severity == "critical" and than == "warning"


def _superseded(key: GroupKey, group: Group, at_ms: int) -> list[Alert]:
    if group.incident is None:
        return []
    incident = replace(group.incident, sequence=group.incident.sequence + 1)
    return _alert(key, group, incident, "close", "superseded", at_ms)[1]


def _alert(
    key: GroupKey, group: Group, incident: Incident, event: Event, reason: str, at_ms: int
) -> tuple[Group, list[Alert]]:
    kind, model, version = key
    signals = [group.subjects[name].last for name in incident.subjects]
    first = leading(signals)
    changes = [s.metric_change for s in signals if s.metric_change is not None]
    alert = Alert(
        id=incident.id,
        event_id=f"{incident.id}-{incident.sequence}",
        sequence=incident.sequence,
        event=event,
        reason=reason,
        severity=incident.severity,
        kind=kind,
        model=model,
        model_version=version,
        feature=first.feature,
        segment=first.segment,
        monitor=first.monitor,
        statistic=first.statistic,
        threshold=first.threshold,
        reference=first.reference,
        window_from_ms=first.evidence.from_ms,
        window_to_ms=first.evidence.to_ms,
        topic=first.evidence.topic,
        offsets=offsets_json(first.evidence),
        subjects=subjects_json(signals),
        subject_count=len(signals),
        impact=min(1.0, sum(s.impact for s in signals)),
        estimated_metric_change=max(changes, key=abs) if changes else None,
        suppressed=group.suppressed,
        opened_at_ms=incident.opened_at_ms,
        at_ms=at_ms,
        runbook=RUNBOOK.format(kind=kind),
    )
    return replace(group, incident=incident, suppressed=0), [alert]
