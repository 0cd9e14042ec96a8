"""Registry of topics on a cluster: the project that owns each, and the topic ids that stored offsets belong to.

One compacted topic of the whole cluster, `REGISTRY`, holds a record per project and topic. A project records a topic
when it first works on it; from then on its stages refuse to work on another log of that name until an operator has
adopted it, and other projects refuse to write to it.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.origins import Origin, Origins
from millstream.adapters.kafka.producer import write_rows
from millstream.adapters.kafka.topic_ids import PresentTopics
from millstream.adapters.kafka.topics import create_topics, partition_counts
from millstream.errors import Misconfigured
from millstream.topology import MODELS, SNAPSHOTS, Topic, Topology

logger = logging.getLogger(__name__)

REGISTRY: Final = "millstream.topics"
_TOPIC: Final = Topic(REGISTRY, "project/topic", "every project", ("every project",), "compact", 1)
_JOURNAL: Final = b"#rescale/"


@dataclass(frozen=True, slots=True)
class Record:
    """What a project has recorded of a topic; ``owner`` where its stages write it."""

    project: str
    topic: str
    origin: Origin
    owner: bool

    def key(self) -> bytes:
        """Return the record's key."""
        return f"{self.project}/{self.topic}".encode()

    def encode(self) -> bytes:
        """Return the record as JSON."""
        origin = self.origin
        fields = {"id": origin.topic_id, "generation": origin.generation, "layout": origin.layout, "owner": self.owner}
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> Record:
        """Return the record that `encode` wrote.

        Raises
        ------
        ValueError
            It is none.
        """
        project, _, topic = key.decode().partition("/")
        raw = json.loads(value)
        try:
            origin = Origin(str(raw["id"]), int(raw["generation"]), int(raw["layout"]))
            return cls(project, topic, origin, bool(raw["owner"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record of a topic: {value!r}") from error


def read_registry(kafka: Mapping[str, str]) -> dict[tuple[str, str], Record]:
    """Return all records by project and topic; none where no project has recorded any.

    Raises
    ------
    Retry, Stop
        The registry cannot be read.
    """
    if not partition_counts(kafka, [REGISTRY]):
        return {}
    found: dict[tuple[str, str], Record] = {}
    for messages in read_committed(kafka, REGISTRY, 0, 0, None):
        for message in messages:
            if (message.key() or b"").startswith(b"#"):  # no record of a topic
                continue
            try:
                record = Record.decode(message.key() or b"", message.value() or b"")
                found[record.project, record.topic] = record
            except ValueError as error:
                logger.warning("%s@%s: %s", REGISTRY, message.offset(), error)
    return found


def write_registry(kafka: Mapping[str, str], records: Sequence[Record], replication: int) -> None:
    """Record topics; the registry is created if absent.

    Raises
    ------
    Misconfigured
        It may not be created.
    Retry
        Kafka did not acknowledge in time.
    """
    if not records:
        return
    create_topics(kafka, [_TOPIC], 1, replication)
    write_rows(kafka, REGISTRY, [(0, record.key(), record.encode()) for record in records])


def read_journal(kafka: Mapping[str, str], project: str) -> dict[str, Any] | None:
    """Return how far a rescale has come that was begun and not completed; None where there is none."""
    found = None
    if partition_counts(kafka, [REGISTRY]):
        for messages in read_committed(kafka, REGISTRY, 0, 0, None):
            for message in messages:
                if message.key() == _JOURNAL + project.encode():
                    value = message.value()
                    found = None if value is None else json.loads(value)
    return found


def write_journal(kafka: Mapping[str, str], project: str, journal: Mapping[str, Any] | None) -> None:
    """Remember how far a rescale has come; None once it is complete.

    Raises
    ------
    Retry
        Kafka did not acknowledge in time.
    """
    value = None if journal is None else json.dumps(journal).encode()
    write_rows(kafka, REGISTRY, [(0, _JOURNAL + project.encode(), value)])


def tracked(topology: Topology) -> list[Topic]:
    """Return the topics whose logs stored offsets and state depend on: inputs of stages, and their changelogs.

    Promotions and snapshots are followed from their beginning at each start, and every record of them is whole.
    """
    stages = set(topology.names)
    return [topic for topic in topology.topics if stages & set(topic.readers) and topic.name not in {MODELS, SNAPSHOTS}]


def is_state(topic: Topic) -> bool:
    """Return whether a stage keeps its own state there."""
    return topic.cleanup == "compact" and topic.writer in topic.readers


def claim(kafka: Mapping[str, str], topology: Topology, replication: int) -> Origins:
    """Record what is not recorded yet, and return the origins of the topics that stored offsets depend on.

    Topics that were there before anything was recorded, as those of an earlier version, are taken as they are. So are
    changelogs that were recreated and are empty, from which state is rebuilt, and a project all of whose topics were
    recreated, which starts over.

    Raises
    ------
    Misconfigured
        A topic that the project's stages write belongs to another project.
    Retry, Stop
        The registry cannot be read or written.
    """
    present = PresentTopics(kafka)
    by_name = {topic.name: topic for topic in topology.topics}
    ids, recorded = refuse_conflicts(kafka, topology, present)
    owned = {name for name, topic in by_name.items() if topic.writer != "producers"}
    # By the name on the cluster: a topic that topics.toml calls otherwise now is another topic.
    of_mine = {name: recorded.get((topology.project, named(kafka, name))) for name in by_name}
    mine = {name: each.origin for name, each in of_mine.items() if each is not None}
    depended = {topic.name for topic in tracked(topology)}
    compared = [name for name in depended if name in mine and name in ids]
    start_over = bool(compared) and all(mine[name].topic_id != ids[name] for name in compared)
    fresh: dict[str, Origin] = {}
    for name, topic_id in ids.items():
        known = mine.get(name)
        if known is None:
            fresh[name] = Origin(topic_id)
        elif known.topic_id == topic_id:
            continue
        elif start_over:
            fresh[name] = Origin(topic_id, known.generation + 1, known.layout + 1)
        elif name not in depended or (is_state(by_name[name]) and _empty(kafka, name)):
            fresh[name] = replace(known, topic_id=topic_id)
    records = [Record(topology.project, named(kafka, name), origin, name in owned) for name, origin in fresh.items()]
    write_registry(kafka, records, replication)
    now = {**mine, **fresh}
    return Origins({name: now[name] for name in depended if name in now}, present)


def refuse_conflicts(
    kafka: Mapping[str, str], topology: Topology, present: PresentTopics | None = None
) -> tuple[Mapping[str, str], dict[tuple[str, str], Record]]:
    """Refuse topics that the project cannot work on; return the ids of those that exist, and all records.

    Raises
    ------
    Misconfigured
        Two topics of the project have one name on the cluster, another project writes one of them, or a rescale was
        begun and not completed.
    Retry, Stop
        The registry cannot be read.
    """
    names = Counter(named(kafka, topic.name) for topic in topology.topics)
    if twice := sorted(name for name, count in names.items() if count > 1):
        both = " and ".join(topic.name for topic in topology.topics if named(kafka, topic.name) == twice[0])
        raise Misconfigured(f"topics.toml: {both} are both called {twice[0]!r} on the cluster; rename one")
    if (journal := read_journal(kafka, topology.project)) is not None:
        raise Misconfigured(
            f"the topics of {topology.project} are half way to {journal['to']} partitions: run `millstream topics "
            f"rescale {journal['to']}` again, which completes it"
        )
    ids = (present or PresentTopics(kafka)).ask(topic.name for topic in topology.topics)
    recorded = read_registry(kafka)
    owned = {topic.name for topic in topology.topics if topic.writer != "producers"}
    _refuse_others(kafka, topology.project, owned, list(recorded.values()), ids)
    return ids, recorded


def _empty(kafka: Mapping[str, str], topic: str) -> bool:
    count = partition_counts(kafka, [topic]).get(topic, 0)
    return not any(True for partition in range(count) for _ in read_committed(kafka, topic, partition, 0, None))


def _refuse_others(
    kafka: Mapping[str, str], project: str, owned: Iterable[str], records: Sequence[Record], ids: Mapping[str, str]
) -> None:
    mine = {named(kafka, topic): ids.get(topic) for topic in owned}
    # A record of a topic that was deleted, or recreated since, owns nothing.
    theirs = [each for each in records if each.owner and each.project != project]
    theirs = [each for each in theirs if each.topic in mine and mine[each.topic] == each.origin.topic_id]
    if theirs:
        topics = ", ".join(sorted({each.topic for each in theirs}))
        others = ", ".join(sorted({each.project for each in theirs}))
        raise Misconfigured(
            f"{topics}: written by project {others} on this cluster, and project {project} would write there too. Give "
            f'it names of its own in topics.toml of its feature repo, all of them with the line public = "{project}." '
            f'(internal = "{project}." is the default)'
        )
