"""Stream time and watermark of a partition, so that no single key decides them.

The *stream time* is the newest time that two keys have reached: the second largest of all keys' newest event times. One
key whose clock is ahead, by an hour or by years, moves it no further than the next key. It is a function of the set of
events, whatever their order.

The *watermark* is the time that no event accepted from now on lies before. At the first stage it follows from what is
late there: the stream time minus the horizon (lateness and longest window). At a later stage nothing is late. Its
events come from several upstream partitions, each of which may be behind the others for as long as the worker that
reads it is away; so the watermark is the least of their stream times minus the first stage's horizon. An upstream
partition that is further behind than `lag_ms`, or has no two keys, is not waited for: state is bounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import fused, inline
from millstream.core.windows.plan import Plan
from millstream.core.windows.state import (
    ALL,
    BASE,
    CLOCK,
    HEAD,
    LEADER,
    LEADER_MS,
    LENGTH,
    NO_TIME_MS,
    STREAM_MS,
    WATERMARK_MS,
    State,
)

CONFIRMING_EVENTS = 64
"""Retention of a key that is ahead of all others follows its clock once so many of its events are there."""


def new_clocks(upstream: int) -> NDArray[np.int64]:
    """Return the clocks of a partition without events."""
    clocks = np.zeros((1 + upstream, CLOCK), dtype=np.int64)
    clocks[:, [LEADER_MS, STREAM_MS]] = NO_TIME_MS
    return clocks


@fused
def advance(clocks: NDArray[np.int64], clock: int, key: int, t: int) -> None:
    """Advance a clock by an event of a key."""
    if key == clocks[clock, LEADER]:
        clocks[clock, LEADER_MS] = max(clocks[clock, LEADER_MS], t)
    elif t > clocks[clock, LEADER_MS]:
        clocks[clock, STREAM_MS] = clocks[clock, LEADER_MS]
        clocks[clock, LEADER_MS] = t
        clocks[clock, LEADER] = key
    else:
        clocks[clock, STREAM_MS] = max(clocks[clock, STREAM_MS], t)


@fused
def set_watermark(clocks: NDArray[np.int64], counters: NDArray[np.int64], plan: Plan) -> None:
    """Set the watermark that follows from the clocks."""
    stream_ms = clocks[ALL, STREAM_MS]
    if plan.later:
        if stream_ms == NO_TIME_MS:  # of one key only: there is no other clock to go by
            stream_ms = clocks[ALL, LEADER_MS]
            least_ms = stream_ms - plan.lag_ms
        else:
            least_ms = stream_ms if len(clocks) > 1 else NO_TIME_MS
            for clock in range(1, len(clocks)):
                least_ms = min(least_ms, clocks[clock, STREAM_MS])
        stream_ms = max(least_ms, stream_ms - plan.lag_ms)
    counters[WATERMARK_MS] = stream_ms - plan.horizon_ms


@fused
def advance_by(
    clocks: NDArray[np.int64], counters: NDArray[np.int64], plan: Plan, slot: int, t: int, partition: int, source: int
) -> None:
    """Advance clocks and watermark by an accepted event of a slot; a later stage names its source partition and key."""
    if plan.later:
        advance(clocks, ALL, source, t)
        if 0 <= partition < len(clocks) - 1:
            advance(clocks, partition + 1, source, t)
    else:
        advance(clocks, ALL, slot, t)
    set_watermark(clocks, counters, plan)


@fused
def reached_ms(clocks: NDArray[np.int64], counters: NDArray[np.int64], plan: Plan) -> int:
    """Return the time that decides what is kept of a key, unless the key is ahead; see `confirmed_ms`."""
    return int(counters[WATERMARK_MS] if plan.later else clocks[ALL, STREAM_MS])


@fused
def own_clock_lag(plan: Plan) -> int:
    """Return how far retention of a key stays behind the key's own clock where it follows that."""
    return plan.lag_ms + plan.horizon_ms if plan.later else 0


@inline
def confirmed_ms(state: State, slot: int) -> int:
    """Return how far a slot's own clock has come: to the time of the `CONFIRMING_EVENTS`-th newest of its entries.

    In a function of its own, for it is seldom needed: an entry that far back is not in the processor's cache.
    """
    length = state.narrow[slot, LENGTH]
    if length < CONFIRMING_EVENTS:
        return NO_TIME_MS
    return int(state.slab[state.wide[slot, BASE] + state.narrow[slot, HEAD] + length - CONFIRMING_EVENTS, 0])
