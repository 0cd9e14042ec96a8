"""Where a worker's time goes: what its own metrics say of each phase, per event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream_lab.bench.plan import number
from millstream_lab.tables import Table

PHASES = {
    "validate": "decode and validate",
    "featurize": "windows",
    "score": "score",
    "encode": "encode",
    "send": "produce",
    "commit": "send offsets, commit",
    "checkpoint": "checkpoints",
}
REST = "polling, waiting, handing over"
METHOD = (
    "Where the time goes: wall time of each phase of the micro-batches of the backlog, by the workers' own metrics. "
    "Behind a backlog the commit, which is mostly the broker's answer, is waited for by a thread of its own, while the "
    "next micro-batch is processed; what is left is polling, and waiting for a core, the lock or a commit."
)


def phases(scraped: Mapping[str, float], events_per_s: float) -> dict[str, float]:
    """Return microseconds an event by phase, and ``rest``, of a worker that has worked off nothing but a backlog.

    Parameters
    ----------
    scraped : mapping of str to float
        The worker's metrics; see `millstream_lab.bench.scrape.metrics`.
    events_per_s : float
        How fast the backlog went, above 0; gives ``rest``.

    Examples
    --------
    >>> scraped = {"millstream_events_total": 1e6, "millstream_batch_seconds_sum:score": 2.0}
    >>> {name: us for name, us in phases(scraped, 100_000).items() if us}
    {'score': 2.0, 'rest': 8.0}
    """
    events = scraped["millstream_events_total"]
    spent_s = {name: scraped.get(f"millstream_batch_seconds_sum:{name}", 0.0) for name in PHASES}
    spent_s["checkpoint"] = scraped.get("millstream_checkpoint_seconds_sum", 0.0)
    found = {name: spent * 1e6 / events for name, spent in spent_s.items()}
    return {**found, "rest": max(0.0, 1e6 / events_per_s - sum(found.values()))}


def phase_table(workers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the phases of each worker as a table."""
    names = {**PHASES, "rest": REST}
    rows = [
        (title, *(number(each[name], 2) for each in workers.values()))
        for name, title in names.items()
        if any(each[name] for each in workers.values())
    ]
    return Table("Where the time goes, us per event", ("phase", *workers), rows)
