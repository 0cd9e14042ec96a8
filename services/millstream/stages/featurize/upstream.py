"""The source of a later stage's events, which decides how long it keeps them."""

from __future__ import annotations

from millstream.core.windows.store import Upstream, WindowStore
from millstream.topology import StagePlan, Topology


def upstream_of(topology: Topology, plan: StagePlan, partitions: int) -> Upstream | None:
    """Return where the events of a stage come from; None for the first stage.

    Parameters
    ----------
    partitions : int
        Of the event topic; 0 where it is not known.
    """
    first = topology.stages[0]
    if plan.first:
        return None
    horizon_ms = WindowStore(first.views).horizon_ms
    # Behind a second stage, events of one partition come by several ways, and not in their order.
    return Upstream(horizon_ms, partitions if plan.input == first.output else 0, lag_ms=horizon_ms)
