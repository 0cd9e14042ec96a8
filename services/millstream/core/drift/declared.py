"""The monitors that a team declares, and their defaults."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

from millstream.core.drift.budget import Budget
from millstream.core.drift.seasons import HOUR_MS

WINDOWED_SHARE: Final = 0.45
"""Of the budget, for distributions of what the champion is given and answers."""
CONCEPT_SHARE: Final = 0.5
"""Of the budget, for what scores mean."""
ONLINE_SHARE: Final = 0.05
"""Of the budget, for the distribution of the online model's scores."""
LONGEST_WINDOW_MS: Final = 35 * 24 * HOUR_MS
"""Thresholds need a history of twice the longest window; and what a window spans is kept in memory, hour by hour."""

_DAYS: Final = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.4375, "quarter": 91.3125, "year": 365.25}
_SPAN_MS: Final = {"s": 1000, "m": 60_000, "h": HOUR_MS, "d": 24 * HOUR_MS}


@dataclass(frozen=True, slots=True)
class Limits:
    """Fixed limits, of quantities without a reference; None: not monitored.

    Parameters
    ----------
    dead_letter_share, late_share, duplicate_share, null_share, unseen_share : float or None, in (0, 1]
        Shares of the events of six hours; nulls and unseen values beyond what the reference has.
    freshness_ms : int or None
        How long an online row may be missing after the event that made it was scored.
    label_delay_ms : int or None
        Median time from event to label, over a day.
    latency_p99_ms : int or None
        From an event's arrival in Kafka to its score, over an hour.
    events_per_hour : float or None
        Fewest events in an hour.
    """

    dead_letter_share: float | None = 0.01
    late_share: float | None = 0.05
    duplicate_share: float | None = 0.05
    null_share: float | None = 0.05
    unseen_share: float | None = 0.05
    freshness_ms: int | None = 600_000
    label_delay_ms: int | None = None
    latency_p99_ms: int | None = None
    events_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Monitors:
    """What is watched, and how often it may be wrong.

    Parameters
    ----------
    budget : Budget
        False alarms of everything that is measured against a reference, for the whole model.
    windows_ms : tuple of int
        Lengths of the windows that are compared with the reference, multiples of an hour, each another.
    ignore : tuple of str
        Features that are not watched one by one.
    segment_by : str
        Everything is watched once more within each value of this feature, of the most frequent ones; "" for none.
    limits : Limits
    """

    budget: Budget = field(default_factory=Budget)
    windows_ms: tuple[int, ...] = (6 * HOUR_MS, 24 * HOUR_MS, 168 * HOUR_MS)
    ignore: tuple[str, ...] = ()
    segment_by: str = ""
    limits: Limits = field(default_factory=Limits)


def parse_budget(text: str) -> Budget:
    """Return the budget in words such as ``1 per week`` or ``2 per 30 days``.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> parse_budget("1 per week")
    Budget(alarms=1.0, days=7.0, quiet_slots=24)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) per (?:(\d+(?:\.\d+)?) )?([a-z]+?)s?", text.strip().lower())
    if (
        found is None
        or found[3] not in _DAYS
        or not 0 < float(found[1]) < math.inf
        or not 0 < float(found[2] or 1) < math.inf
    ):
        raise ValueError(f"{text!r} is no budget, such as '1 per week' or '2 per 30 days' ({', '.join(_DAYS)})")
    return Budget(float(found[1]), float(found[2] or 1) * _DAYS[found[3]])


def parse_span_ms(text: str) -> int:
    """Return a length of time such as ``500ms``, ``30s``, ``6h`` or ``7d`` in milliseconds; ValueError if it is none.

    Examples
    --------
    >>> parse_span_ms("6h")
    21600000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd])", text.strip())
    span_ms = 0.0 if found is None else float(found[1]) * _SPAN_MS.get(found[2], 1)
    if not 1 <= span_ms < math.inf:
        raise ValueError(f"{text!r} is no length of time above 0, such as '500ms', '30s', '15m', '6h' or '7d'")
    return round(span_ms)
