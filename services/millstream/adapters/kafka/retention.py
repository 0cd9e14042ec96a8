"""Retention of topics: what is configured, and what rebuilding state requires."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # public, says its manual
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from millstream.adapters.kafka.client import client_logger, raise_for, result_of
from millstream.adapters.kafka.cluster import inside, named
from millstream.core.declaration import View
from millstream.errors import Misconfigured
from millstream.topology import LABELS, SCORED, Topic, Topology

logger = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000
FOR_EVER: Final = -1
_TIMEOUT_S: Final = 30.0


def needed_ms(topology: Topology, label_horizon_days: int) -> dict[str, int]:
    """Return how long topics must keep their records, milliseconds by topic; others need not at all.

    Windows are rebuilt from the input of their stage when their declaration changes or their changelog is lost, the
    label ledger from `SCORED` and `LABELS`. The first stage needs what an event that is just not late looks up. A later
    stage retains the longest window before its watermark, and that may be two horizons of the first stage behind: see
    `millstream.core.windows.watermark`. A label counts up to the horizon after its event, so that windows over labels
    reach back by as much more.
    """
    label_horizon_ms = label_horizon_days * DAY_MS
    first = topology.stages[0]
    horizon_ms = _longest_ms(first.views) + max(view.lateness_ms for view in first.views)
    needed: dict[str, int] = {}
    for stage in topology.stages:
        behind_ms = 0 if stage.first else 2 * horizon_ms
        needed[stage.input] = horizon_ms if stage.first else _longest_ms(stage.views) + behind_ms
        if stage.labels is not None:
            behind_ms = max(label_horizon_ms, horizon_ms, behind_ms)
            needed[stage.labels.input] = _longest_ms(stage.labels.views) + behind_ms
    if topology.joins:
        needed[SCORED] = needed[LABELS] = label_horizon_ms
    return needed


def _longest_ms(views: Sequence[View]) -> int:
    return max((each.window_ms for view in views for each in view.aggregates), default=0)


def retention_ms(days: int | None, needed: Mapping[str, int]) -> int:
    """Return the retention of topics that are created, in milliseconds; `FOR_EVER` where none is set.

    Raises
    ------
    Misconfigured
        State could not be rebuilt from topics that keep so little.
    """
    if days is None:
        return FOR_EVER
    short = [topic for topic, least_ms in needed.items() if days * DAY_MS < least_ms]
    if short:
        least = max(needed[topic] for topic in short)
        raise Misconfigured(
            f"MILLSTREAM_RETENTION_DAYS is {days}; {', '.join(sorted(short))} must keep their records for at least "
            f"{_days(least)} days, so that windows and the label ledger can be rebuilt from them"
        )
    return days * DAY_MS


@dataclass(frozen=True, slots=True)
class ShortTopic:
    """A topic that is there and keeps less than state is rebuilt from, both in milliseconds."""

    topic: str
    kept_ms: int
    needed_ms: int

    def __str__(self) -> str:
        return (
            f"{self.topic} keeps its records for {self.kept_ms / DAY_MS:g} days; rebuilding state needs "
            f"{_days(self.needed_ms)}. `millstream init --alter` sets retention.ms to MILLSTREAM_RETENTION_DAYS"
        )


def short_topics(kafka: Mapping[str, str], needed: Mapping[str, int]) -> list[ShortTopic]:
    """Return the topics that are there and keep less than is needed; none where we may not look.

    Raises
    ------
    Retry, Stop
        The cluster does not say.
    """
    admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
    found = []
    resources = [ConfigResource(ConfigResource.Type.TOPIC, named(kafka, topic)) for topic in needed]
    for resource, future in admin.describe_configs(resources, request_timeout=_TIMEOUT_S).items():
        topic = inside(kafka, resource.name)
        try:
            config = result_of(future, _TIMEOUT_S)
        except KafkaException as failure:
            logger.warning("may not look at the retention of %s: %s", topic, failure.args[0].str())
            continue
        kept = int(config["retention.ms"].value)
        if config["cleanup.policy"].value == "delete" and 0 <= kept < needed[topic]:
            found.append(ShortTopic(topic, kept, needed[topic]))
    return found


def alter_retention(kafka: Mapping[str, str], topics: Sequence[Topic], kept_ms: int) -> list[str]:
    """Set the retention of topics that are there and are not compacted; return their names.

    Raises
    ------
    Retry, Stop
        The cluster refuses.
    """
    admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
    entry = ConfigEntry("retention.ms", str(kept_ms), incremental_operation=AlterConfigOpType.SET)
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, named(kafka, topic.name), incremental_configs=[entry])
        for topic in topics
        if topic.cleanup == "delete"
    ]
    for resource, future in admin.incremental_alter_configs(resources, request_timeout=_TIMEOUT_S).items():
        try:
            result_of(future, _TIMEOUT_S)
        except KafkaException as failure:
            raise_for(failure.args[0], f"setting the retention of {resource.name}")
    return [inside(kafka, resource.name) for resource in resources]


def _days(span_ms: int) -> int:
    return -(-span_ms // DAY_MS)
