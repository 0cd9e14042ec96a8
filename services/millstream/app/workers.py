"""Compose a worker: stages with their logs, the online view, promoted models, metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

from millstream.adapters.embedded.endpoints import Endpoints, resolve
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.guarantees import may_repeat
from millstream.adapters.kafka.origins import Origins
from millstream.adapters.kafka.schema_registry import connect, registry_prefix
from millstream.adapters.kafka.schema_topic import SchemaResolver, publish_schemas, read_schemas
from millstream.adapters.kafka.topic_registry import claim
from millstream.adapters.kafka.topics import largest_record_bytes, partition_counts, require_topics
from millstream.adapters.redis.feature_times import FeatureTimes
from millstream.adapters.redis.view_writer import ViewWriter, open_view_writer
from millstream.adapters.telemetry import metrics as telemetry_adapter
from millstream.app.assembly import Assembly, assemble
from millstream.app.monitoring import freshness, measure_stage, monitor_stage
from millstream.app.serving import serve_models
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.contracts import Contract
from millstream.ports import LedgerStore
from millstream.runtime.clock_bound import ClockBound
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.telemetry_observer import TelemetryObserver
from millstream.runtime.work import Work
from millstream.runtime.worker_slot import WorkerSlot
from millstream.settings import Settings
from millstream.stages.monitor.freshness import Freshness
from millstream.stages.quality.metrics import QualityMetrics
from millstream.stages.score.step import Carried, Score
from millstream.topology import DEAD_LETTERS, JOIN, LEARN, LOOP, MEASURE, MONITOR, QUALITY, SCORED, StagePlan

logger = logging.getLogger(__name__)


def build_worker(settings: Settings, names: Sequence[str], stack: contextlib.ExitStack) -> tuple[list[StageLoop], str]:
    """Return the loops of the named stages (all when none is named) and the worker's name.

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
    wanted = list(names) or usual_stages(assembly)
    plans = [assembly.topology.stage(name) for name in wanted if name not in LOOP]
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

    online = plans and any(view.online for view in assembly.declaration.views)
    view = _view(assembly, endpoints, plans, stack) if online else None
    observer = TelemetryObserver(telemetry, view, settings.watchdog_ms // 2)

    def loop(
        work: Work,
        before_batch: Callable[[], None] = lambda: None,
        when_idle: Callable[[int], Sequence[Output]] = lambda _now_ms: (),
    ) -> StageLoop:
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
        return StageLoop(work, log, limits, letters, view, observer, before_batch, when_idle)

    loops = []
    for plan in plans:
        carried = _carried(assembly, endpoints, stack) if plan.last else None
        stage = assembly.stage(
            plan, resolver, carried, writer, letter_bytes, partitions, clock_bound(settings, assembly.contract, plan)
        )
        stage.warm_up(assembly.samples(plan))
        if isinstance(stage.score, Score):
            loops.append(loop(stage, serve_models(assembly, endpoints, stage.score, telemetry, stack)))
        else:
            loops.append(loop(stage))
    if JOIN in wanted:
        loops.append(loop(assembly.join_stage(resolver, _ledgers(settings, origins), writer, letter_bytes, partitions)))
    if LEARN in wanted:
        loops.append(loop(assembly.learn_stage(resolver, writer, letter_bytes)))
    if QUALITY in wanted:
        loops.append(loop(assembly.quality_stage(resolver, QualityMetrics(telemetry), writer, letter_bytes)))
    if MEASURE in wanted:
        fresh = _freshness(assembly, endpoints, stack)
        measure = measure_stage(assembly, resolver, fresh, writer, letter_bytes)
        loops.append(loop(measure, when_idle=measure.idle))
    if MONITOR in wanted:
        loops.append(loop(monitor_stage(assembly, resolver, layout[SCORED], writer, letter_bytes)))
    observer.watch(loops)
    stack.enter_context(
        telemetry_adapter.serve(
            telemetry, settings, slot.name, [each.name for each in loops], observer.ready, observer.health
        )
    )
    return loops, slot.name


def usual_stages(assembly: Assembly) -> list[str]:
    """Return the stages that run where none are named, in path order."""
    return [name for name in assembly.topology.names if name != LEARN or assembly.declares_online_model]


def _ledgers(settings: Settings, origins: Origins) -> Callable[[int], LedgerStore]:
    """Return what opens the label ledger of a partition; all of a worker share one bound of memory."""
    from millstream.adapters.files.ledger_store import LedgerMemory, RocksLedgerStore

    memory, layout = LedgerMemory(settings.ledger_memory_mb << 20), origins.layout(SCORED)
    return lambda partition: RocksLedgerStore(settings.state_dir / "ledger" / str(partition), memory, layout)


def _view(
    assembly: Assembly, endpoints: Endpoints, plans: Sequence[StagePlan], stack: contextlib.ExitStack
) -> ViewWriter:
    writer = open_view_writer(
        assembly.settings, assembly.declaration, endpoints.redis_url, [plan.name for plan in plans]
    )
    stack.callback(writer.close)
    return writer


def _freshness(assembly: Assembly, endpoints: Endpoints, stack: contextlib.ExitStack) -> Freshness | None:
    if not any(view.online for view in assembly.declaration.views):
        return None
    times = FeatureTimes(endpoints.redis_url, assembly.declaration.project, assembly.declaration.views)
    stack.callback(times.close)
    return freshness(assembly, times)


def _carried(assembly: Assembly, endpoints: Endpoints, stack: contextlib.ExitStack) -> Carried | None:
    if not assembly.declaration.batch:
        return None
    from millstream.adapters.feast.batch_views import BatchViewReader

    reader = BatchViewReader(assembly.declaration, endpoints.redis_url)
    stack.callback(reader.close)
    return reader


def clock_bound(settings: Settings, contract: Contract, plan: StagePlan) -> ClockBound | None:
    """Return the bound of event time against the worker's clock; later stages read what it let through.

    It never refuses what the contract allows of a record that is stamped with the present time.
    """
    if not plan.first:
        return None
    allowed = [each.not_after_ms or 0 for each in contract.constraints if each.field == contract.event_time]
    return ClockBound(contract.event_time, max(settings.event_ahead_max_ms, *allowed))
