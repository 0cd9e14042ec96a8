"""Monitors of all traffic, independent of the model: shares of bad input and service levels against declared limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from millstream.core.drift.alert import Evidence, Kind, Signal
from millstream.core.drift.declared import Limits
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.slot_summary import LATENCY_EDGES_MS, Tally

KEPT_SLOTS: Final = 6
"""Shares are of so many slots; older tallies need not be kept."""

_LEAST_EVENTS: Final = 200


def traffic_signals(tallies: Mapping[int, Tally], slot: int, slot_ms: int, limits: Limits) -> Iterator[Signal]:
    """Yield the signals at the end of a slot.

    Parameters
    ----------
    tallies : mapping of slot to Tally
        Of all partitions together.
    """
    recent = Tally()
    for each in range(slot - KEPT_SLOTS + 1, slot + 1):
        recent.add(tallies.get(each, Tally()))
    arrived = recent.events + recent.dead + recent.late + recent.duplicates
    counted = (
        ("dead letters", recent.dead, limits.dead_letter_share),
        ("late events", recent.late, limits.late_share),
        ("duplicates", recent.duplicates, limits.duplicate_share),
    )
    hours = KEPT_SLOTS * slot_ms / HOUR_MS
    for what, count, limit in counted:
        if limit is not None and arrived >= _LEAST_EVENTS:
            monitor = f"share over {hours:g} h"
            yield _signal("quality", what, monitor, count / arrived, limit, slot, slot_ms, KEPT_SLOTS)
    now = tallies.get(slot, Tally())
    for what, monitor, statistic, limit in _operations(now, slot_ms, limits):
        yield _signal("operations", what, monitor, statistic, limit, slot, slot_ms, 1)


def _operations(now: Tally, slot_ms: int, limits: Limits) -> Iterator[tuple[str, str, float, float]]:
    """Yield (subject, monitor, statistic, limit) of each declared service level."""
    if limits.latency_p99_ms is not None and sum(now.latencies) >= _LEAST_EVENTS:
        yield "latency", "p99 in ms over 1 h", quantile_ms(now.latencies, 0.99), float(limits.latency_p99_ms)
    if limits.freshness_ms is not None:
        yield "freshness", "online features behind, in ms", float(now.behind_ms), float(limits.freshness_ms)
    if limits.events_per_hour is not None:
        lacking = limits.events_per_hour * slot_ms / HOUR_MS / max(now.events, 0.5)
        yield "throughput", "events wanted per event over 1 h", lacking, 1.0


def quantile_ms(latencies: list[int], share: float) -> float:
    """Return an upper bound of the quantile; infinite beyond the last edge.

    Examples
    --------
    >>> quantile_ms([99, 1] + [0] * 36, 0.99)
    4.0
    """
    wanted, seen = share * sum(latencies), 0
    for count, edge in zip(latencies, (*LATENCY_EDGES_MS, math.inf), strict=True):
        seen += count
        if seen >= wanted:
            return float(edge)
    return math.inf


def _signal(
    kind: Kind, what: str, monitor: str, statistic: float, limit: float, slot: int, slot_ms: int, slots: int
) -> Signal:
    evidence = Evidence((slot - slots + 1) * slot_ms, (slot + 1) * slot_ms)
    return Signal(
        kind, "", 0, what, "", monitor, statistic, limit, evidence, "declared limit", 1.0, min(1.0, statistic)
    )
