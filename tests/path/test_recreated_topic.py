"""A topic that was deleted and created again: nothing of the new log is skipped, nothing of the old state is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cards import events, first_stage, published, view
from millstream.adapters.kafka.origins import Origin, Origins, out_of_range
from millstream.core.batch import Batch
from millstream.core.generations import GENERATION, generation_of
from millstream.core.ledger.recovery import Recovery, plan_recovery
from millstream.errors import Misconfigured
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.stage import Stage
from millstream.testing.faults import crash

CUSTOMER = view("activity", "customer")
TOPIC, CHANGELOG, OUT = "transactions", "customer.changelog", "transactions.terminal"


def _loop(broker: MemoryBroker, generation: int | None, topic_id: str = "one", batch: int = 7) -> StageLoop:
    origins = Origins()
    if generation is not None:
        origins = Origins({TOPIC: Origin(topic_id, generation)}, lambda _topics: broker.ids)
    loop = StageLoop(
        first_stage(CUSTOMER),
        MemoryLog(broker, "group", origins),
        LoopLimits(batch, 1 << 60),
        DeadLetterLimit(1.0, 10),
        None,
        Unobserved(),
        now_ms=lambda: 0,
    )
    loop.start()
    return loop


def _run(loop: StageLoop, batches: int = 1 << 30) -> None:
    while batches and (polled := loop.poll(0.0)):
        loop.handle(polled)
        batches -= 1


def _windows(loop: StageLoop) -> dict[int, tuple[list[float], int]]:
    assert isinstance(loop.work, Stage)
    store = loop.work.featurize.stores[0]
    keys, results, times = store.online(store.all_slots())
    features = np.hstack([results.reals, results.wholes.astype(object)])
    return {int(k): (f.tolist(), int(t)) for k, f, t in zip(keys, features, times, strict=True)}


def _written(broker: MemoryBroker) -> list[bytes]:
    return [entry[1] or b"" for entry in broker.log(OUT)[0].entries]


def _part(whole: Batch, start: int, end: int) -> Batch:
    return whole.take(np.arange(start, end))


def _adopt(broker: MemoryBroker) -> None:
    """What `millstream topics adopt` does to the group; the registry is the argument of `_loop`."""
    broker.committed["group", TOPIC, 0] = 0


def test_a_recreated_topic_stops_the_stage_and_names_the_command() -> None:
    broker = MemoryBroker(ids={TOPIC: "one"})
    broker.append(published(events(40)))
    first = _loop(broker, 0)
    _run(first)
    first.close()
    broker.recreate(TOPIC, "two")
    broker.append(published(events(60, seed=2)))
    with pytest.raises(Misconfigured, match=r"transactions was deleted and created again.*millstream topics adopt"):
        _run(_loop(broker, 0))
    assert len(broker.log(OUT)[0].entries) == 40


def test_without_a_recorded_id_the_topic_is_taken_as_it_is() -> None:
    broker = MemoryBroker(ids={TOPIC: "one"})
    broker.append(published(events(40)))
    _run(_loop(broker, None))  # an earlier version
    broker.append(published(_part(events(60), 40, 60)))
    _run(_loop(broker, 0))
    assert len(broker.log(OUT)[0].entries) == 60


@given(
    before=st.integers(0, 60),
    read=st.integers(0, 12),
    lives=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=4),
    seed=st.integers(0, 5),
)
@settings(max_examples=30)
def test_an_adopted_log_is_read_whole_and_windows_keep_the_earlier_one(
    before: int, read: int, lives: list[tuple[int, bool]], seed: int
) -> None:
    whole, batch = events(120, seed), 5
    broker = MemoryBroker(ids={TOPIC: "one"})
    broker.append(published(_part(whole, 0, before)))
    first = _loop(broker, 0, batch=batch)
    _run(first, read)
    first.close()
    known = min(before, read * batch)
    broker.recreate(TOPIC, "two")
    broker.append(published(_part(whole, known, 120)))
    _adopt(broker)
    for batches, checkpointed in lives:
        loop = _loop(broker, 1, "two", batch)
        _run(loop, batches)
        if checkpointed:
            loop.checkpoint(loop.partitions)
        crash(loop, written=not checkpointed)
    survivor = _loop(broker, 1, "two", batch)
    _run(survivor)

    calm = MemoryBroker()
    calm.append(published(whole))
    undisturbed = _loop(calm, None, batch=batch)
    _run(undisturbed)
    assert sorted(_written(broker)) == sorted(_written(calm))
    assert _windows(survivor) == _windows(undisturbed)
    assert generation_of(max(survivor.next_offsets.values())) == 1


def test_a_ledger_goes_on_with_a_new_generation_and_reports_no_loss() -> None:
    base = GENERATION
    plan = plan_recovery(
        {"scored": 500, "labels": 25},
        {"scored": base, "labels": 30},
        {"scored": range(base, base + 60), "labels": range(40)},
    )
    assert plan == Recovery(False, {"labels": (25, 30)}, {"scored": base, "labels": 30}, {})


def test_an_offset_out_of_range_is_explained_by_what_the_log_holds() -> None:
    assert "shorter than what was read of it" in out_of_range("t", 0, 40, 0, 20)
    assert "retention" not in out_of_range("t", 0, 40, 0, 20)
    assert "deleted by retention before they were read" in out_of_range("t", 0, 40, 50, 90)
    for text in (out_of_range("t", 0, 40, 0, 20), out_of_range("t", 0, 40, 50, 90)):
        assert "millstream topics adopt t" in text
