"""Every stage that a worker can run, by name: what it is made of, and what happens beside its micro-batches."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.origins import Origins
from millstream.adapters.kafka.schema_topic import SchemaResolver
from millstream.adapters.redis.feature_times import FeatureTimes
from millstream.adapters.telemetry.metrics import Telemetry
from millstream.app.agents import agent_stage
from millstream.app.assembly import Assembly, Writer
from millstream.app.label_stages import join_stage, learn_stage, quality_stage
from millstream.app.monitoring import freshness, measure_stage, monitor_stage
from millstream.app.serving import serve_models
from millstream.core.contracts import Contract
from millstream.ports import LedgerStore
from millstream.runtime.clock_bound import ClockBound
from millstream.runtime.log.records import Output
from millstream.runtime.work import Work
from millstream.settings import Settings
from millstream.stages.monitor.freshness import Freshness
from millstream.stages.quality.metrics import QualityMetrics
from millstream.stages.score.step import Carried, Score
from millstream.topology import JOIN, LEARN, MEASURE, MONITOR, QUALITY, SCORED, AgentPlan, StagePlan


@dataclass(frozen=True)
class Surroundings:
    """What a worker gives its stages.

    Parameters
    ----------
    assembly : Assembly
    endpoints : Endpoints
    resolver : SchemaResolver
    writer : callable
        Gives the encoder of a topic's records.
    dead_letter_bytes : int
        Largest record that the dead-letter topic takes.
    partitions : int
        Of the topics that share the operator's number.
    layout : mapping of str to int
        Number of partitions by topic.
    origins : Origins
    telemetry : Telemetry
    stack : ExitStack
        Closes what a stage has opened.
    """

    assembly: Assembly
    endpoints: Endpoints
    resolver: SchemaResolver
    writer: Writer
    dead_letter_bytes: int
    partitions: int
    layout: Mapping[str, int]
    origins: Origins
    telemetry: Telemetry
    stack: contextlib.ExitStack


@dataclass(frozen=True, slots=True)
class Running:
    """A stage ready to run.

    Parameters
    ----------
    work : Work
    before_batch : callable
        Called before each micro-batch.
    when_idle : callable
        From the wall clock to what is written although no record came.
    """

    work: Work
    before_batch: Callable[[], None] = lambda: None
    when_idle: Callable[[int], Sequence[Output]] = lambda _now_ms: ()


Build = Callable[[Surroundings], Running]


def stage_builders(assembly: Assembly) -> dict[str, Build]:
    """Return what builds each stage of a project, in path order."""
    topology = assembly.topology
    found: dict[str, Build] = {plan.name: functools.partial(_path_stage, plan) for plan in topology.stages}
    if topology.joins:
        found |= {JOIN: _join, LEARN: _learn, QUALITY: _quality, MEASURE: _measure, MONITOR: _monitor}
    return found | {plan.name: functools.partial(_agent, plan) for plan in topology.agents}


def usual_stages(assembly: Assembly) -> list[str]:
    """Return the stages that run where none are named, in path order."""
    return [name for name in stage_builders(assembly) if name != LEARN or assembly.declares_online_model]


def _path_stage(plan: StagePlan, given: Surroundings) -> Running:
    assembly = given.assembly
    carried = _carried(given) if plan.last else None
    bound = clock_bound(assembly.settings, assembly.contract, plan)
    stage = assembly.stage(
        plan, given.resolver, carried, given.writer, given.dead_letter_bytes, given.partitions, bound
    )
    stage.warm_up(assembly.samples(plan))
    if not isinstance(stage.score, Score):
        return Running(stage)
    return Running(stage, serve_models(assembly, given.endpoints, stage.score, given.telemetry, given.stack))


def _join(given: Surroundings) -> Running:
    ledgers = _ledgers(given.assembly.settings, given.origins)
    stage = join_stage(given.assembly, given.resolver, ledgers, given.writer, given.dead_letter_bytes, given.partitions)
    return Running(stage)


def _learn(given: Surroundings) -> Running:
    return Running(learn_stage(given.assembly, given.resolver, given.writer, given.dead_letter_bytes))


def _quality(given: Surroundings) -> Running:
    metrics = QualityMetrics(given.telemetry)
    return Running(quality_stage(given.assembly, given.resolver, metrics, given.writer, given.dead_letter_bytes))


def _measure(given: Surroundings) -> Running:
    stage = measure_stage(given.assembly, given.resolver, _freshness(given), given.writer, given.dead_letter_bytes)
    return Running(stage, when_idle=stage.idle)


def _monitor(given: Surroundings) -> Running:
    partitions = given.layout[SCORED]
    return Running(monitor_stage(given.assembly, given.resolver, partitions, given.writer, given.dead_letter_bytes))


def _agent(plan: AgentPlan, given: Surroundings) -> Running:
    running = asyncio.get_running_loop()  # the worker's, on which Faust runs the app

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, running).result()

    stage = agent_stage(given.assembly, plan, given.resolver, given.writer, given.dead_letter_bytes, run=run)
    return Running(stage, when_idle=stage.idle)


def _ledgers(settings: Settings, origins: Origins) -> Callable[[int], LedgerStore]:
    """Return what opens the label ledger of a partition; all of a worker share one bound of memory."""
    from millstream.adapters.files.ledger_store import LedgerMemory, RocksLedgerStore

    memory, layout = LedgerMemory(settings.ledger_memory_mb << 20), origins.layout(SCORED)
    return lambda partition: RocksLedgerStore(settings.state_dir / "ledger" / str(partition), memory, layout)


def _freshness(given: Surroundings) -> Freshness | None:
    declaration = given.assembly.declaration
    if not any(view.online for view in declaration.views):
        return None
    times = FeatureTimes(given.endpoints.redis_url, declaration.project, declaration.views)
    given.stack.callback(times.close)
    return freshness(given.assembly, times)


def _carried(given: Surroundings) -> Carried | None:
    if not given.assembly.declaration.batch:
        return None
    from millstream.adapters.feast.batch_views import BatchViewReader

    reader = BatchViewReader(given.assembly.declaration, given.endpoints.redis_url)
    given.stack.callback(reader.close)
    return reader


def clock_bound(settings: Settings, contract: Contract, plan: StagePlan) -> ClockBound | None:
    """Return the bound of event time against the worker's clock; later stages read what it let through.

    It never refuses what the contract allows of a record that is stamped with the present time.
    """
    if not plan.first:
        return None
    allowed = [each.not_after_ms or 0 for each in contract.constraints if each.field == contract.event_time]
    return ClockBound(contract.event_time, max(settings.event_ahead_max_ms, *allowed))
