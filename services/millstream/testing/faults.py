"""What can happen to a worker between two records: a log in memory that ends it, or takes partitions away."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal

from millstream.errors import Rebalanced
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Place, Records
from millstream.runtime.loop import StageLoop

Fault = Literal["killed before", "killed after", "rebalanced", "rebalanced amid"]


class Crash(Exception):
    """The process ended: nothing of its memory is left."""


class Faults:
    """Which transactions something happens at, and what.

    Parameters
    ----------
    at : mapping of int to Fault
        By the number of the transaction, counted from 1 over all stages and workers: ``killed before`` or ``killed
        after`` it is committed; ``rebalanced`` after it, or ``rebalanced amid`` it, which aborts it.

    Attributes
    ----------
    transactions : int
        How many were begun.
    rebalance_due : bool
        Whether partitions must be assigned again.
    """

    def __init__(self, at: Mapping[int, Fault]) -> None:
        self._at = at
        self.transactions = 0
        self.rebalance_due = False

    @classmethod
    def drawn(cls, transactions: int, crashes: int, rebalances: int, rng: random.Random) -> Faults:
        """Return so many faults, each at a transaction of its own where there are enough."""
        kinds: list[Fault] = [rng.choice(("killed before", "killed after")) for _ in range(crashes)]
        kinds += [rng.choice(("rebalanced", "rebalanced amid")) for _ in range(rebalances)]
        numbers = rng.sample(range(1, transactions + 1), min(len(kinds), transactions))
        rng.shuffle(kinds)
        return cls(dict(zip(numbers, kinds, strict=False)))

    def next(self) -> Fault | None:
        """Return what happens at the transaction that begins."""
        self.transactions += 1
        return self._at.get(self.transactions)


class FaultyLog(MemoryLog):
    """The log of one worker of several in a stage's group.

    Parameters
    ----------
    owned : set of int
        Partitions of the worker, of every stage; whoever changes it calls `release` of all workers' logs at once.
    most_records : int
        Largest micro-batch.
    """

    def __init__(self, broker: MemoryBroker, group: str, faults: Faults, owned: set[int], most_records: int) -> None:
        super().__init__(broker, group)
        self._faults, self._owned, self._most_records = faults, owned, most_records

    def _assign(self) -> None:
        if self._assignment is not None:
            for partition in sorted(self._owned - {partition for _, partition in self._positions}):
                self._recover(partition)
            self.member = True

    def release(self) -> None:
        """Hand back the partitions that another worker owns now."""
        leaving = sorted({partition for _, partition in self._positions} - self._owned)
        if leaving and self._assignment is not None:
            self._assignment.revoked(leaving)
            self._positions = {place: at for place, at in self._positions.items() if place[1] in self._owned}

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """See `StageLog.poll`."""
        return super().poll(min(max_records, self._most_records), timeout_s)

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """See `StageLog.commit`."""
        fault = self._faults.next()
        if fault == "killed before":
            raise Crash
        self._faults.rebalance_due |= fault in {"rebalanced", "rebalanced amid"}
        if fault == "rebalanced amid":
            raise Rebalanced("the group has a newer generation")
        super().commit(next_offsets)
        if fault == "killed after":
            raise Crash


def crash(loop: StageLoop, written: bool = True) -> None:
    """End a stage loop as kill -9 would: no close, no last checkpoint.

    Parameters
    ----------
    written : bool
        Whether the transaction that was being written is committed.
    """
    loop._transactions._thread.shutdown(cancel_futures=not written)
