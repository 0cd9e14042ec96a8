"""When a figure of a day is final: every label that counts at its maturity has had time to arrive."""

from __future__ import annotations

from typing import NamedTuple

from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Series


class Slot(NamedTuple):
    """What figures are about, besides the day.

    Parameters
    ----------
    series : Series
    maturity_days : int
        Labels known so long after their events, or sooner, count.
    group : str
        ``column=value``; "" for everybody.
    """

    series: Series
    maturity_days: int
    group: str


def mature(slot: Slot, day: int, as_of_ms: int) -> bool:
    """Return whether every label that counts has had time to arrive."""
    return as_of_ms >= (day + 1 + slot.maturity_days) * DAY_MS


def pooled(slot: Slot, day: int, as_of_ms: int) -> bool:
    """Return whether a day is part of all days together."""
    waits_days = slot.maturity_days if slot.series.protocol == "delayed" else 0
    return as_of_ms >= (day + 1 + waits_days) * DAY_MS
