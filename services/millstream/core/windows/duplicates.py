"""Duplicates: which event ids a partition still knows, and how far back.

The *duplicate horizon* is the watermark minus the longest window. An event whose id is that of an entry from there on
is a duplicate; ids of older entries may be dropped with the entries, so they count as unknown whether they were or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused
from millstream.core.windows.id_table import find
from millstream.core.windows.plan import Plan
from millstream.core.windows.state import WATERMARK_MS, State


@fused
def duplicate_horizon_ms(counters: NDArray[np.int64], plan: Plan) -> int:
    """Return the event time, in milliseconds since the epoch, from which on event ids are compared."""
    return int(counters[WATERMARK_MS] - plan.longest_ms)


@fused
def is_duplicate(state: State, plan: Plan, event_id: int) -> bool:
    """Return whether an entry from the duplicate horizon on has this event id, whatever its key."""
    place = find(state.ids, event_id)
    return bool(place >= 0 and state.ids[place, 1] >= duplicate_horizon_ms(state.counters, plan))
