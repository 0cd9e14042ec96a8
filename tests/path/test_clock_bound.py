"""Events ahead of the wall clock are refused once, and by recovery too, although the clock shows more by then."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cards import CONTRACTS, DAY_MS, START_MS, TRANSACTIONS, events, first_stage, published, topology, view
from millstream.adapters.kafka.topics import TIMESTAMP_AFTER_MS
from millstream.app.stage_registry import clock_bound
from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch
from millstream.runtime.clock_bound import AHEAD, BLOCK, REFUSED_PREFIX, ClockBound, RefusedOffsets
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.stage import Stage
from millstream.settings import load_settings
from millstream.testing.faults import crash
from millstream.topology import DEAD_LETTERS

BOUND_MS = 3_600_000
END_MS = START_MS + 2 * DAY_MS
CUSTOMER, LONGER = view("activity", "customer"), view("activity", "customer", days=(1, 14))


class Clock:
    """A wall clock that a test sets."""

    def __init__(self, now_ms: int = END_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def started(broker: MemoryBroker, clock: Clock, stage: Stage, batch: int = 7) -> StageLoop:
    limit, log = DeadLetterLimit(1.0, 10), MemoryLog(broker, "group")
    loop = StageLoop(stage, log, LoopLimits(batch, 1 << 60), limit, None, Unobserved(), now_ms=clock)
    loop.start()
    return loop


def run(loop: StageLoop, batches: int = 1 << 30) -> None:
    while batches and (polled := loop.poll(0.0)):
        loop.handle(polled)
        batches -= 1


def some_ahead(count: int, seed: int) -> Batch:
    """Return transactions of which a third, of several customers, is up to 400 days ahead."""
    batch = events(count, seed, customers=8)
    rng = np.random.default_rng(seed)
    ahead = rng.random(count) < 0.3
    times_ms = batch.columns["event_time_ms"] + ahead * rng.integers(3 * DAY_MS, 400 * DAY_MS, count)
    return batch.with_columns({"event_time_ms": times_ms})


def filled(batch: Batch) -> MemoryBroker:
    broker = MemoryBroker(partitions=2)
    broker.append(published(batch))
    return broker


def state(loop: StageLoop) -> dict[int, dict[int, tuple[list[float], int]]]:
    stage = loop.work
    assert isinstance(stage, Stage)
    found = {}
    for partition, store in stage.featurize.stores.items():
        keys, results, times_us = store.online(store.all_slots())
        rows = zip(keys.tolist(), results.reals.tolist(), times_us.tolist(), strict=True)
        found[partition] = {key: (reals, time_us) for key, reals, time_us in rows}
    return found


def refused(broker: MemoryBroker) -> list[tuple[int, int]]:
    """Return partition and offset of each dead letter that is ahead of the clock."""
    values = [value for partition in broker.log(DEAD_LETTERS) for _, _, value in partition.entries]
    columns = RecordReader(CONTRACTS[DEAD_LETTERS].schema, lambda _id: None).decode(values, 1 << 30).batch.columns
    rows = zip(columns["reason"], columns["partition"].tolist(), columns["offset"].tolist(), strict=True)
    return [(partition, offset) for reason, partition, offset in rows if reason == AHEAD]


def times_of(broker: MemoryBroker, partition: int, start: int, end: int) -> list[int]:
    # A producer stamps a record with the clock that is ahead.
    return [stamp for stamp, _, _ in broker.log("transactions")[partition].entries[start:end]]


@example(lives=[(0, False, 6_808_729_807), (8, True, 0)], batch=8, seed=0, other_windows=False)
@given(
    lives=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 300 * DAY_MS)), max_size=6),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
    other_windows=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_what_was_decided_is_decided_again_whatever_crashes_and_whenever(
    lives: list[tuple[int, bool, int]], batch: int, seed: int, other_windows: bool
) -> None:
    made = some_ahead(150, seed)
    broker, clock = filled(made), Clock()
    expected: list[tuple[int, int]] = []

    def life(batches: int, stage: Stage) -> StageLoop:
        before = {p: broker.committed.get(("group", "transactions", p), 0) for p in (0, 1)}
        loop = started(broker, clock, stage, batch)
        run(loop, batches)
        loop._settle()
        for p, start in before.items():
            end = broker.committed.get(("group", "transactions", p), 0)
            late = [time_ms > clock.now_ms + BOUND_MS for time_ms in times_of(broker, p, start, end)]
            expected.extend((p, start + at) for at, each in enumerate(late) if each)
        return loop

    for batches, checkpointed, later_ms in lives:
        loop = life(batches, first_stage(CUSTOMER, ahead_ms=BOUND_MS))
        if checkpointed:
            loop.checkpoint(loop.partitions)
        crash(loop)
        clock.now_ms += later_ms
    crash(life(1 << 30, first_stage(CUSTOMER, ahead_ms=BOUND_MS)))
    assert sorted(refused(broker)) == sorted(expected)

    clock.now_ms += 1000 * DAY_MS
    views = LONGER if other_windows else CUSTOMER  # other windows: all is replayed from the beginning
    survivor = started(broker, clock, first_stage(views, ahead_ms=BOUND_MS))
    run(survivor)
    gone = set(expected)
    calm = MemoryBroker(partitions=2)
    for p, partition in enumerate(broker.log("transactions")):
        kept = [entry for at, entry in enumerate(partition.entries) if (p, at) not in gone]
        stamps, keys, values = zip(*kept, strict=True)
        calm.append(Output("transactions", keys, values, p, stamps))
    undisturbed = started(calm, clock, first_stage(views))
    run(undisturbed)
    for loop in (survivor, undisturbed):  # a checkpoint drops keys whose windows have ended; a crash may have made one
        loop.checkpoint(loop.partitions)
    assert state(survivor) == state(undisturbed)


def test_keys_that_are_ahead_together_make_nobody_late() -> None:
    made = some_ahead(300, 1)
    broker = filled(made)
    run(started(broker, Clock(), first_stage(CUSTOMER, ahead_ms=BOUND_MS)))
    ahead = int((made.columns["event_time_ms"] > END_MS + BOUND_MS).sum())
    assert ahead > 50
    letters = sum(len(partition.entries) for partition in broker.log(DEAD_LETTERS))
    assert (len(refused(broker)), letters) == (ahead, ahead)


def test_without_a_clock_history_is_read_as_it_is() -> None:
    broker = filled(some_ahead(100, 1))
    run(started(broker, Clock(), first_stage(CUSTOMER)))
    assert refused(broker) == []


def test_rows_of_offsets_that_retention_deleted_are_deleted() -> None:
    broker, clock = filled(some_ahead(100, 1)), Clock()
    loop = started(broker, clock, first_stage(CUSTOMER, ahead_ms=BOUND_MS))
    run(loop)
    loop.checkpoint(loop.partitions)
    for partition in broker.log("transactions"):
        partition.beginning, partition.entries = BLOCK, []
    for p in (0, 1):
        broker.committed["group", "transactions", p] = BLOCK
    again = started(broker, clock, first_stage(CUSTOMER, ahead_ms=BOUND_MS))
    again.poll(0.0)
    again.checkpoint(again.partitions)
    for partition in broker.log("customer.changelog"):
        last = {key: value for _, key, value in partition.entries}
        assert [key for key, value in last.items() if key and key.startswith(REFUSED_PREFIX) and value] == []
        assert any(key and key.startswith(REFUSED_PREFIX) for key in last)


@given(
    parts=st.lists(st.lists(st.integers(BLOCK - 50, BLOCK + 50), min_size=1), max_size=5),
    before=st.integers(0, 3 * BLOCK),
)
def test_offsets_are_stored_and_read(parts: list[list[int]], before: int) -> None:
    known, rows = RefusedOffsets(), dict[bytes, bytes]()
    for part in parts:
        rows |= dict(known.add(np.array(sorted(part), dtype=np.int64)))
    read = RefusedOffsets()
    for key, value in rows.items():
        read.load(key.removeprefix(REFUSED_PREFIX), value)
    wanted = sorted({each for part in parts for each in part})
    assert read.offsets() == known.offsets() == wanted
    assert len(read) == len(wanted)
    asked = np.arange(BLOCK - 60, BLOCK + 60)
    assert asked[read.contains(asked)].tolist() == wanted
    gone = read.drop_before(before)
    assert read.offsets() == [each for each in wanted if (each // BLOCK + 1) * BLOCK > before]
    assert set(gone) <= set(rows)


def test_a_record_that_comes_again_after_its_refusal_was_written_is_refused_again() -> None:
    made = some_ahead(60, 2)
    broker, stage = filled(made), first_stage(CUSTOMER)
    stage.featurize.stores[0] = stage.featurize.new_store()
    known = RefusedOffsets()
    known.add(np.array([2, 5]))
    flow, _ = stage.apply(broker.records("transactions", 0, 0, 10))
    bound = ClockBound(TRANSACTIONS.event_time, BOUND_MS)
    rejected = bound(flow, END_MS + 1000 * DAY_MS, {0: known}).rejections
    assert [each.row for each in rejected if each.reason == AHEAD] == [2, 5]


def test_a_worker_bounds_its_first_stage_and_no_contract_is_contradicted() -> None:
    first, *later = topology(CUSTOMER, view("terminal_activity", "terminal")).stages
    for value, expected_ms in (("0", BOUND_MS), ("7200000", 7_200_000)):  # schemas/transactions.avsc allows an hour
        found = load_settings({}, event_ahead_max_ms=value)
        bound = clock_bound(found, TRANSACTIONS, first)
        assert bound is not None
        assert bound._ahead_ms == expected_ms
        assert [clock_bound(found, TRANSACTIONS, each) for each in later] == [None]
    assert load_settings({}).event_ahead_max_ms == TIMESTAMP_AFTER_MS
