"""The same stage loops on the in-memory log: history in; features, scores and dead letters out, as fast as they go."""

from __future__ import annotations

from collections.abc import Sequence

from services.core.windows.store import WindowStore
from services.topology import DEAD_LETTERS, PREDICTIONS, SCORED
from services.transport.dead_letters import DeadLetterLimit
from services.transport.loop import LoopLimits, StageLoop, Unobserved
from services.transport.memory_log import MemoryBroker, MemoryLog
from services.transport.records import Output, Records
from services.transport.stage import Stage

_NEVER_MS = 1 << 62


class Replay:
    """Stages in path order over one in-memory partition, on a virtual clock that follows the records' timestamps.

    One partition suffices: windows, duplicates and lateness are per key, so results do not depend on how keys are
    spread.
    """

    def __init__(self, stages: Sequence[Stage], batch_records: int) -> None:
        self.broker = MemoryBroker(partitions=1)
        self._stages = tuple(stages)
        limits = LoopLimits(batch_records, _NEVER_MS)
        self._loops = [
            StageLoop(
                stage,
                MemoryLog(self.broker, stage.name),
                limits,
                DeadLetterLimit(1.0, 1),
                None,
                Unobserved(),
                now_ms=lambda: self.broker.now_ms,
            )
            for stage in stages
        ]
        for loop in self._loops:
            loop.start()

    @property
    def stores(self) -> dict[str, WindowStore]:
        """The window store of each stage, by stage name."""
        return {stage.name: stage.featurize.stores[0] for stage in self._stages}

    def feed(self, output: Output) -> tuple[Records, Records]:
        """Append input and run every stage until nothing is left to read.

        Returns
        -------
        scored, dead_letters : Records
            What came of it, as the bytes that Kafka would hold.
        """
        stamps = output.timestamps_ms
        if stamps:
            self.broker.now_ms = max(self.broker.now_ms, *stamps)
        self.broker.append(output)
        for loop in self._loops:
            while batches := loop.poll(0.0):
                loop.handle(batches)
            for topic in loop.work.inputs:
                self.broker.drain(topic)
        self.broker.drain(PREDICTIONS)
        (scored,) = self.broker.drain(SCORED)
        (dead_letters,) = self.broker.drain(DEAD_LETTERS)
        return scored, dead_letters
