"""Partitions added to a topic of keyed state: every worker must refuse, in words, and go on refusing.

Nothing can take a partition away again, so this comes after everything else was checked: topics and groups are deleted
and created again each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topic_names import cluster_of
from millstream.app.setup import initialise
from millstream.errors import Stop
from millstream.settings import Settings
from millstream.topology import Topology
from millstream_lab.chaos.cluster import Cluster
from millstream_lab.chaos.fault_injector import InjectedFault

NAME = "partitions added"
REFUSED = 78
_LIMIT_S = 60.0
_TIMEOUT_S = 30.0


def grow(settings: Settings, cluster: Cluster, topology: Topology, workers: Sequence[str], turn: int) -> InjectedFault:
    """Add a partition to a stage's input (another one each turn) while workers run: they must leave and stay away.

    Raises
    ------
    Stop
        A worker goes on, or reports nothing.
    """
    at_s = time.monotonic()
    _afresh(settings, topology)
    known = len(cluster.exits)
    for name in workers:
        cluster.add(name)
    _await(lambda: all(map(cluster.ready, workers)), "workers did not become ready on new topics", cluster)
    topic = topology.stages[turn % len(topology.stages)].input
    kafka = cluster_of(settings, settings.kafka)
    admin = _admin(kafka)
    for future in admin.create_partitions([NewPartitions(named(kafka, topic), 5)]).values():
        future.result(_TIMEOUT_S)
    grown_s = time.monotonic()

    def refusing() -> bool:
        codes = {each.worker: each.code for each in cluster.exits[known:]}
        return all(codes.get(name) == REFUSED for name in workers)

    _await(refusing, f"workers go on although {topic} has another partition", cluster)
    silent = [each.worker for each in cluster.exits[known:] if "partitions" not in each.tail]
    for name in workers:
        cluster.forget(name)
    if silent:
        raise Stop(f"{', '.join(silent)} left without a word about {topic}'s partitions")
    over_s = time.monotonic()
    note = f"{topic}; all refuse after {over_s - grown_s:.0f} s"
    return InjectedFault(NAME, note, math.nan, over_s - at_s, 0.0, len(cluster.exits) - known)


def _afresh(settings: Settings, topology: Topology) -> None:
    kafka = cluster_of(settings, settings.kafka)
    admin, names = _admin(kafka), {named(kafka, topic.name) for topic in topology.topics}
    deadline = time.monotonic() + _TIMEOUT_S
    for name in topology.names:
        while not _group_deleted(admin, f"{topology.project}.{name}"):
            if time.monotonic() > deadline:
                raise Stop(f"the group of stage {name} keeps members although every worker is gone")
            time.sleep(0.5)
    for future in admin.delete_topics(sorted(names)).values():
        future.result(_TIMEOUT_S)
    while set(admin.list_topics(timeout=_TIMEOUT_S).topics) & names:
        if time.monotonic() > deadline:
            raise Stop("deleted topics do not go away")
        time.sleep(0.2)
    initialise(settings, lambda _step: None)


def _group_deleted(admin: AdminClient, group: str) -> bool:
    """Delete a group; False while killed workers still count as members."""
    (future,) = admin.delete_consumer_groups([group]).values()
    try:
        future.result(_TIMEOUT_S)
    except KafkaException as failure:
        error: KafkaError = failure.args[0]
        if error.code() == KafkaError.NON_EMPTY_GROUP:
            return False
        if error.code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
    return True


def _admin(kafka: Mapping[str, str]) -> AdminClient:
    settings: dict[str, Any] = {**kafka, "logger": client_logger}
    return AdminClient(settings)


def _await(condition: Any, failed: str, cluster: Cluster) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            tails = "\n".join(f"--- {each.worker} left with {each.code}\n{each.tail}" for each in cluster.exits[-3:])
            raise Stop(f"{failed}\n{tails}")
        time.sleep(0.2)
