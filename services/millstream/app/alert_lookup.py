"""What commands about alerts share: the topics, an incident by the beginning of its id, what was done about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from millstream.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from millstream.adapters.kafka.alert_topic import AlertTopic
    from millstream.core.drift.actions import Action
    from millstream.settings import Settings


def open_topic(settings: Settings) -> AlertTopic:
    """Return the alerts of the settings' cluster; Misconfigured if there are none."""
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.files.contracts import load_all
    from millstream.adapters.kafka.alert_topic import AlertTopic
    from millstream.adapters.kafka.schema_topic import schema_resolver
    from millstream.adapters.kafka.topics import partition_counts
    from millstream.core.avro.decode import RecordReader
    from millstream.topology import ALERT_ACTIONS, ALERTS

    kafka = resolve(settings, redis=False).kafka
    if not {ALERTS, ALERT_ACTIONS} <= partition_counts(kafka, [ALERTS, ALERT_ACTIONS]).keys():
        raise Misconfigured("there are no topics for alerts yet; create the topology's with `millstream init`")
    contracts = load_all(settings)
    known = [contract.schema for contract in contracts.values()]
    resolver = schema_resolver(settings, kafka, known)
    alerts, actions = contracts[ALERTS].schema, contracts[ALERT_ACTIONS].schema
    return AlertTopic(kafka, RecordReader(alerts, resolver), RecordReader(actions, resolver), actions)


def iter_alerts(topic: AlertTopic, follow: bool, everything: bool) -> Iterator[dict[str, Any]]:
    """Yield the newest alert of each incident, with what was done about it.

    Parameters
    ----------
    follow : bool
        Go on with new alerts.
    everything : bool
        Incidents that have ended as well.
    """
    actions, at_ms = topic.actions(), now_ms()
    for row in topic.standing():
        if everything or row["event"] != "close":
            yield with_actions(row, actions, at_ms)
    for new in topic.follow(None) if follow else ():
        if new is not None:
            yield with_actions(new, topic.actions(), now_ms())


def of_id(rows: Sequence[dict[str, Any]], beginning: str) -> list[dict[str, Any]]:
    """Return the rows of the one incident whose id begins so; Misconfigured if there is none, or several."""
    found = [row for row in rows if row["id"].startswith(beginning)]
    if len({row["id"] for row in found}) != 1:
        many = "no incident has" if not found else "several incidents have"
        raise Misconfigured(f"{many} an id that begins with {beginning!r}; `millstream alerts --all` lists them")
    return found


def with_actions(row: Mapping[str, Any], actions: Sequence[Action], at_ms: int) -> dict[str, Any]:
    """Return an alert with who acknowledged it and what silences it, as ``acknowledged`` and ``silenced``."""
    from dataclasses import asdict

    from millstream.core.drift.actions import acknowledged_by, silenced_by

    taken, hushed = acknowledged_by(row, actions), silenced_by(row, actions, at_ms)
    return {**row, "acknowledged": asdict(taken) if taken else None, "silenced": asdict(hushed) if hushed else None}


def now_ms() -> int:
    """Return the wall clock, which silences go by."""
    return time.time_ns() // 1_000_000
