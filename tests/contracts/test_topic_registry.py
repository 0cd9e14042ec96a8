"""Which topics a project works on, as the cluster keeps it, on a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from cards import topology, view
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.cluster import Cluster
from millstream.adapters.kafka.earlier_names import refuse_earlier_names
from millstream.adapters.kafka.groups import committed_offsets, set_offsets
from millstream.adapters.kafka.guarantees import may_repeat
from millstream.adapters.kafka.topic_adoption import adopt
from millstream.adapters.kafka.topic_registry import REGISTRY, Record, claim, read_registry
from millstream.adapters.kafka.topics import create_topics
from millstream.core.generations import GENERATION
from millstream.errors import Misconfigured
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.protocol import Assignment
from millstream.runtime.log.records import Output, next_offsets
from millstream.topology import SCORED, Topic, Topology

pytestmark = pytest.mark.kafka


def _project() -> tuple[Topology, Topic, Topic]:
    """Return a project with one stage, `customer`, that reads one topic and keeps a changelog."""
    name = f"p{uuid.uuid4().hex[:8]}"
    given = Topic(f"{name}-in", "k", "producers", ("customer",), partitions=1)
    state = Topic(f"{name}.changelog", "k", "customer", ("customer",), "compact", 1)
    stages = topology(view("activity", "customer"), view("terminal_activity", "terminal")).stages
    return Topology(name, stages, (given, state)), given, state


def _recreate(kafka: Mapping[str, str], topic: Topic) -> None:
    admin = AdminClient(dict(kafka))
    admin.delete_topics([topic.name])[topic.name].result(30)
    deadline = time.monotonic() + 30
    while topic.name in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    create_topics(kafka, [topic], 1, 1)


def _log(kafka: Mapping[str, str], project: Topology) -> KafkaLog:
    return KafkaLog(
        kafka,
        group=project.group("customer"),
        transactional_id=project.project,
        exactly_once=True,
        transaction_timeout_ms=10_000,
        origins=claim(kafka, project, 1),
    )


def _write(log: KafkaLog, topic: Topic, count: int) -> None:
    log.send([Output(topic.name, [b"k"] * count, [b"v%d" % i for i in range(count)], 0)])
    log.commit({})


def _read(log: KafkaLog, topic: Topic, count: int) -> list[int]:
    """Commit what is read, and return its offsets."""
    found: list[int] = []
    log.subscribe([topic.name], Assignment(lambda _p, at: {t: o or 0 for t, o in at.items()}, print, print))
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        for records in log.poll(100, 0.1):
            found += records.offsets.tolist()
            log.send([])
            log.commit(next_offsets([records]))
    return found


def test_a_recreated_topic_is_refused_until_it_is_adopted_and_then_read_whole(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    first = _log(kafka.kafka, project)
    _write(first, given, 4)
    assert _read(first, given, 4) == [0, 1, 2, 3]
    first.close()
    _recreate(kafka.kafka, given)
    late = _log(kafka.kafka, project)
    _write(late, given, 6)
    with pytest.raises(Misconfigured, match=f"{given.name} was deleted and created again.*millstream topics adopt"):
        _read(late, given, 6)
    late.close()

    (done,) = adopt(kafka.kafka, project, (), 1)
    assert (done.topic, done.generation, done.rebuilt) == (given.name, 1, False)
    assert committed_offsets(AdminClient(kafka.kafka), project.group("customer")) == {(given.name, 0): 0}
    assert adopt(kafka.kafka, project, (), 1) == []
    log = _log(kafka.kafka, project)
    assert _read(log, given, 6)[:4] == [GENERATION + i for i in range(4)]
    # Each transaction's marker takes an offset; what is committed is Kafka's own.
    assert committed_offsets(AdminClient(kafka.kafka), project.group("customer"))[given.name, 0] in {6, 7}
    with pytest.raises(Misconfigured, match="still have members"):
        adopt(kafka.kafka, project, [given.name], 1)
    log.close()


def test_a_topic_under_another_name_is_another_topic(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    claim(kafka.kafka, project, 1)
    renamed = Cluster(kafka.kafka, project.project, {state.name: f"other.{state.name}"})
    create_topics(renamed, [state], 1, 1)
    claim(renamed, project, 1).check()
    claim(kafka.kafka, project, 1).check()
    twice = Cluster(kafka.kafka, project.project, {state.name: given.name})
    with pytest.raises(Misconfigured, match=f"{state.name} are both called '{given.name}'|both called '{given.name}'"):
        claim(twice, project, 1)


def test_adopting_the_log_that_was_recorded_keeps_positions_that_it_has(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    log = _log(kafka.kafka, project)
    _write(log, given, 4)
    assert _read(log, given, 4) == [0, 1, 2, 3]
    log.close()
    admin, group = AdminClient(kafka.kafka), project.group("customer")
    before = committed_offsets(admin, group)
    (done,) = adopt(kafka.kafka, project, [given.name], 1)
    assert done.generation == 1
    assert committed_offsets(admin, group) == before
    set_offsets(admin, group, {(given.name, 0): 1_000})
    adopt(kafka.kafka, project, [given.name], 1)
    assert committed_offsets(admin, group) == {(given.name, 0): 0}


def test_a_changelog_recreated_below_a_running_stage_is_emptied_and_an_empty_one_is_taken(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    log = _log(kafka.kafka, project)
    _recreate(kafka.kafka, state)
    assert claim(kafka.kafka, project, 1).known[state.name].generation == 0
    claim(kafka.kafka, project, 1).check()
    _recreate(kafka.kafka, state)
    _write(log, state, 3)  # as the running stage does, which knows nothing yet
    log.close()
    with pytest.raises(Misconfigured, match=f"{state.name} was deleted"):
        claim(kafka.kafka, project, 1).check()
    (done,) = adopt(kafka.kafka, project, (), 1)
    assert done.rebuilt
    claim(kafka.kafka, project, 1).check()
    reader = _log(kafka.kafka, project)
    left = [dict(zip(records.keys, records.values, strict=True)) for records in reader.read(state.name, 0, 0, None)]
    assert left[-1] == {b"k": None}
    reader.close()


def test_topics_of_another_project_are_refused_unless_they_were_recreated(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    claim(kafka.kafka, project, 1)
    other = replace(project, project=f"{project.project}-other")
    with pytest.raises(Misconfigured, match=f"{state.name}: written by project {project.project} on this cluster"):
        claim(kafka.kafka, other, 1)
    claim(kafka.kafka, replace(other, topics=(given,)), 1)  # whoever wants may read what producers write


def test_a_record_that_is_none_is_passed_over(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    log = _log(kafka.kafka, project)
    log.send([Output(REGISTRY, [b"x/y", b"a/b"], [b"{}", b"\xff"], 0)])
    log.commit({})
    log.close()
    found = read_registry(kafka.kafka)[project.project, given.name]
    assert found.origin.topic_id
    assert Record.decode(found.key(), found.encode()) == found


def test_a_project_that_wrote_at_least_once_goes_on_looking_for_repeated_records(kafka: Endpoints) -> None:
    project, given, state = _project()
    create_topics(kafka.kafka, [given, state], 1, 1)
    running = _log(kafka.kafka, project)
    assert not may_repeat(kafka.kafka, project, exactly_once=True)
    _write(running, given, 1)
    assert _read(running, given, 1) == [0]
    with pytest.raises(Misconfigured, match="workers of this project run exactly once"):
        may_repeat(kafka.kafka, project, exactly_once=False)
    running.close()
    assert may_repeat(kafka.kafka, project, exactly_once=False)
    assert may_repeat(kafka.kafka, project, exactly_once=True)
    assert may_repeat(kafka.kafka, project, exactly_once=False)
    claim(kafka.kafka, project, 1).check()
    assert not may_repeat(kafka.kafka, replace(project, project=f"{project.project}-other"), exactly_once=True)


def test_two_projects_work_on_topics_of_their_own_under_one_name(kafka: Endpoints) -> None:
    topic = Topic(SCORED, "k", "customer", ("customer",), partitions=1)
    read = {}
    for project in (f"p{uuid.uuid4().hex[:8]}" for _ in range(2)):
        cluster = Cluster(kafka.kafka, project, {SCORED: f"{project}.scored"})
        assert create_topics(cluster, [topic], 1, 1).created == (SCORED,)
        assert create_topics(cluster, [topic], 1, 1).present == (SCORED,)
        stages = topology(view("activity", "customer"), view("terminal_activity", "terminal")).stages
        log = _log(cluster, Topology(project, stages, (topic,)))
        log.send([Output(SCORED, [b"k"], [project.encode()], 0)])
        log.commit({})
        assert _read(log, topic, 1) == [0]
        assert committed_offsets(AdminClient(kafka.kafka), f"{project}.customer").keys() == {(f"{project}.scored", 0)}
        read[project] = [value for records in log.read(SCORED, 0, 0, None) for value in records.values]
        assert (project, f"{project}.scored") in read_registry(cluster)
        log.close()
    assert read == {project: [project.encode()] for project in read}


def test_a_project_of_an_earlier_version_is_not_begun_again_under_new_names(kafka: Endpoints) -> None:
    project = f"p{uuid.uuid4().hex[:8]}"
    stages = tuple(
        replace(stage, name=f"{project}-{stage.name}", internal=f"{project}.")
        for stage in topology(view("activity", "customer"), view("terminal_activity", "terminal")).stages
    )
    new = Topology(project, stages, ())
    refuse_earlier_names(kafka.kafka, new)
    plain = Topic(f"{stages[0].name}.changelog", "k", "customer", ("customer",), "compact", 1)
    create_topics(kafka.kafka, [plain], 1, 1)
    refuse_earlier_names(kafka.kafka, new)  # of somebody else: this project has no offsets
    set_offsets(AdminClient(kafka.kafka), new.group(stages[0].name), {(plain.name, 0): 3})
    with pytest.raises(Misconfigured, match=r'internal = "" into topics.toml'):
        refuse_earlier_names(kafka.kafka, new)
    create_topics(kafka.kafka, [replace(plain, name=stages[0].changelog)], 1, 1)
    refuse_earlier_names(kafka.kafka, new)
