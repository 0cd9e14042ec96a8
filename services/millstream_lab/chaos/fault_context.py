"""What faults act on, and how they record that they had an effect."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from millstream.core.avro.schema import Schema
from millstream.core.declaration import Service
from millstream.ports import ModelVersion
from millstream_lab.chaos.cluster import Cluster
from millstream_lab.chaos.stream import ChaosStream


@dataclass
class FaultContext:
    """What faults may touch.

    Parameters
    ----------
    good : list of ModelVersion
        Models that fit.
    spared : frozenset of str
        Workers that are never harmed.
    redis_url : str
        Of the server itself, not its link.
    harmed : bool
        Whether the present fault had its effect.
    """

    cluster: Cluster
    random: random.Random
    kafka: dict[str, str]
    redis_url: str
    service: Service
    good: list[ModelVersion]
    schema: Schema
    stream: ChaosStream
    partitions: int
    spared: frozenset[str] = frozenset()
    bad_version: int = 900
    harmed: bool = True

    def harm(self, was_done: bool) -> None:
        """Return whether there is a sign of an effect; one that is missing counts."""
        self.harmed = self.harmed and was_done

    def target(self) -> str:
        """Choose a worker."""
        return self.random.choice(sorted(set(self.cluster.workers) - self.spared))

    def wait(self, low_s: float, high_s: float) -> None:
        """Let a random time pass."""
        time.sleep(self.random.uniform(low_s, high_s))

    def redis(self) -> redis.Redis:
        """Return a client of the server itself."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=30)


def awaited(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait for a condition; return whether it was met within the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
