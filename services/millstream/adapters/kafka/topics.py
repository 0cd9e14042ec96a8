"""Create the topology's topics, and refuse ones that exist with a layout the engine cannot work on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined] # public, says its manual
from confluent_kafka.cimpl import NewTopic

from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.cluster import named
from millstream.errors import Misconfigured, Retry
from millstream.topology import Topic

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_AFTER = "message.timestamp.after.max.ms"
_BROKERS_DEFAULT_BYTES = 1_048_588
_FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
TIMESTAMP_AFTER_MS = 3_600_000
"""How far ahead of the broker's clock a producer's record timestamp may be; Kafka's own default since 4.0."""
BIG_RECORD_BYTES = 16_777_216
"""Largest record of topics made here, as producers and consumers are set; brokers' own default is 1 MiB."""


@dataclass(frozen=True, slots=True)
class TopicsCreated:
    """Names of topics that were made and of those that were there."""

    created: tuple[str, ...]
    present: tuple[str, ...]


def _admin(kafka: Mapping[str, str]) -> AdminClient:
    settings: dict[str, Any] = {**kafka, "logger": client_logger}
    return AdminClient(settings)


def _config(topic: Topic, retention_ms: int) -> dict[str, str]:
    if topic.cleanup == "compact":
        config = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "600000"}
        if topic.whole_ms:
            config["min.compaction.lag.ms"] = str(topic.whole_ms)
    else:
        config = {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        if topic.writer == "producers":
            # A record's timestamp is compared with its event time: it must not be of a clock that is ahead itself.
            config[_AFTER] = str(TIMESTAMP_AFTER_MS)
    # Every hop adds to a record, and a dead letter holds a whole one: all topics must take more than producers send.
    return {**config, "max.message.bytes": str(BIG_RECORD_BYTES)}


def create_topics(
    kafka: Mapping[str, str], topics: Sequence[Topic], partitions: int, replication: int, retention_ms: int = -1
) -> TopicsCreated:
    """Create what is missing; the configuration of what is there stays as it is.

    Raises
    ------
    Retry
        The cluster cannot be reached.
    Misconfigured
        A topic may not be created, or stages' topics differ in their number of partitions.
    """
    admin = _admin(kafka)
    counts = partition_counts(kafka, [topic.name for topic in topics])
    wanted = {topic.name: topic.partitions or partitions for topic in topics}
    # New topics follow the ones that are there: all keyed topics of one topology are co-partitioned.
    shared = {counts[topic.name] for topic in topics if topic.partitions is None and topic.name in counts}
    if len(shared) > 1:
        layout = ", ".join(f"{t.name}: {counts[t.name]}" for t in topics if t.partitions is None and t.name in counts)
        raise Misconfigured(
            f"topics differ in their number of partitions ({layout}), so state and input would not meet. "
            "Recreate them with one number, or start under another project name, with names of its own in topics.toml"
        )
    for name, count in wanted.items():
        if name not in counts and shared and count == partitions:
            wanted[name] = next(iter(shared))
    missing = [topic for topic in topics if topic.name not in counts]
    if not missing:
        return TopicsCreated((), tuple(counts))
    new = [
        NewTopic(
            named(kafka, topic.name),
            num_partitions=wanted[topic.name],
            replication_factor=replication,
            config=_config(topic, retention_ms),
        )
        for topic in missing
    ]
    _create(admin, new)
    return TopicsCreated(tuple(topic.name for topic in missing), tuple(counts))


def _create(admin: AdminClient, topics: Sequence[NewTopic]) -> None:
    refused: list[NewTopic] = []
    by_name = {topic.topic: topic for topic in topics}
    for name, future in admin.create_topics(list(topics), operation_timeout=_TIMEOUT_S).items():
        try:
            future.result(_TIMEOUT_S)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if error.code() == KafkaError.INVALID_CONFIG and (by_name[name].config or {}).pop(_AFTER, ""):
                refused.append(by_name[name])
                continue
            raise Misconfigured(f"topic {name} could not be created: {error.str()}") from failure
    if refused:
        logger.warning(
            "the broker knows no %s (Kafka before 3.6): it cannot refuse a producer's clock that is ahead", _AFTER
        )
        _create(admin, refused)


def partition_counts(kafka: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Return the number of partitions of those of the topics that exist.

    Raises
    ------
    Retry
        The cluster cannot be reached.
    """
    try:
        metadata = _admin(kafka).list_topics(timeout=_TIMEOUT_S)
    except KafkaException as failure:
        where = kafka.get("bootstrap.servers", "?")
        raise Retry(f"Kafka at {where} does not answer ({failure.args[0].str()}); see `millstream doctor`") from failure
    found = ((name, metadata.topics.get(named(kafka, name))) for name in names)
    return {name: len(topic.partitions) for name, topic in found if topic is not None}


def largest_record_bytes(kafka: Mapping[str, str], topic: str) -> int:
    """Return the size of the largest record that both the topic and our producers take, framing included.

    Where we may not look at the topic's configuration, brokers' default is assumed.

    Raises
    ------
    Retry
        The cluster cannot be reached, or does not say.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, named(kafka, topic))
    admin = _admin(kafka)
    try:
        config = admin.describe_configs([resource])[resource].result(_TIMEOUT_S)
    except KafkaException as failure:
        if failure.args[0].code() in _FORBIDDEN:
            logger.warning("may not look at the configuration of %s; records up to 1 MiB are assumed to fit", topic)
            return _BROKERS_DEFAULT_BYTES
        raise Retry(f"asking for the record size of {topic}: {failure.args[0].str()}") from failure
    allowed = int(config["max.message.bytes"].value)
    return min(allowed, int(kafka.get("message.max.bytes", BIG_RECORD_BYTES)))


def require_topics(kafka: Mapping[str, str], topics: Sequence[Topic]) -> int:
    """Return the common number of partitions of the topology's topics.

    Raises
    ------
    Misconfigured
        One is missing, or they differ.
    """
    counts = partition_counts(kafka, [topic.name for topic in topics])
    missing = [topic.name for topic in topics if topic.name not in counts]
    if missing:
        raise Misconfigured(f"topics are missing: {', '.join(missing)}; create them with `millstream init`")
    shared = {counts[topic.name] for topic in topics if topic.partitions is None}
    if len(shared) > 1:
        layout = ", ".join(f"{t.name}: {counts[t.name]}" for t in topics if t.partitions is None)
        raise Misconfigured(f"topics differ in their number of partitions ({layout}); state and input would not meet")
    return shared.pop()
