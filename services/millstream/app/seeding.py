"""The live windows of a cluster that has consumed nothing yet, filled from replayed history."""

from __future__ import annotations

from typing import Any

from confluent_kafka.admin import AdminClient

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.groups import committed_offsets, require_stopped
from millstream.adapters.kafka.topic_registry import claim
from millstream.adapters.kafka.topics import require_topics
from millstream.app.assembly import Assembly
from millstream.app.replaying import History
from millstream.core.text import few
from millstream.errors import Misconfigured
from millstream.runtime.bootstrap import seed
from millstream.runtime.log.kafka_log import KafkaLog


def require_unconsumed(assembly: Assembly, endpoints: Endpoints) -> None:
    """Refuse to go on where live windows hold anything that seeding would replace.

    Raises
    ------
    Misconfigured
        A stage runs or has consumed events, or the applied feature repo declares other windows.
    Retry, Stop
        The broker does not say.
    """
    require_topics(endpoints.kafka, assembly.topology.topics)
    admin = AdminClient(dict(endpoints.kafka))
    groups = {plan.name: assembly.topology.group(plan.name) for plan in assembly.topology.stages}
    require_stopped(admin, groups.values())
    for name, group in groups.items():
        consumed = {place: at for place, at in committed_offsets(admin, group).items() if at > 0}
        if consumed:
            (topic, partition), offset = next(iter(sorted(consumed.items())))
            raise Misconfigured(
                f"stage {name} has consumed {topic}[{partition}] up to offset {offset}, and seeding would replace its "
                "windows. Seed before the first event is consumed; afterwards publish the history with "
                "`millstream ingest`, or start over with new topics"
            )
    _require_applied(assembly)


def _require_applied(assembly: Assembly) -> None:
    """Refuse where the registry holds other windows than the feature repo: stages and readers would not agree."""
    from millstream.adapters.feast.repo import objects_of, open_store, quiet_feast

    with quiet_feast():
        from feast.stream_feature_view import StreamFeatureView

        store: Any = open_store(assembly.settings)
        applied = {each.name: _windows(each) for each in store.list_stream_feature_views()}
        objects = objects_of(assembly.settings)
        declared = {each.name: _windows(each) for each in objects if isinstance(each, StreamFeatureView)}
    if applied and applied != declared:
        differing = sorted(name for name in applied | declared if applied.get(name) != declared.get(name))
        raise Misconfigured(
            f"the feature repo declares {few(differing)} otherwise than it was applied, so the windows would be those "
            "of another declaration: run `millstream features apply`, or put the declaration back"
        )


def _windows(view: Any) -> list[str]:
    """Return what a Feast view aggregates, and how late events may be, as texts that compare."""
    lateness = view.stream_source.kafka_options.watermark_delay_threshold
    of = [f"{each.column} {each.function} {each.time_window} {each.name}" for each in view.aggregations]
    return [*sorted(of), f"{view.entities} {view.timestamp_field} {lateness}"]


def seed_state(assembly: Assembly, endpoints: Endpoints, history: History) -> int:
    """Write the replayed windows to the changelogs; return the number of rows.

    What an earlier seeding wrote is replaced. Labels that are still to become known go along, as nobody will publish
    them again. The stages read their inputs from the beginning.

    Raises
    ------
    Misconfigured, Retry, Stop
        As `require_unconsumed`; or a changelog cannot be written.
    """
    require_unconsumed(assembly, endpoints)
    topology, settings = assembly.topology, assembly.settings
    partitions = require_topics(endpoints.kafka, topology.topics)
    origins = claim(endpoints.kafka, topology, settings.replication)
    written = 0
    history.tell_all()
    for stage in history.replay.stages:
        plan = stage.plan
        name = f"{topology.group(plan.name)}.seed"
        log = KafkaLog(
            endpoints.kafka,
            group=name,
            transactional_id=name,
            exactly_once=True,
            transaction_timeout_ms=60_000,
            origins=origins,
        )
        try:
            ends = {
                partition: {topic: log.beginning(topic, partition) for topic in plan.inputs}
                for partition in range(partitions)
            }
            written += seed(log, stage, partitions, ends)
        finally:
            log.close()
    return written
