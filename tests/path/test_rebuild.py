"""The online view rebuilt from committed state equals the one the stages wrote, whatever was checkpointed or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cards import events, published
from fakes_online_view import FakeOnlineView
from millstream.app.assembly import Assembly, assemble
from millstream.app.rebuilding import rebuild_partition
from millstream.ports import ViewRows
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.settings import load_settings

PARTITIONS = 2


class Straight(FakeOnlineView):
    """The loop's side of a view, written at once."""

    def offer(self, rows: Sequence[ViewRows]) -> None:
        self.write(rows)

    def refill_required(self, source: str) -> str | None:
        return None

    def refilled(self, epoch: str, source: str) -> None:
        raise AssertionError("nothing was asked for")


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    return assemble(load_settings({}))


def run(assembly: Assembly, broker: MemoryBroker, view: Straight) -> list[StageLoop]:
    loops = []
    for plan in assembly.topology.stages:
        stage = assembly.stage(plan, assembly.resolver())
        limits = LoopLimits(50, 1 << 60)
        made = StageLoop(
            stage, MemoryLog(broker, plan.name), limits, DeadLetterLimit(1.0, 10), view, Unobserved(), now_ms=lambda: 0
        )
        made.start()
        loops.append(made)
        while batches := made.poll(0.0):
            made.handle(batches)
    return loops


def rebuilt(assembly: Assembly, broker: MemoryBroker, view: FakeOnlineView) -> int:
    return sum(
        rebuild_partition(
            assembly,
            plan,
            assembly.resolver(),
            MemoryLog(broker, "a reader"),
            partition,
            {topic: broker.committed.get((plan.name, topic, partition)) for topic in plan.inputs},
            view,
        )
        for plan in assembly.topology.stages
        for partition in range(PARTITIONS)
    )


def _told(view: FakeOnlineView) -> dict[object, tuple[int, list[float | None]]]:
    """Return rows that can be compared, although a null is not equal to itself."""
    return {
        at: (stamp, [None if np.isnan(each) else each for each in features])
        for at, (stamp, features) in view.rows.items()
    }


@pytest.mark.parametrize("checkpointed", [True, False])
def test_the_rebuilt_view_is_the_one_that_was_written(assembly: Assembly, checkpointed: bool) -> None:
    broker, view = MemoryBroker(PARTITIONS), Straight()
    broker.append(published(events(400)))
    for loop in run(assembly, broker, view):
        if checkpointed:
            loop.checkpoint(range(PARTITIONS))
    assert len(view.rows) > 40
    again = FakeOnlineView()
    assert rebuilt(assembly, broker, again) == len(view.rows)
    assert _told(again) == _told(view)
    assert rebuilt(assembly, broker, again) == 0


def test_what_is_not_committed_is_not_rebuilt(assembly: Assembly) -> None:
    broker, view = MemoryBroker(PARTITIONS), Straight()
    broker.append(published(events(300)))
    run(assembly, broker, view)
    broker.append(published(events(100, seed=2)))
    again = FakeOnlineView()
    rebuilt(assembly, broker, again)
    assert _told(again) == _told(view)
