"""Adoption of topics that were recreated or truncated: offline, by an operator's command.

The new log of an input is read from its beginning. State is kept: its stored offsets are of an earlier generation and
below every offset of the new one, so nothing is folded twice and nothing is skipped. A changelog that was recreated
while its stage ran holds only a part of the state: it is emptied, and the stage rebuilds its state from its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.client import client_logger, extent, read_committed
from millstream.adapters.kafka.cluster import inside, named
from millstream.adapters.kafka.groups import committed_offsets, require_stopped, set_offsets
from millstream.adapters.kafka.origins import Origin
from millstream.adapters.kafka.producer import write_rows
from millstream.adapters.kafka.topic_ids import PresentTopics
from millstream.adapters.kafka.topic_registry import Record, is_state, read_registry, tracked, write_registry
from millstream.adapters.kafka.topics import partition_counts
from millstream.errors import Misconfigured
from millstream.topology import Topic, Topology

_TIMEOUT_S: Final = 60.0
_PENDING: Final = "pending"


@dataclass(frozen=True, slots=True)
class AdoptedTopic:
    """A topic that stages go on with, and from where.

    Parameters
    ----------
    topic : str
    generation : int
        Of its offsets from now on.
    rebuilt : bool
        It is a changelog, whose stage rebuilds its state from its inputs.
    """

    topic: str
    generation: int
    rebuilt: bool


def adopt(kafka: Mapping[str, str], topology: Topology, names: Sequence[str], replication: int) -> list[AdoptedTopic]:
    """Adopt the named topics, or those that are other ones than recorded; safe to repeat after a crash.

    Raises
    ------
    Misconfigured
        A stage still runs, or a name is of no topic that stored offsets depend on.
    Retry, Stop
        Kafka cannot be read or written.
    """
    topics = {topic.name: topic for topic in tracked(topology)}
    names = [inside(kafka, name) for name in names]
    if unknown := sorted(set(names) - topics.keys()):
        raise Misconfigured(f"no stage reads a topic {unknown[0]!r}; they read: {', '.join(sorted(topics))}")
    admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
    require_stopped(admin, [topology.group(stage) for stage in topology.names])
    ids, recorded = PresentTopics(kafka).ask(topics), read_registry(kafka)
    if missing := sorted(set(names or topics) - ids.keys()):
        raise Misconfigured(f"topics are missing: {', '.join(missing)}; create them with `millstream init`")
    done = []
    for name in names or sorted(topics):
        record = recorded.get((topology.project, named(kafka, name)))
        if record is None or (not names and record.origin.topic_id == ids[name]):
            continue
        done.append(_adopt(kafka, admin, topology, topics[name], record, ids[name], replication))
    return done


def _adopt(
    kafka: Mapping[str, str],
    admin: AdminClient,
    topology: Topology,
    topic: Topic,
    record: Record,
    topic_id: str,
    replication: int,
) -> AdoptedTopic:
    # Until everything is done the record fits no topic: a crash between leaves stages that refuse, not ones that skip.
    write_registry(kafka, [replace(record, origin=replace(record.origin, topic_id=_PENDING))], replication)
    generation = record.origin.generation
    if is_state(topic):
        _empty_changelog(kafka, topic.name)
    else:
        generation += 1
        extents = _extents(kafka, topic.name)
        for stage in topology.names:
            if stage not in topic.readers:
                continue
            group = topology.group(stage)
            # Of the log that was recorded, positions that it still has are kept: only what is missing is passed over.
            known = committed_offsets(admin, group) if record.origin.topic_id == topic_id else {}
            inside_log = {
                place: known[place] if low <= known.get(place, -1) <= high else low
                for place, (low, high) in extents.items()
            }
            set_offsets(admin, group, inside_log)
    origin = Origin(topic_id, generation, record.origin.layout)
    write_registry(kafka, [replace(record, origin=origin)], replication)
    return AdoptedTopic(topic.name, generation, is_state(topic))


def _extents(kafka: Mapping[str, str], topic: str) -> dict[tuple[str, int], tuple[int, int]]:
    consumer = Consumer({**kafka, "group.id": "millstream.reader", "logger": client_logger})
    try:
        count = partition_counts(kafka, [topic])[topic]
        name = named(kafka, topic)
        return {(name, partition): extent(consumer, name, partition) for partition in range(count)}
    finally:
        consumer.close()


def _empty_changelog(kafka: Mapping[str, str], topic: str) -> None:
    """Delete every key of a compacted topic, which takes no other deletion."""
    for partition in range(partition_counts(kafka, [topic])[topic]):
        keys = {each.key() for part in read_committed(kafka, topic, partition, 0, None) for each in part}
        write_rows(kafka, topic, [(partition, key, None) for key in keys if key is not None])
