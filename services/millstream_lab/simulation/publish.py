"""A simulated stream to Kafka: transactions as they happen, labels as they become known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from millstream.adapters.files.contracts import load_contract
from millstream.adapters.kafka.topic_names import plain_name
from millstream.app.publishing import kafka_with, writer_for
from millstream.cli.publishing import publisher_with_bar
from millstream.core.simulation.simulate import labels_of

if TYPE_CHECKING:
    from millstream.core.batch import Batch
    from millstream.core.pacing import Pace
    from millstream.settings import Settings

_SLICE_MS = 3_600_000


def publish_simulation(
    settings: Settings, console: Console, stream: Batch, topic: str | None, labels_topic: str | None, pace: Pace
) -> dict[str, object]:
    """Publish transactions, labels or both, an hour of event time at a time; return what was acknowledged.

    Raises
    ------
    Misconfigured
        A topic or its contract is not there.
    Retry, Stop
        Kafka did not take everything.
    """
    sources = [(topic, stream), (labels_topic, labels_of(stream))]
    given = [(plain_name(settings, name), batch) for name, batch in sources if name is not None]
    flows = [(name, load_contract(settings, name), batch) for name, batch in given]
    writers = {name: writer_for(settings, name, contract) for name, contract, _ in flows}
    kafka = kafka_with(settings, list(writers))
    total = sum(batch.length for _, _, batch in flows)
    sent = 0
    with publisher_with_bar(console, kafka, pace, total, "publishing") as publisher:
        times = [batch.columns[contract.event_time] for _, contract, batch in flows]
        for first_ms in range(*_span(times), _SLICE_MS):
            for (name, contract, batch), at_ms in zip(flows, times, strict=True):
                start, end = np.searchsorted(at_ms, (first_ms, first_ms + _SLICE_MS)).tolist()
                part = batch.take(np.arange(start, end))
                publisher.send(
                    name, contract, writers[name], part, contract.event_time, range(sent, sent + part.length)
                )
                sent += part.length
    console.print(f"{publisher.deliveries.acked:,} records acknowledged on {', '.join(writers)}")
    return {"acked": publisher.deliveries.acked}


def _span(times: list[NDArray[np.int64]]) -> tuple[int, int]:
    """Return the event times that all flows lie between, the end exclusive."""
    if not len(times[0]):
        return 0, 0
    return min(int(each[0]) for each in times), max(int(each[-1]) for each in times) + 1
