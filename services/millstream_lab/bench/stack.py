"""The benchmark's own broker and Valkey, emptied before each measurement, and jobs set up on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from millstream.adapters.embedded import endpoints
from millstream.adapters.kafka.topic_names import cluster_of
from millstream.adapters.kafka.topics import partition_counts
from millstream.app.assembly import Assembly, assemble
from millstream.app.setup import initialise
from millstream.core.avro.schema import Schema
from millstream.errors import Stop
from millstream.settings import Settings, load_settings
from millstream_lab.bench.model import train_model
from millstream_lab.bench.promotion import promote
from millstream_lab.bench.sides import own_environ

_CLEAR_S = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stack:
    """Running servers, or none.

    Parameters
    ----------
    state_dir : Path
        Of the servers and workers; logs are there too.
    kafka : mapping
        Client settings; empty without servers, as is ``redis_url``.
    guarantee, seed : str, int
        Of every job and model.
    """

    state_dir: Path
    kafka: Mapping[str, str]
    redis_url: str
    guarantee: str
    seed: int
    say: Say


@dataclass(frozen=True)
class Job:
    """A feature repo set up on an empty stack, its model promoted.

    Parameters
    ----------
    model_file : Path
        What the scorers score with.
    """

    stack: Stack
    settings: Settings
    assembly: Assembly
    model_file: Path

    @property
    def kafka(self) -> Mapping[str, str]:
        """Client settings."""
        return cluster_of(self.settings, self.stack.kafka)

    @property
    def schema(self) -> Schema:
        """Of the events."""
        return self.assembly.contract.schema

    @property
    def input(self) -> str:
        """Topic of the events."""
        return self.assembly.topology.stages[0].input

    def environ(self, worker: str) -> dict[str, str]:
        """Return a worker's environment."""
        return {
            **own_environ(),
            "MILLSTREAM_STATE_DIR": str(self.stack.state_dir),
            "MILLSTREAM_FEATURE_REPO": str(self.settings.feature_repo.resolve()),
            "MILLSTREAM_GUARANTEE": self.stack.guarantee,
            "MILLSTREAM_WORKER_ID": worker,
        }


@contextmanager
def own_stack(
    state_dir: Path, say: Say, guarantee: str = "exactly_once", seed: int = 7, servers: bool = True
) -> Iterator[Stack]:
    """Start servers in an empty directory; stop them when the block is left.

    Parameters
    ----------
    servers : bool
        False for what runs in this process alone.

    Raises
    ------
    Retry, Stop
        A server does not come up.
    """
    # Settings are read from the environment; the operator's endpoints must not be among them.
    kept, own = dict(os.environ), own_environ()
    os.environ.clear()
    os.environ.update(own)
    settings = load_settings({}, state_dir=state_dir)
    try:
        if not servers:
            yield Stack(state_dir, {}, "", guarantee, seed, say)
            return
        started = endpoints.start(settings, say)
        # A broker just started makes clients try again; that is no news.
        yield Stack(state_dir, {**started.kafka, "log_level": "3"}, started.redis_url, guarantee, seed, say)
    finally:
        endpoints.stop(settings, say)
        os.environ.clear()
        os.environ.update(kept)


def set_up(stack: Stack, feature_repo: Path, partitions: int) -> Job:
    """Empty the servers, create a repo's topics, apply it and promote a model for its service.

    Raises
    ------
    Misconfigured, Retry, Stop
        Saying what is missing or wrong.
    """
    clear(stack)
    job = as_it_is(stack, feature_repo, partitions)
    initialise(job.settings, lambda _step: None)
    service = job.assembly.declaration.service
    train_model(stack.seed, tuple(column for column, _ in service.features)).save_model(str(job.model_file))
    promote(job.kafka, service, job.model_file.read_text())
    return job


def as_it_is(stack: Stack, feature_repo: Path, partitions: int) -> Job:
    """Return the job of a repo that was set up before, changing nothing."""
    settings = load_settings(
        {}, state_dir=stack.state_dir, feature_repo=feature_repo, partitions=partitions, guarantee=stack.guarantee
    )
    assembly = assemble(settings)
    return Job(stack, settings, assembly, stack.state_dir / f"{assembly.declaration.service.name}.txt")


def clear(stack: Stack) -> None:
    """Delete every topic, group and Redis key, so that one measurement does not reach into the next.

    Raises
    ------
    Stop
        The broker keeps them.
    """
    admin = AdminClient(dict(stack.kafka))
    delete_topics(admin, [name for name in admin.list_topics(timeout=_CLEAR_S).topics if not name.startswith("__")])
    groups = [group.group_id for group in admin.list_consumer_groups().result(_CLEAR_S).valid]
    until_s = time.monotonic() + _CLEAR_S
    while groups:
        groups = [group for group, future in admin.delete_consumer_groups(groups).items() if not _deleted(future)]
        if groups and time.monotonic() > until_s:
            raise Stop(f"groups {', '.join(groups)} still have members; a worker of the benchmark is left")
        time.sleep(0.2 if groups else 0)
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()


def delete_topics(admin: AdminClient, names: list[str]) -> None:
    """Delete topics and wait until they are gone."""
    if not names:
        return
    for future in admin.delete_topics(names).values():
        future.result(_CLEAR_S)
    until_s = time.monotonic() + _CLEAR_S
    while set(names) & admin.list_topics(timeout=_CLEAR_S).topics.keys():
        if time.monotonic() > until_s:
            raise Stop(f"the broker does not delete {', '.join(names)}")
        time.sleep(0.1)


def _deleted(future: object) -> bool:
    try:
        future.result(_CLEAR_S)  # type: ignore[attr-defined]
    except KafkaException as failure:
        error: KafkaError = failure.args[0]
        if error.code() == KafkaError.NON_EMPTY_GROUP:
            return False
        if error.code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
    return True


def partitions_of(job: Job, topic: str) -> int:
    """Return how many partitions a topic has."""
    return partition_counts(job.kafka, [topic])[topic]
