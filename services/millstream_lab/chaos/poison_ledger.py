"""Which events are late or duplicates, by the rules of the windows' manual, in plain Python and by partition."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

from millstream_lab.chaos.poison_oracle import Fault

ANSWERED: Final = Fault("answered")
DUPLICATE: Final = Fault("duplicate")
_TIME_LIMIT_MS: Final = 1 << 52


@dataclass
class _Partition:
    newest_of: dict[object, int] = field(default_factory=dict)
    times_of: dict[object, int] = field(default_factory=dict)

    @property
    def stream_time_ms(self) -> int:
        """Newest event time that two keys have reached."""
        return [*heapq.nlargest(2, self.newest_of.values()), -(1 << 60), -(1 << 60)][1]


class Ledger:
    """What the first stage's windows make of sound events, offered in the order of their offsets.

    Parameters
    ----------
    lateness_ms, longest_ms : int
        Allowed lateness and longest window.
    late : Fault
        The dead letter of a late event.
    """

    def __init__(self, lateness_ms: int, longest_ms: int, late: Fault) -> None:
        self._lateness_ms = lateness_ms
        self._horizon_ms = lateness_ms + longest_ms
        self._late = late
        self._partitions: dict[int, _Partition] = {}

    def offer(self, partition: int, key: object, event_id: object, time_ms: int) -> frozenset[Fault]:
        """Return what may become of an event: one outcome, or two where the manual leaves it open.

        An event older than the horizon is forgotten at some time after, so that its duplicate may be met as late, or
        as if it were the first.
        """
        state = self._partitions.setdefault(partition, _Partition())
        floor_ms = state.stream_time_ms - self._horizon_ms
        if time_ms < floor_ms or abs(time_ms) > _TIME_LIMIT_MS:
            return frozenset({self._late})
        too_old = time_ms < state.newest_of.get(key, -(1 << 60)) - self._lateness_ms
        known_ms = state.times_of.get(event_id)
        if known_ms is not None and known_ms > floor_ms:
            return frozenset({DUPLICATE})
        if too_old:
            return frozenset({self._late} if known_ms is None else {self._late, DUPLICATE})
        state.newest_of[key] = max(state.newest_of.get(key, time_ms), time_ms)
        state.times_of[event_id] = time_ms
        return frozenset({ANSWERED} if known_ms is None else {ANSWERED, DUPLICATE})
