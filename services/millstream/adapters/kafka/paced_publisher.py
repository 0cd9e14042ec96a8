"""Publishes batches to topics, each row at its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.producer import Client, Deliveries, publish
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.pacing import FLAT_OUT, Pace, due_s
from millstream.core.text import as_text

_LONGEST_SLEEP_S, _SHORTEST_SLEEP_S = 0.1, 0.0005
_SLICE = 2_000


class PacedPublisher:
    """Publishes batches at a pace that all of its topics share.

    Parameters
    ----------
    client : Client
        Kafka producer.
    pace : Pace
        How fast.
    tick : callable
        Called after each slice and while waiting, for a progress bar.
    clock_s, sleep_s : callable
        Time, for tests to replace.
    kafka : mapping, optional
        The project's cluster, whose names topics get.
    """

    def __init__(
        self,
        client: Client,
        pace: Pace = FLAT_OUT,
        tick: Callable[[], None] = lambda: None,
        clock_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
        kafka: Mapping[str, str] | None = None,
    ) -> None:
        self.deliveries = Deliveries()
        self._client = client
        self._pace = pace
        self._tick = tick
        self._clock_s = clock_s
        self._sleep_s = sleep_s
        self._started_s: float | None = None
        self._origin_ms = 0
        self._kafka = kafka or {}

    def send(
        self, topic: str, contract: Contract, writer: RecordWriter, batch: Batch, times: str, tags: Sequence[int]
    ) -> None:
        """Encode and publish a batch, waiting until each row is due.

        Parameters
        ----------
        topic : str
            Where to.
        contract, writer : Contract, RecordWriter
            What keys a record, and how it is written.
        batch : Batch of length n
            The rows, without ones that cannot be encoded.
        times : str
            Column with each row's event time, milliseconds since the epoch.
        tags : sequence of int of length n
            Name the rows in ``deliveries``.
        """
        if batch.length == 0:
            return
        event_time_ms = batch.columns[times]
        if self._started_s is None:
            self._started_s, self._origin_ms = self._clock_s(), int(event_time_ms[0])
        due = due_s(self._pace, self.deliveries.sent, event_time_ms, self._origin_ms)
        name = named(self._kafka, topic)
        keys, values = as_text(batch.columns[contract.key]), writer.encode(batch)
        at = 0
        while at < batch.length:
            now_s = self._clock_s() - self._started_s
            end = min(int(np.searchsorted(due, now_s, side="right")), at + _SLICE)
            if end > at:
                publish(self._client, name, keys[at:end], values[at:end], deliveries=self.deliveries, tags=tags[at:end])
                at = end
            else:
                self._client.poll(0)
                self._sleep_s(min(_LONGEST_SLEEP_S, max(_SHORTEST_SLEEP_S, float(due[at]) - now_s)))
            self._tick()
