"""A log in memory that writes at least once, and a member of it that dies in the middle of writing."""

from __future__ import annotations

import random
from collections.abc import Mapping

from millstream.core.partitioner import partition_of
from millstream.errors import Stop
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Place
from millstream.topology import CHANGELOG

FATES = ("fine", "nothing written", "partly written", "written, not committed")


class AtLeastOnceLog(MemoryLog):
    """Outputs first, then offsets; each partition's outputs are there up to some record when the member dies."""

    def __init__(self, broker: MemoryBroker, group: str, rng: random.Random) -> None:
        super().__init__(broker, group)
        self.atomic = False
        self.fate = "fine"
        self._rng = rng

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """See `StageLog.commit`."""
        if self.fate == "fine":
            super().commit(next_offsets)
            return
        if self.fate != "nothing written":
            for output in self._parts():
                self._broker.append(output)
        raise Stop("died")

    def _parts(self) -> list[Output]:
        """Return what is written: all, or of each partition some first records."""
        left: dict[tuple[str, int], int] = {}
        found: list[Output] = []
        whole = True
        for output in self._sent:
            if output.topic.endswith(CHANGELOG) and not whole:
                break  # it is written once all before it is acknowledged
            count = len(self._broker.log(output.topic))
            keys = [key or b"" for key in output.keys]
            places = partition_of(keys, count).tolist() if output.partition is None else [output.partition] * len(keys)
            stamps = output.timestamps_ms or [self._broker.now_ms] * len(keys)
            for place, key, value, stamp in zip(places, output.keys, output.values, stamps, strict=True):
                most = 1 << 30 if self.fate != "partly written" else self._rng.choice([0, 1, 3, 1 << 30])
                if left.setdefault((output.topic, place), most) > 0:
                    left[output.topic, place] -= 1
                    found.append(Output(output.topic, [key], [value], place, [stamp]))
                else:
                    whole = False
        return found
