"""Offsets of stopped consumer groups: read and set by commands."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.client import raise_for, result_of
from millstream.errors import Misconfigured, Retry

_TIMEOUT_S: Final = 30.0
_STOPPED: Final = {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}


def require_stopped(admin: AdminClient, groups: Iterable[str]) -> None:
    """Refuse to go on while a group has members.

    Raises
    ------
    Misconfigured
        Naming the groups that have.
    Retry, Stop
        The broker does not say.
    """
    wanted = sorted(groups)
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            running = _running(admin, wanted)
            break
        except Retry:
            # The coordinator of a broker that has just started is still being loaded.
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
    if running:
        raise Misconfigured(
            f"{', '.join(running)} still have members: stop all stages first (members that were killed leave after "
            "some seconds)"
        )


def _running(admin: AdminClient, groups: list[str]) -> list[str]:
    running = []
    for group, future in admin.describe_consumer_groups(groups, request_timeout=_TIMEOUT_S).items():
        try:
            if result_of(future, _TIMEOUT_S).state not in _STOPPED:
                running.append(group)
        except KafkaException as failure:
            if failure.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise_for(failure.args[0], f"asking for the members of {group}")
    return running


def committed_offsets(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    """Return a group's committed offsets by topic and partition; {} if there is no such group.

    Raises
    ------
    Retry, Stop
        The broker does not say.
    """
    (future,) = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=_TIMEOUT_S
    ).values()
    try:
        found = result_of(future, _TIMEOUT_S).topic_partitions or []
    except KafkaException as failure:
        if failure.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return {}
        raise_for(failure.args[0], f"asking for the offsets of {group}")
    return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}


def set_offsets(admin: AdminClient, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Commit offsets for a group without members.

    Raises
    ------
    Retry, Stop
        The broker refuses.
    """
    wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
    if not wanted:
        return
    (future,) = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=_TIMEOUT_S
    ).values()
    try:
        answered = result_of(future, _TIMEOUT_S).topic_partitions or []
    except KafkaException as failure:
        raise_for(failure.args[0], f"setting the offsets of {group}")
    for each in answered:
        if each.error is not None:
            raise_for(each.error, f"setting the offset of {group} on {each.topic}[{each.partition}]")
