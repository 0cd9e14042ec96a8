"""What must be there before stages run: topics, published schemas, the applied Feast repo."""

from __future__ import annotations

from collections.abc import Callable

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.feast import repo as feature_repo
from millstream.adapters.feast.compiled_repo import forget
from millstream.adapters.kafka.earlier_names import refuse_earlier_names
from millstream.adapters.kafka.retention import alter_retention, needed_ms, retention_ms, short_topics
from millstream.adapters.kafka.schema_topic import publish_schemas
from millstream.adapters.kafka.topic_registry import claim, refuse_conflicts
from millstream.adapters.kafka.topics import create_topics
from millstream.app.assembly import Assembly
from millstream.app.champion import champion_fit
from millstream.app.runnable import assemble_runnable
from millstream.settings import Settings


def initialise(settings: Settings, say: Callable[[str], None], alter: bool = False) -> Assembly:
    """Create topics, publish schemas, apply the Feast repo; all of it safe to repeat.

    Parameters
    ----------
    alter : bool
        Set the retention of topics that are there as well.

    Raises
    ------
    Misconfigured, Retry
        Saying what is missing or wrong.
    """
    forget(settings)
    assembly = assemble_runnable(settings)
    endpoints = resolve(settings, assembly.declaration.needs_online_store)
    refuse_earlier_names(endpoints.kafka, assembly.topology)
    refuse_conflicts(endpoints.kafka, assembly.topology)  # before any topic is created
    needed = needed_ms(assembly.topology, settings.label_horizon_days)
    kept_ms = retention_ms(settings.retention_days, needed)
    topics = create_topics(
        endpoints.kafka, assembly.topology.topics, settings.partitions, settings.replication, kept_ms
    )
    say(f"topics: {len(topics.created)} created, {len(topics.present)} were there")
    if alter:
        altered = alter_retention(endpoints.kafka, assembly.topology.topics, kept_ms)
        span = "for ever" if settings.retention_days is None else f"{settings.retention_days} days"
        say(f"retention of {len(altered)} topics: {span}")
    for short in short_topics(endpoints.kafka, needed):
        say(f"warning: {short}")
    claim(endpoints.kafka, assembly.topology, settings.replication)
    publish_schemas(endpoints.kafka, assembly.schemas)
    feature_repo.apply(settings)
    say(f"Feast project {assembly.declaration.project}: {len(assembly.declaration.views)} stream views applied")
    fit = champion_fit(endpoints.kafka, assembly.declaration)
    say(f"{fit.refused}; until then {fit.found}" if fit.refused else fit.found)
    return assembly
