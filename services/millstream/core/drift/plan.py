"""The windows and statistics that are monitored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from millstream.core.drift.distance import DISTANCES
from millstream.core.drift.null_distribution import SCALES, Scale
from millstream.core.drift.seasons import HOUR_MS


@dataclass(frozen=True, slots=True)
class Plan:
    """Which windows are watched, and how.

    Parameters
    ----------
    slot_ms : int
        Windows end every so often; divides an hour.
    windows_ms : tuple of int
        Lengths, multiples of ``slot_ms``. A short one reports a great shift soon, a long one a small shift at all.
    distances : tuple of str
        Keys of `millstream.core.drift.distance.DISTANCES`.
    least_events : int
        A window of fewer events is not evaluated.
    floors : tuple of float
        Of each distance, in place of those of `millstream.core.drift.null_distribution.SCALES`; empty: those.
    """

    slot_ms: int = HOUR_MS
    windows_ms: tuple[int, ...] = (6 * HOUR_MS, 24 * HOUR_MS, 168 * HOUR_MS)
    distances: tuple[str, ...] = ("psi", "ks")
    least_events: int = 200
    floors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.slot_ms < 1 or HOUR_MS % self.slot_ms:
            raise ValueError(f"slot_ms must divide an hour ({HOUR_MS}), not be {self.slot_ms}")
        if not self.windows_ms or any(each < self.slot_ms or each % self.slot_ms for each in self.windows_ms):
            raise ValueError(f"windows_ms must be multiples of slot_ms ({self.slot_ms}), not {self.windows_ms}")
        unknown = sorted(set(self.distances) - set(DISTANCES))
        if unknown or not self.distances:
            raise ValueError(f"distances must be of {', '.join(DISTANCES)}, not {self.distances}")
        if self.floors and len(self.floors) != len(self.distances):
            raise ValueError(f"floors must be one for each of {self.distances}, not {self.floors}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the windows in slots."""
        return tuple(each // self.slot_ms for each in self.windows_ms)

    @property
    def scales(self) -> list[Scale]:
        """How each distance scales."""
        own = [SCALES[each] for each in self.distances]
        floors = self.floors or [each.floor for each in own]
        return [each._replace(floor=floor) for each, floor in zip(own, floors, strict=True)]

    def within(self, events: int, days: float) -> Plan | None:
        """Return this plan with the windows that so many events in so many days are enough to calibrate.

        Those have twice the least events, and fit into the whole days twice. None if no window does.
        """
        per_ms, longest_ms = events / max(days * 24 * HOUR_MS, 1.0), int(days) * 12 * HOUR_MS
        kept = tuple(each for each in self.windows_ms if per_ms * each >= 2 * self.least_events and each <= longest_ms)
        return replace(self, windows_ms=kept) if kept else None

    def monitors(self, columns: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return (column, distance, window in milliseconds) of every monitor, in the order of their statistics."""
        return [(c, d, w) for w in self.windows_ms for d in self.distances for c in columns]
