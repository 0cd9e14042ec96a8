"""Refuses projects whose internal topics still have the names of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.groups import committed_offsets
from millstream.adapters.kafka.topic_names import FILE
from millstream.adapters.kafka.topics import partition_counts
from millstream.errors import Misconfigured
from millstream.topology import Topology


def refuse_earlier_names(kafka: Mapping[str, str], topology: Topology) -> None:
    """Refuse to begin with new topics where the project has worked on ones with plain names.

    Raises
    ------
    Misconfigured
        Its groups have offsets and its changelogs are there under their plain names only; the message holds how to keep
        them.
    """
    changelogs = {stage.changelog: f"{stage.name}.changelog" for stage in topology.stages if stage.internal}
    there = partition_counts(kafka, [*changelogs, *changelogs.values()])
    plain = [name for name in changelogs.values() if name in there]
    if not plain or any(name in there for name in changelogs):
        return
    admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
    if any(committed_offsets(admin, topology.group(stage.name)) for stage in topology.stages):
        raise Misconfigured(
            f"project {topology.project} has worked on {', '.join(plain)}, of an earlier version; its internal topics "
            f'would now begin with {topology.stages[0].internal!r}, without that state. Put the line internal = "" '
            f"into {FILE} of its feature repo to go on with the topics that are there"
        )
