"""A store knows the offset it is valid for: whatever the crash, the state and the outputs come out the same."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cards import DAY_MS, events, first_stage, published, view
from millstream.core.declaration import Aggregate, ColumnType, View
from millstream.core.windows.store import WindowStore
from millstream.errors import Aborted, Rebalanced
from millstream.ports import ViewRows
from millstream.runtime.checkpoint_turns import CheckpointTurns
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Place
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.stage import Stage
from millstream.testing.faults import crash

CUSTOMER = view("activity", "customer")
NEVER_MS = 1 << 60


def _loop(
    broker: MemoryBroker,
    *views: View,
    checkpoint_interval_ms: int = NEVER_MS,
    batch: int = 7,
    log: MemoryLog | None = None,
) -> StageLoop:
    stage = first_stage(*views)
    loop = StageLoop(
        stage,
        log or MemoryLog(broker, "group"),
        LoopLimits(batch, checkpoint_interval_ms),
        DeadLetterLimit(1.0, 10),
        None,
        Unobserved(),
        now_ms=lambda: 0,
    )
    loop.start()
    return loop


def _stage(loop: StageLoop) -> Stage:
    assert isinstance(loop.work, Stage)
    return loop.work


def _run(loop: StageLoop, batches: int = 1 << 30) -> None:
    while batches and (polled := loop.poll(0.0)):
        loop.handle(polled)
        batches -= 1


def _outputs(broker: MemoryBroker) -> list[list[tuple[int, bytes | None, bytes | None]]]:
    # Input partitions take turns by micro-batch, so only order within one of them is promised.
    return [sorted(partition.entries, key=repr) for partition in broker.log("transactions.terminal")]


def _online(store: WindowStore) -> dict[int, tuple[list[float], int]]:
    keys, results, times = store.online(store.all_slots())
    features = np.hstack([results.reals, results.wholes.astype(object)])
    return {int(k): (f.tolist(), int(t)) for k, f, t in zip(keys, features, times, strict=True)}


def _stores(loop: StageLoop) -> dict[int, dict[int, tuple[list[float], int]]]:
    return {partition: _online(store) for partition, store in sorted(_stage(loop).featurize.stores.items())}


def _broker(output: Output) -> MemoryBroker:
    broker = MemoryBroker(partitions=2)
    broker.append(output)
    return broker


@given(
    lives=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_crashes_at_any_batch_change_nothing(lives: list[tuple[int, bool]], batch: int, seed: int) -> None:
    output = published(events(150, seed))
    calm = _broker(output)
    undisturbed = _loop(calm, CUSTOMER)
    _run(undisturbed)

    broker = _broker(output)
    for batches, checkpointed in lives:
        loop = _loop(broker, CUSTOMER, batch=batch)
        _run(loop, batches)
        if checkpointed:
            loop.checkpoint(loop.partitions)
        crash(loop, written=not checkpointed)
    survivor = _loop(broker, CUSTOMER, batch=batch)
    _run(survivor)
    assert _outputs(broker) == _outputs(calm)
    assert _stores(survivor) == _stores(undisturbed)


class _Failing(MemoryLog):
    """Refuses one transaction, as a broker does to a member of a generation that is over."""

    def __init__(self, broker: MemoryBroker, refused: int) -> None:
        super().__init__(broker, "group")
        self._left = refused

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        self._left -= 1
        if self._left == 0:
            time.sleep(0.01)  # the stage goes on meanwhile
            raise Rebalanced("the group has moved on")
        super().commit(next_offsets)


@given(refused=st.integers(1, 12), batch=st.integers(5, 40), member=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_transaction_refused_while_the_stage_goes_on_changes_nothing(refused: int, batch: int, member: bool) -> None:
    output = published(events(150, 3))
    calm, broker = _broker(output), _broker(output)
    undisturbed = _loop(calm, CUSTOMER)
    _run(undisturbed)

    loop = _loop(broker, CUSTOMER, batch=batch, log=_Failing(broker, refused))
    try:
        _run(loop)
    except Rebalanced:
        loop.recover(as_member=member)
        _run(loop)
    assert _outputs(broker) == _outputs(calm)
    assert _stores(loop) == _stores(undisturbed)


def test_partitions_that_go_while_a_transaction_is_written_are_stored_with_it() -> None:
    broker = _broker(published(events(100)))
    loop = _loop(broker, CUSTOMER, batch=5)
    _run(loop, 3)
    assert loop._transactions.begun
    loop._revoked(loop.partitions)
    seen: list[int] = []
    again = _loop(broker, CUSTOMER)
    _stage(again).apply = lambda records: seen.append(len(records))  # type: ignore
    again.poll(0.0)
    assert seen == []
    assert sum(broker.committed.values()) == 15


def test_a_clean_stop_leaves_nothing_to_replay() -> None:
    broker = _broker(published(events(100)))
    loop = _loop(broker, CUSTOMER)
    _run(loop)
    before = _stores(loop)
    loop.close()
    again = _loop(broker, CUSTOMER)
    seen: list[int] = []
    _stage(again).apply = lambda records: seen.append(len(records))  # type: ignore
    _run(again)
    assert seen == []
    assert _stores(again) == before


def test_changed_windows_are_rebuilt_from_the_retained_events() -> None:
    broker = _broker(published(events(100)))
    loop = _loop(broker, CUSTOMER)
    _run(loop)
    loop.close()
    wider = view("activity", "customer", functions=("count", "mean", "max"), days=(1, 7, 60))
    changed = _loop(broker, wider)
    _run(changed)
    changed.poll(0.0)
    fresh = _broker(published(events(100)))
    expected = _loop(fresh, wider)
    _run(expected)
    expected.poll(0.0)
    assert _stores(changed) == _stores(expected)
    # The next checkpoint leaves only rows that the new declaration can read.
    changed.close()
    reopened = _loop(broker, wider)
    reopened.poll(0.0)
    assert _stores(reopened) == _stores(expected)


@pytest.mark.parametrize("moved", [0, 2**53 + 1])
def test_state_that_kept_whole_numbers_as_doubles_is_taken_over_where_they_are_exact(moved: int) -> None:
    def of(column_type: ColumnType) -> View:
        made = [
            Aggregate(f"{function}_{days}", "int64", "terminal_id", function, days * DAY_MS, column_type)
            for function, days in (("last", 1), ("sum", 7), ("count_distinct", 7))
        ]
        return View("seen", "customer", "customer_id", "int64", "transactions", "event_time_ms", DAY_MS, tuple(made))

    batch = events(100)
    batch = batch.with_columns({"terminal_id": batch.columns["terminal_id"] + moved})
    broker = _broker(published(batch))
    before = _loop(broker, of("real"))
    _run(before)
    before.close()
    upgraded = _loop(broker, of("long"))
    seen: list[int] = []
    apply = _stage(upgraded).apply
    _stage(upgraded).apply = lambda records: (seen.append(len(records)), apply(records))[1]  # type: ignore
    _run(upgraded)
    upgraded.poll(0.0)
    assert sum(seen) == (100 if moved else 0), "what is not exact is rebuilt from the retained events"
    expected = _loop(_broker(published(batch)), of("long"))
    _run(expected)
    assert _stores(upgraded) == _stores(expected)
    upgraded.close()
    seen.clear()
    reopened = _loop(broker, of("long"))
    _stage(reopened).apply = lambda records: seen.append(len(records))  # type: ignore
    _run(reopened)
    assert seen == []
    assert _stores(reopened) == _stores(expected)


def test_nothing_is_answered_twice_when_recovery_replays() -> None:
    broker = _broker(published(events(60)))
    loop = _loop(broker, CUSTOMER, batch=10)
    _run(loop, 3)
    crash(loop)
    _run(_loop(broker, CUSTOMER, batch=10))
    assert sum(map(len, _outputs(broker))) == 60


def test_duplicates_are_counted_and_not_answered_again() -> None:
    once = events(30)
    twice = published(once.take(np.r_[0:30, 0:30]))
    broker = _broker(twice)
    counts: list[int] = []

    class Counting(Unobserved):
        def processed(self, stage, records, processed, seconds) -> None:  # type: ignore[no-untyped-def]
            counts.append(processed.flows[0].counts.get("duplicates", 0))

    loop = _loop(broker, CUSTOMER)
    loop._observer = Counting()
    _run(loop)
    assert sum(counts) == 30
    assert sum(map(len, _outputs(broker))) == 30


def test_a_view_that_is_not_online_is_computed_and_not_kept_for_readers() -> None:
    offline = replace(view("offline", "customer", days=(1,)), online=False)
    outputs, told = [], []
    for views in ((CUSTOMER, offline), (CUSTOMER, replace(offline, online=True))):
        broker = _broker(published(events(40)))
        loop = _loop(broker, *views, batch=40)
        rows: list[ViewRows] = []
        while polled := loop.poll(0.0):
            rows += _stage(loop).process(polled, 0).view_rows
        told.append({each.view for each in (*rows, *loop.work.online(0))})
        again = _broker(published(events(40)))
        _run(_loop(again, *views))
        outputs.append(_outputs(again))
    assert told == [{"activity"}, {"activity", "offline"}]
    assert outputs[0] == outputs[1]


def test_a_failed_transaction_is_not_survived() -> None:
    from millstream.errors import Stop

    broker = _broker(published(events(10)))
    loop = _loop(broker, CUSTOMER)
    records = loop.poll(0.0)

    def refuse(*_: object) -> None:
        raise Stop("aborted")

    loop.log.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(Stop):
        loop.handle(records)
    assert _outputs(broker) == [[], []]


def test_a_stage_whose_last_transaction_is_aborted_leaves_in_order() -> None:
    broker = _broker(published(events(200)))
    loop = _loop(broker, CUSTOMER, batch=10)
    loop.handle(loop.poll(0.0))

    def refuse(*_: object) -> None:
        raise Aborted("the group has a newer generation")

    loop.log.commit = refuse  # type: ignore[method-assign]
    loop.handle(loop.poll(0.0))  # a full micro-batch: its transaction is written meanwhile
    loop.close()
    assert loop.partitions == ()
    again = _loop(broker, CUSTOMER)
    while polled := again.poll(0.0):
        again.handle(polled)
    again.close()
    calm = _loop(calm_broker := _broker(published(events(200))), CUSTOMER)
    while polled := calm.poll(0.0):
        calm.handle(polled)
    assert [len(each) for each in _outputs(broker)] == [len(each) for each in _outputs(calm_broker)]


def test_partitions_are_checkpointed_in_turn_each_within_the_interval() -> None:
    broker = MemoryBroker(partitions=4)
    broker.append(published(events(4000, 1)))
    loop = _loop(broker, CUSTOMER, checkpoint_interval_ms=1000)
    now_s = [0.0]
    loop._turns = CheckpointTurns(1000, lambda: now_s[0])
    changelog = _stage(loop).plan.changelog
    written: dict[int, list[float]] = {partition: [] for partition in range(4)}
    while polled := loop.poll(0.0):
        before = [len(held.entries) for held in broker.log(changelog)]
        loop.handle(polled)
        grown = [
            partition for partition, held in enumerate(broker.log(changelog)) if len(held.entries) > before[partition]
        ]
        assert len(grown) <= 1
        for partition in grown:
            written[partition].append(now_s[0])
        now_s[0] += 0.05
    for times_s in written.values():
        assert len(times_s) > 10
        assert max(np.diff(times_s)) <= 1.0 + 4 * 0.05
