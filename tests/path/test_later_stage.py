"""One worker is away while another is days ahead: what the first stage accepted is answered exactly at the next one."""

from __future__ import annotations

import numpy as np
import pytest

from cards import CONTRACTS, DAY_MS, TRANSACTIONS, events, first_stage, published, topology, view
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.partitioner import partition_of
from millstream.core.text import as_text
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.recovery import Marker
from millstream.runtime.stage import Stage
from millstream.stages.featurize.step import Featurize
from millstream.stages.featurize.upstream import upstream_of
from millstream.stages.validate.step import Validate
from millstream.testing.faults import crash
from millstream.topology import DEAD_LETTERS

VIEWS = view("activity", "customer"), view("terminal_activity", "terminal")
TOPOLOGY = topology(*VIEWS, view("own", "transaction"))  # a third stage, so that the second does not score


def second_stage() -> Stage:
    """Return the stage of terminals, without a score."""
    plan = TOPOLOGY.stages[1]
    return Stage(
        plan,
        Validate(RecordReader(plan.input_schema, lambda _id: None), 1 << 20),
        Featurize(
            plan.views,
            TRANSACTIONS.event_id,
            TRANSACTIONS.event_time,
            plan.feature_time_column,
            "dead_letter",
            None,
            upstream_of(TOPOLOGY, plan, 2),
            TRANSACTIONS.key,
        ),
        None,
        RecordWriter(plan.output_schema),
        None,
        RecordWriter(CONTRACTS[DEAD_LETTERS].schema),
    )


def started(stage: Stage, broker: MemoryBroker) -> StageLoop:
    limit = DeadLetterLimit(1.0, 10)
    log, limits = MemoryLog(broker, stage.name), LoopLimits(50, 1 << 60)
    loop = StageLoop(stage, log, limits, limit, None, Unobserved(), now_ms=lambda: 0)
    loop.start()
    return loop


def run(loop: StageLoop) -> None:
    while polled := loop.poll(0.0):
        loop.handle(polled)


def decoded(broker: MemoryBroker, topic: str) -> Batch:
    values = [value for partition in broker.log(topic) for _, _, value in partition.entries]
    schema = TOPOLOGY.stages[1].output_schema
    return RecordReader(schema, lambda _id: None).decode(values, 1 << 30).batch


@pytest.mark.parametrize("crashes", [False, True])
def test_no_event_is_late_at_the_second_stage(crashes: bool) -> None:
    batch = events(500, seed=4, customers=30, step_ms=1_200_000)  # a week, allowed lateness of a day
    home = partition_of(as_text(batch.columns["customer_id"]), 2)
    broker = MemoryBroker(partitions=2)
    first, second = started(first_stage(VIEWS[0]), broker), started(second_stage(), broker)
    order = [np.flatnonzero(home == partition) for partition in (0, 1)]
    for rows in order:  # the worker of partition 1 is away until partition 0 is read to its end
        broker.append(published(batch.take(rows)))
        run(first)
        run(second)
        if crashes:
            second.checkpoint(second.partitions)
            crash(second)
            second = started(second_stage(), broker)
    assert not any(partition.entries for partition in broker.log(DEAD_LETTERS))
    answered = decoded(broker, TOPOLOGY.stages[1].output)
    counts = dict(
        zip(
            answered.columns["transaction_id"].tolist(),
            answered.columns["terminal_activity__count_7d"].tolist(),
            strict=True,
        )
    )
    assert len(counts) == batch.length
    arrived = np.concatenate(order)
    times, terminals = batch.columns["event_time_ms"][arrived], batch.columns["terminal_id"][arrived]
    for at, row in enumerate(arrived.tolist()):
        inside = (terminals[: at + 1] == terminals[at]) & (times[: at + 1] <= times[at])
        assert counts[row] == (inside & (times[: at + 1] > times[at] - 7 * DAY_MS)).sum()


def test_the_marker_holds_the_clocks_and_one_of_an_earlier_version_is_read() -> None:
    marker = Marker.decode(b'{"stream_time_ms": 5, "next_offset": 3, "fingerprint": "x"}')
    assert marker.clocks == []
    assert Marker.decode(marker.encode()) == marker
    held = Marker(marker.events, None, 5, [[7, 1, 5], [7, 1, 5]])
    assert Marker.decode(held.encode()) == held
