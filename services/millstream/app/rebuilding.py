"""The online view made anew from what the stages committed, whether they run or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.kafka.schema_topic import SchemaResolver, schema_resolver
from millstream.adapters.kafka.topic_registry import claim
from millstream.adapters.kafka.topics import require_topics
from millstream.adapters.redis.view_writer import open_online_view
from millstream.app.assembly import Assembly
from millstream.ports import OnlineView
from millstream.runtime.log.kafka_reader import KafkaReader
from millstream.runtime.log.protocol import LogReader
from millstream.runtime.recovery import recover
from millstream.topology import StagePlan

_ROWS_PER_WRITE = 4096


def rebuild_view(assembly: Assembly, on_progress: Callable[[str, int, int], None]) -> int:
    """Recover every stage's state up to its committed offsets and write all its rows; return how many were newer.

    Safe beside running workers: whatever they wrote meanwhile is newer and stays.

    Parameters
    ----------
    on_progress : callable (words, done, total)
        Told after each partition of each stage.

    Raises
    ------
    Misconfigured, Retry
        Saying what is missing or cannot be reached.
    """
    settings = assembly.settings
    if not any(view.online for view in assembly.declaration.views):
        return 0
    endpoints = resolve(settings)
    partitions = require_topics(endpoints.kafka, assembly.topology.topics)
    origins = claim(endpoints.kafka, assembly.topology, settings.replication)
    view = open_online_view(settings, assembly.declaration, endpoints.redis_url)
    resolver = schema_resolver(assembly.settings, endpoints.kafka, assembly.schemas)
    stages = assembly.topology.stages
    applied = done = 0
    try:
        for plan in stages:
            reader = KafkaReader(endpoints.kafka, assembly.topology.group(plan.name), origins)
            try:
                found = {topic: reader.committed(topic, range(partitions)) for topic in plan.inputs}
                for partition in range(partitions):
                    committed = {topic: offsets[partition] for topic, offsets in found.items()}
                    # A group that never committed has no state, although events may wait for it.
                    if committed[plan.input] is not None:
                        applied += rebuild_partition(
                            assembly, plan, resolver, reader, partition, committed, view, partitions
                        )
                    done += 1
                    on_progress(f"{plan.name}[{partition}]", done, partitions * len(stages))
            finally:
                reader.close()
    finally:
        view.close()
    return applied


def rebuild_partition(
    assembly: Assembly,
    plan: StagePlan,
    resolver: SchemaResolver,
    reader: LogReader,
    partition: int,
    committed: Mapping[str, int | None],
    view: OnlineView,
    partitions: int = 0,
) -> int:
    """Recover one partition of one stage and write its rows; return how many were newer than what was stored."""
    stage = assembly.stage(plan, resolver, partitions=partitions)
    recover(stage, reader, partition, committed, lambda _words: None)
    return sum(
        view.write([rows.take(slice(first, first + _ROWS_PER_WRITE))])
        for rows in stage.online(partition)
        for first in range(0, len(rows.feature_time_us), _ROWS_PER_WRITE)
    )
