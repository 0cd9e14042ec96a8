"""Workers that share a project's stages in memory, with crashes and rebalances at given transactions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from millstream.errors import Aborted
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, Partition
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.testing.faults import Crash, Faults, FaultyLog, crash
from millstream.topology import Topology

_CHECKPOINT_MS = 100
_TICK_S = 0.06


def broker_for(topology: Topology, partitions: int) -> MemoryBroker:
    """Return a log in memory with the topics of a topology."""
    broker = MemoryBroker(partitions)
    for topic in topology.topics:
        broker.topics[topic.name] = [Partition() for _ in range(topic.partitions or partitions)]
    return broker


class Workers:
    """So many workers, each of which runs all stages on some of the partitions.

    Parameters
    ----------
    broker : MemoryBroker
    make : callable
        Gives the stages, in path order, with nothing in their memory.
    partitions : int
        Of the stages' topics.
    count : int
        Of workers.
    faults : Faults
    batch_records : int
        Largest micro-batch.
    rng : random.Random
        Assigns the partitions.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        make: Callable[[], Sequence[Work]],
        partitions: int,
        count: int,
        faults: Faults,
        batch_records: int,
        rng: random.Random,
    ) -> None:
        self._broker, self._make, self._faults = broker, make, faults
        self._partitions, self._batch_records, self._rng = partitions, batch_records, rng
        self._owned: list[set[int]] = [set() for _ in range(count)]
        self._ticks = 0
        self._share_out()
        self._loops = [self._started(worker) for worker in range(count)]

    def run(self, outputs: Sequence[Output]) -> None:
        """Append records, and run every stage until nothing is left to read."""
        for output in outputs:
            self._broker.append(output)
        while sum(self._turn(worker, at) for worker in range(len(self._loops)) for at in range(len(self._loops[0]))):
            pass

    def close(self) -> None:
        """Let all workers leave."""
        for loops in self._loops:
            for loop in loops:
                loop.close()

    def _turn(self, worker: int, at: int) -> bool:
        """Let a worker's stage take a micro-batch; return whether there was one."""
        loop = self._loops[worker][at]
        self._ticks += 1
        try:
            batches = loop.poll(0.0)
            loop.handle(batches)
        except Crash:
            self._kill(worker)
            return True
        except Aborted:
            loop.recover(as_member=True)
        if self._faults.rebalance_due:
            self._rebalance()
            return True
        return bool(batches)

    def _kill(self, worker: int) -> None:
        for loop in self._loops[worker]:
            crash(loop)
            for partition in range(self._partitions):
                loop.work.drop(partition)
        self._loops[worker] = self._started(worker)

    def _rebalance(self) -> None:
        self._faults.rebalance_due = False
        self._share_out()
        for worker, loops in enumerate(self._loops):
            try:
                for loop in loops:
                    assert isinstance(loop.log, FaultyLog)
                    loop.log.release()
            except Crash:
                self._kill(worker)

    def _share_out(self) -> None:
        """Assign the partitions, otherwise than before where there is another way."""
        before, workers = [set(owned) for owned in self._owned], len(self._owned)
        while True:
            for owned in self._owned:
                owned.clear()
            for partition in range(self._partitions):
                self._owned[self._rng.randrange(workers)].add(partition)
            if workers == 1 or self._owned != before:
                return

    def _started(self, worker: int) -> list[StageLoop]:
        # One more than a micro-batch holds: each transaction is written in place, so that runs are repeatable.
        limits = LoopLimits(self._batch_records + 1, _CHECKPOINT_MS)
        loops = []
        for work in self._make():
            log = FaultyLog(self._broker, work.name, self._faults, self._owned[worker], self._batch_records)
            loops.append(
                StageLoop(
                    work,
                    log,
                    limits,
                    DeadLetterLimit(1.0, 1),
                    None,
                    Unobserved(),
                    now_ms=lambda: self._broker.now_ms,
                    clock_s=lambda: self._ticks * _TICK_S,
                )
            )
            loops[-1].start()
        return loops
