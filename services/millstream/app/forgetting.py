"""Window state without the events that lie after a time: what puts it right after events of a clock that was ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.kafka.client import client_logger
from millstream.adapters.kafka.groups import require_stopped
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.adapters.kafka.topic_registry import claim
from millstream.adapters.kafka.topics import require_topics
from millstream.adapters.redis.view_writer import open_online_view
from millstream.app.assembly import Assembly
from millstream.core.batch import Array
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.kafka_reader import KafkaReader
from millstream.runtime.recovery import checkpoint, recover
from millstream.topology import StagePlan

Delete = Callable[[str, Array], None]


@dataclass(frozen=True, slots=True)
class RemovedEvents:
    """What was taken out of one stage.

    Parameters
    ----------
    stage : str
    keys : tuple of str
        Whose events they were.
    events : int
    """

    stage: str
    keys: tuple[str, ...]
    events: int


def forget_after(assembly: Assembly, after_ms: int, dry_run: bool) -> list[RemovedEvents]:
    """Take the events after a time out of the window state of every stage, and their rows out of the online store.

    Raises
    ------
    Misconfigured
        A stage still runs, or topics are missing.
    Retry, Stop
        A server cannot be reached, or did not take the change; running again does what is left.
    """
    settings, topology = assembly.settings, assembly.topology
    endpoints = resolve(settings)
    partitions = require_topics(endpoints.kafka, topology.topics)
    admin = AdminClient({**endpoints.kafka, "logger": client_logger})  # type: ignore[dict-item]
    require_stopped(admin, [topology.group(plan.name) for plan in topology.stages])
    online = any(view.online for view in assembly.declaration.views)
    view = open_online_view(settings, assembly.declaration, endpoints.redis_url) if online else None
    try:
        delete: Delete = view.delete if view is not None else lambda _view, _keys: None
        return [_forget(assembly, plan, partitions, after_ms, dry_run, delete) for plan in topology.stages]
    finally:
        if view is not None:
            view.close()


def _forget(
    assembly: Assembly, plan: StagePlan, partitions: int, after_ms: int, dry_run: bool, delete: Delete
) -> RemovedEvents:
    kafka, settings = resolve(assembly.settings).kafka, assembly.settings
    group = assembly.topology.group(plan.name)
    origins = claim(kafka, assembly.topology, settings.replication)
    resolver = schema_resolver(settings, kafka, assembly.schemas)
    log = KafkaLog(
        kafka,
        group=group,
        transactional_id=f"{group}.forget",
        exactly_once=True,
        transaction_timeout_ms=settings.transaction_timeout_ms,
        origins=origins,
    )
    reader = KafkaReader(kafka, group, origins)
    names: list[str] = []
    events = 0
    try:
        found = {topic: reader.committed(topic, range(partitions)) for topic in plan.inputs}
        for partition in range(partitions):
            committed = {topic: offsets[partition] for topic, offsets in found.items()}
            if committed[plan.input] is None:
                continue
            stage = assembly.stage(plan, resolver, partitions=partitions)
            restored = recover(stage, reader, partition, committed, lambda _words: None)
            store = stage.featurize.stores[partition]
            before = store.entries
            keys = store.forget_after(after_ms)
            events += before - store.entries
            names += [str(key) for key in keys.tolist()]
            if not len(keys) or dry_run:
                continue
            # Online rows first: after a crash in between, the command finds the events again.
            for each in (*plan.views, *(plan.labels.views if plan.labels is not None else ())):
                if each.online:
                    delete(each.name, keys)
            log.send([checkpoint(stage, partition, restored.next_offsets, restored.stale)])
            log.commit({})
    finally:
        reader.close()
        log.close()
    return RemovedEvents(plan.name, tuple(sorted(names)), events)


def described(done: Sequence[RemovedEvents]) -> list[dict[str, str]]:
    """Return what was taken out as rows of a table."""
    return [
        {"stage": each.stage, "events": f"{each.events}", "keys": f"{len(each.keys)}", "e.g.": ", ".join(each.keys[:5])}
        for each in done
    ]
