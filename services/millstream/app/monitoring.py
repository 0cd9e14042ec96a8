"""From settings and feature repo to the stages that watch."""

from __future__ import annotations

from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.app.assembly import Assembly, Resolve, Writer
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.drift.concept_watch import POLICY, ConceptWatch
from millstream.core.drift.incidents import Policy
from millstream.core.drift.watch import Watch
from millstream.core.requirements import required
from millstream.stages.monitor.freshness import Columns, Freshness, ReadTimes
from millstream.stages.monitor.measure import MeasureStage
from millstream.stages.monitor.monitor import MonitorStage
from millstream.stages.monitor.references import References
from millstream.stages.validate.step import Validate
from millstream.topology import ALERTS, DEAD_LETTERS, EXAMPLES, MEASURE, MODELS, SCORED


def references(assembly: Assembly, resolve: Resolve) -> References:
    """Return what reads the references of the service's promoted models."""
    reader = RecordReader(assembly.contracts[MODELS].schema, resolve)
    return References(assembly.declaration.service.name, lambda values: reader.decode(values, BIG_RECORD_BYTES).batch)


def freshness(assembly: Assembly, read: ReadTimes) -> Freshness:
    """Return what asks how fresh online features are; a view of each entity stands for all of it."""
    online = [(stage, next((view for view in stage.views if view.online), None)) for stage in assembly.topology.stages]
    return Freshness(
        read,
        {view.name: Columns(stage.join_key, stage.feature_time_column) for stage, view in online if view is not None},
    )


def measure_stage(
    assembly: Assembly,
    resolve: Resolve,
    fresh: Freshness | None = None,
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    largest_letter_bytes: int = BIG_RECORD_BYTES,
) -> MeasureStage:
    """Build the stage that counts scored events; ``fresh`` where there is an online view."""
    scored, event_time = assembly.topology.stages[-1].output_schema, assembly.contract.event_time
    dead_letters = RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve)
    return MeasureStage(
        {
            SCORED: Validate(RecordReader(scored, resolve), BIG_RECORD_BYTES, required=required(scored, event_time)),
            DEAD_LETTERS: Validate(dead_letters, BIG_RECORD_BYTES),
        },
        references(assembly, resolve),
        event_time,
        [stage.name for stage in assembly.topology.stages],
        fresh,
        assembly.dead_letters(MEASURE, writer, largest_letter_bytes),
    )


def monitor_stage(
    assembly: Assembly,
    resolve: Resolve,
    partitions: int,
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    largest_letter_bytes: int = BIG_RECORD_BYTES,
) -> MonitorStage:
    """Build the stage that alerts.

    Parameters
    ----------
    partitions : int
        Of the scored topic.
    """
    model, known, declared = assembly.declaration.service.name, references(assembly, resolve), assembly.monitors
    policy = Policy()
    return MonitorStage(
        lambda: Watch(model, known, partitions, declared, SCORED, policy),
        lambda: ConceptWatch(model, known, declared.limits, EXAMPLES, POLICY),
        assembly.validate_examples(resolve),
        known,
        writer(ALERTS, assembly.contracts[ALERTS].schema),
        assembly.contract.event_time,
        writer(DEAD_LETTERS, assembly.contracts[DEAD_LETTERS].schema),
        largest_letter_bytes,
    )
