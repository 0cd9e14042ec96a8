"""Compose a worker: stages with their logs, the online view, promoted models, metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from millstream.adapters.embedded.endpoints import Endpoints, resolve
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.guarantees import may_repeat
from millstream.adapters.kafka.schema_registry import connect, registry_prefix
from millstream.adapters.kafka.schema_topic import SchemaResolver, publish_schemas, read_schemas
from millstream.adapters.kafka.topic_registry import claim
from millstream.adapters.kafka.topics import largest_record_bytes, partition_counts, require_topics
from millstream.adapters.redis.view_writer import ViewWriter, open_view_writer
from millstream.adapters.telemetry import metrics as telemetry_adapter
from millstream.app.assembly import Assembly, assemble
from millstream.app.stage_registry import Running, Surroundings, stage_builders, usual_stages
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.errors import Misconfigured
from millstream.runtime.agents.app import App
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.telemetry_observer import TelemetryObserver
from millstream.runtime.worker_slot import WorkerSlot
from millstream.settings import Settings
from millstream.topology import DEAD_LETTERS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process runs.

    Parameters
    ----------
    loops : list of StageLoop
    name : str
    app : App or None
        Of the project's ``agents.py``, where one of its agents runs here.
    """

    loops: list[StageLoop]
    name: str
    app: App | None


def build_worker(settings: Settings, names: Sequence[str], stack: contextlib.ExitStack) -> Worker:
    """Return a worker of the named stages, or of all where none is named.

    Whatever must be closed is entered into ``stack``.

    Raises
    ------
    Misconfigured, Retry
        Saying what is missing, before anything is consumed.
    """
    resolve(settings, redis=False)  # rather fail now than after the repo was compiled
    # Before anything imports Feast, which would turn the metrics library to its multi-process mode.
    telemetry = telemetry_adapter.Telemetry()
    assembly = assemble(settings)
    endpoints = resolve(settings, assembly.declaration.needs_online_store)
    builders, wanted = stage_builders(assembly), list(names) or usual_stages(assembly)
    for name in wanted:
        if name not in builders:
            raise Misconfigured(f"there is no stage {name!r}; there are: {', '.join(builders)}")
    # Before it is checked, so that one that grows meanwhile is refused there or noticed when it is read.
    layout = partition_counts(endpoints.kafka, [topic.name for topic in assembly.topology.topics])
    partitions = require_topics(endpoints.kafka, assembly.topology.topics)
    origins = claim(endpoints.kafka, assembly.topology, settings.replication)
    repeats = may_repeat(endpoints.kafka, assembly.topology, settings.guarantee == "exactly_once")
    letter_bytes = largest_record_bytes(endpoints.kafka, DEAD_LETTERS)
    publish_schemas(endpoints.kafka, assembly.schemas)
    slot = WorkerSlot(settings.state_dir / "workers", settings.worker_id)
    stack.callback(slot.release)
    registry = connect(settings)
    resolver = SchemaResolver(assembly.schemas, lambda: read_schemas(endpoints.kafka), registry)

    def writer(topic: str, schema: Schema) -> RecordWriter:
        name = named(endpoints.kafka, topic)
        return RecordWriter(schema, registry_prefix(registry.register(name, schema)) if registry else None)

    fed = [plan.name for plan in assembly.topology.stages if plan.name in wanted]
    online = fed and any(view.online for view in assembly.declaration.views)
    view = _view(assembly, endpoints, fed, stack) if online else None
    observer = TelemetryObserver(telemetry, view, settings.watchdog_ms // 2)

    def loop(running: Running) -> StageLoop:
        work = running.work
        log = KafkaLog(
            endpoints.kafka,
            group=assembly.topology.group(work.name),
            transactional_id=f"{assembly.topology.project}.{work.name}.{slot.name}",
            exactly_once=settings.guarantee == "exactly_once",
            transaction_timeout_ms=settings.transaction_timeout_ms,
            partitions=layout,
            origins=origins,
            repeats=repeats,
        )
        limits = LoopLimits(settings.batch_records, settings.checkpoint_interval_ms)
        letters = DeadLetterLimit(settings.dead_letter_share, settings.dead_letter_window)
        return StageLoop(work, log, limits, letters, view, observer, running.before_batch, running.when_idle)

    given = Surroundings(
        assembly, endpoints, resolver, writer, letter_bytes, partitions, layout, origins, telemetry, stack
    )
    loops = [loop(builders[name](given)) for name in wanted]
    observer.watch(loops)
    stack.enter_context(
        telemetry_adapter.serve(
            telemetry, settings, slot.name, [each.name for each in loops], observer.ready, observer.health
        )
    )
    acts = any(plan.name in wanted for plan in assembly.topology.agents)
    return Worker(loops, slot.name, assembly.agents if acts else None)


def _view(assembly: Assembly, endpoints: Endpoints, stages: list[str], stack: contextlib.ExitStack) -> ViewWriter:
    writer = open_view_writer(assembly.settings, assembly.declaration, endpoints.redis_url, stages)
    stack.callback(writer.close)
    return writer
