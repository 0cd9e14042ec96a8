"""The same stage loops on the in-memory log: history in; features, scores and dead letters out, as fast as they go."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Records
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.stage import Stage
from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED

_NO_LIMIT = 1 << 62


class Replay:
    """Stages in path order over one in-memory partition, on a virtual clock that follows the records' timestamps.

    One partition suffices: windows, duplicates and lateness are per key, so results do not depend on how keys are
    spread.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.broker = MemoryBroker(partitions=1)
        self._stages = tuple(stages)
        # All that is fed at once is one micro-batch, within which inputs are merged.
        limits = LoopLimits(_NO_LIMIT, _NO_LIMIT)
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
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in path order; their state is in partition 0."""
        return self._stages

    def feed(self, output: Output, said: Sequence[Output] = ()) -> tuple[Records, Records]:
        """Append input and run every stage until nothing is left to read.

        Parameters
        ----------
        output : Output
            Events.
        said : sequence of Output
            What became known, re-keyed for the stages that have label-derived features. What is known by the time of
            the last of the events must have been said by now: stages merge their inputs in order of time.

        Returns
        -------
        scored, dead_letters : Records
            What came of it, as the bytes that Kafka would hold.
        """
        stamps = output.timestamps_ms
        if stamps:
            self.broker.now_ms = max(self.broker.now_ms, *stamps)
        for each in (*said, output):
            self.broker.append(each)
        for loop in self._loops:
            while batches := loop.poll(0.0):
                loop.handle(batches)
            for topic in loop.work.inputs:
                self.broker.drain(topic)
        self.broker.drain(PREDICTIONS)
        (scored,) = self.broker.drain(SCORED)
        (dead_letters,) = self.broker.drain(DEAD_LETTERS)
        return scored, dead_letters
