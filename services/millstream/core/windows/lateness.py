"""Lateness: which events come too late to be counted. Decided at the first stage only; later stages accept all.

An event is late if it is older than the watermark (the stream time minus lateness and longest window, see `clock`) or
older than its key's newest event by more than the lateness. Featurize rejects it with the reason ``late``; validate
does not compare event times with each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused
from millstream.core.windows.plan import Plan
from millstream.core.windows.state import TIME_LIMIT_MS, WATERMARK_MS


@fused
def late_by_stream(counters: NDArray[np.int64], plan: Plan, time_ms: int) -> bool:
    """Return whether an event time is before the partition's watermark, or beyond what can be computed with."""
    late = time_ms < counters[WATERMARK_MS] and not plan.later
    return bool(late or time_ms < -TIME_LIMIT_MS or time_ms > TIME_LIMIT_MS)


@fused
def late_by_key(plan: Plan, time_ms: int, newest_ms: int) -> bool:
    """Return whether an event time is before its key's newest by more than the lateness."""
    return bool(time_ms < newest_ms - plan.lateness_ms and not plan.later)
