"""Which windows are watched, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.drift.distance import DISTANCES
from services.core.drift.law import SCALES, Scale
from services.core.drift.seasons import HOUR_MS


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
        Keys of `services.core.drift.distance.DISTANCES`.
    least_events : int
        A window of fewer events says nothing.
    """

    slot_ms: int = HOUR_MS
    windows_ms: tuple[int, ...] = (6 * HOUR_MS, 24 * HOUR_MS, 168 * HOUR_MS)
    distances: tuple[str, ...] = ("psi", "ks")
    least_events: int = 200

    def __post_init__(self) -> None:
        if self.slot_ms < 1 or HOUR_MS % self.slot_ms:
            raise ValueError(f"slot_ms must divide an hour ({HOUR_MS}), not be {self.slot_ms}")
        if not self.windows_ms or any(each < self.slot_ms or each % self.slot_ms for each in self.windows_ms):
            raise ValueError(f"windows_ms must be multiples of slot_ms ({self.slot_ms}), not {self.windows_ms}")
        unknown = sorted(set(self.distances) - set(DISTANCES))
        if unknown or not self.distances:
            raise ValueError(f"distances must be of {', '.join(DISTANCES)}, not {self.distances}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the windows in slots."""
        return tuple(each // self.slot_ms for each in self.windows_ms)

    @property
    def scales(self) -> list[Scale]:
        """How each distance scales."""
        return [SCALES[each] for each in self.distances]

    def monitors(self, columns: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return (column, distance, window in milliseconds) of every monitor, in the order of their statistics."""
        return [(c, d, w) for w in self.windows_ms for d in self.distances for c in columns]
