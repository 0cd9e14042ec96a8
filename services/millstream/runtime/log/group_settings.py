"""librdkafka's settings for a member of a stage's consumer group, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.adapters.kafka.client import client_logger


def group_settings(kafka: Mapping[str, str], group: str) -> dict[str, Any]:
    """Return the settings of a member; those of ``kafka`` win.

    Parameters
    ----------
    kafka : mapping of str to str
        Common to all clients of the project.
    group : str
        Consumer group of the stage.
    """
    # No static membership (KIP-345): a member that comes back is given its last assignment without a rebalance, so
    # partitions that were on their way between two cooperative rounds (KIP-429) would be permanently unassigned.
    return {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        "max.poll.interval.ms": 600_000,
        # The broker answers a fetch once so much is there or so long has passed: without a floor, each produce
        # request would wake a fetch, and the broker spend its time on those.
        "fetch.min.bytes": 65_536,
        "fetch.wait.max.ms": 5,
        # A partition whose records fill the queue is fetched again after this long; the default of a second starves
        # a stage that is faster.
        "fetch.queue.backoff.ms": 5,
        # A record read ahead takes half a kilobyte besides its bytes: some micro-batches' worth, not a backlog's.
        # A record larger than a fetch comes alone, whatever its size (KIP-74).
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.message.max.bytes": 1_048_576,
        **kafka,
        "logger": client_logger,
    }
