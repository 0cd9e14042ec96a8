"""From an assembly to the stages that work on labels: join, learn and quality."""

from __future__ import annotations

from collections.abc import Callable

from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.app.assembly import Assembly, Resolve, Writer
from millstream.app.label_policy import label_policy
from millstream.app.measuring import counted, declared
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.requirements import required
from millstream.ports import LedgerStore
from millstream.stages.join.examples import RekeyedTopic
from millstream.stages.join.stage import JoinStage
from millstream.stages.join.step import Join
from millstream.stages.learn.stage import LearnStage
from millstream.stages.quality.stage import QualityStage, ReportMetrics
from millstream.stages.validate.step import Validate
from millstream.topology import DEAD_LETTERS, EXAMPLES, LABELS, LEARN, QUALITY, SCORED


def join_stage(
    assembly: Assembly,
    resolve: Resolve,
    open_store: Callable[[int], LedgerStore],
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    largest_letter_bytes: int = BIG_RECORD_BYTES,
    partitions: int = 0,
) -> JoinStage:
    """Build the stage where labels meet predictions.

    Raises
    ------
    Misconfigured
        A label source is given precedence twice.
    """
    settings, scored = assembly.settings, assembly.topology.stages[-1].output_schema
    policy = label_policy(settings)
    labels, reader = assembly.contracts[LABELS], RecordReader(scored, resolve)
    examples = writer(EXAMPLES, assembly.examples_schema)
    rekeyed = [
        RekeyedTopic(stage.labels.input, stage.labels.key_column, writer(stage.labels.input, stage.labels.schema))
        for stage in assembly.topology.stages
        if stage.labels is not None
    ]
    event_id, event_time = assembly.contract.event_id, assembly.contract.event_time
    counts = counted(assembly.measured)
    return JoinStage(
        {
            SCORED: Validate(reader, BIG_RECORD_BYTES, required=required(scored, event_time)),
            LABELS: Validate(
                RecordReader(labels.schema, resolve), settings.max_record_bytes, labels, partitions=partitions
            ),
        },
        open_store,
        lambda store: Join(store, policy, reader, examples, event_id, event_time, rekeyed, counts),
        writer(DEAD_LETTERS, assembly.contracts[DEAD_LETTERS].schema),
        largest_letter_bytes,
    )


def learn_stage(
    assembly: Assembly,
    resolve: Resolve,
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    largest_letter_bytes: int = BIG_RECORD_BYTES,
) -> LearnStage:
    """Build the stage that learns from examples.

    Raises
    ------
    Misconfigured
        The online model's declaration is wrong.
    """
    return LearnStage(
        assembly.online_model(),
        assembly.validate_examples(resolve),
        assembly.snapshot_key(),
        assembly.dead_letters(LEARN, writer, largest_letter_bytes),
    )


def quality_stage(
    assembly: Assembly,
    resolve: Resolve,
    report: ReportMetrics = lambda reported, ledger_reports, as_of_ms: None,
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    largest_letter_bytes: int = BIG_RECORD_BYTES,
) -> QualityStage:
    """Build the stage that publishes how good the scores were.

    Raises
    ------
    Misconfigured
        A setting is no list of days, or names a column that cannot be counted by.
    """
    how = assembly.measured
    return QualityStage(
        declared(assembly.settings, how),
        how,
        assembly.validate_examples(resolve),
        writer(QUALITY, assembly.contracts[QUALITY].schema),
        report,
        assembly.dead_letters(QUALITY, writer, largest_letter_bytes),
    )
