"""The two stages that watch, on a log in memory."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from cards import CONTRACTS, topology, view
from fakes_models import a_manifest
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.drift.concept_watch import POLICY, ConceptWatch
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.watch import Watch
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog, Partition
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.stages.join.contract import examples_schema
from millstream.stages.monitor.measure import MeasureStage
from millstream.stages.monitor.monitor import MonitorStage
from millstream.stages.monitor.references import References
from millstream.stages.validate.step import Validate
from millstream.topology import ALERTS, DEAD_LETTERS, EXAMPLES, MEASURES, MODELS, MONITOR_CHANGELOG, SCORED
from watched import HOUR_MS, reference

MODEL = "fraud"
MONITORS = Monitors(windows_ms=(6 * HOUR_MS, 24 * HOUR_MS))
PLAN = topology(view("customer_activity", "customer"), view("terminal_activity", "terminal")).stages[-1]
NAMES = ("customer_activity__mean_1d", "terminal_activity__mean_1d", "terminal_activity__mean_7d")
SCHEMA = PLAN.output_schema
EXAMPLE_SCHEMA = examples_schema(SCHEMA, CONTRACTS["examples"])
PARTITIONS = 2


def unknown(_: object) -> None:
    return None


@functools.cache
def _models() -> tuple[bytes, ...]:
    """Return two promoted versions as the topic keeps them."""
    manifests = [a_manifest(model=MODEL, reference=reference(NAMES, MONITORS, seed=seed)).to_json() for seed in (0, 5)]
    columns = {
        "name": np.array([MODEL] * 2, dtype=object),
        "version": np.array([1, 2]),
        "manifest": np.array(manifests, dtype=object),
        "body": np.array([""] * 2, dtype=object),
        "sha256": np.array(["0" * 64] * 2, dtype=object),
        "promoted_at_ms": np.array([1, 2]),
    }
    return tuple(RecordWriter(CONTRACTS[MODELS].schema).encode(Batch(2, columns)))


def _broker() -> MemoryBroker:
    broker = MemoryBroker(PARTITIONS)
    for name in (MEASURES, EXAMPLES, ALERTS, MODELS, MONITOR_CHANGELOG):
        broker.topics[name] = [Partition()]
    broker.append(models())
    return broker


def models() -> Output:
    """Return both promotions as they were published."""
    return Output(MODELS, [b"fraud@1", b"fraud@2"], list(_models()))


def filled(history: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> MemoryBroker:
    broker = _broker()
    events, known = history
    broker.append(Output(SCORED, [b"%d" % i for i in range(len(events))], list(events)))
    broker.append(Output(EXAMPLES, [b"k"] * len(known), list(known), 0))
    return broker


def measure() -> MeasureStage:
    readers = {SCORED: SCHEMA, DEAD_LETTERS: CONTRACTS[DEAD_LETTERS].schema}
    validate = {topic: Validate(RecordReader(each, unknown), 1 << 20) for topic, each in readers.items()}
    return MeasureStage(validate, _references(), "event_time_ms", ["customer", "terminal"])


def _references() -> References:
    reader = RecordReader(CONTRACTS[MODELS].schema, unknown)
    return References(MODEL, lambda values: reader.decode(values, 1 << 24).batch)


def monitor(limits: Limits) -> MonitorStage:
    return monitor_of(limits, PARTITIONS)


def monitor_of(limits: Limits, partitions: int) -> MonitorStage:
    """Return a monitor of so many partitions of scored events."""
    found = _references()
    return MonitorStage(
        lambda: Watch(MODEL, found, partitions, replace(MONITORS, limits=limits), SCORED, Policy()),
        lambda: ConceptWatch(MODEL, found, limits, EXAMPLES, POLICY),
        Validate(RecordReader(EXAMPLE_SCHEMA, unknown), 1 << 20),
        found,
        RecordWriter(CONTRACTS[ALERTS].schema),
        "event_time_ms",
        RecordWriter(CONTRACTS[DEAD_LETTERS].schema),
        1 << 20,
    )


def unlimited() -> MonitorStage:
    """Return a monitor with the limits that stand where none is declared."""
    return monitor(Limits())


def loop_of(broker: MemoryBroker, work: Work, batch_records: int) -> StageLoop:
    limits = LoopLimits(batch_records, 1 << 60)
    made = StageLoop(work, MemoryLog(broker, work.name), limits, DeadLetterLimit(1.0, 10), None, Unobserved())
    made.start()
    return made


def alerts_of(broker: MemoryBroker) -> list[dict[str, object]]:
    (records,) = [broker.records(ALERTS, 0, 0, 1 << 30)]
    batch = RecordReader(CONTRACTS[ALERTS].schema, unknown).decode(records.values, 1 << 20).batch
    columns = {
        name: [
            None if null else value for value, null in zip(column.tolist(), batch.is_null(name).tolist(), strict=True)
        ]
        for name, column in batch.columns.items()
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(batch.length)]
