"""The demo's producer: payments at a steady rate, and each one's label when event time is about seven days further."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.app.assembly import Assembly
from millstream.cli.demo.history import LABEL_DELAY_MS, Past
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.pacing import Pace
from millstream.core.text import as_text
from millstream.topology import LABELS

_CHUNK = 200
_LEAD_MS = 24 * 3_600_000
"""Labels are published so long before they become known, with that time: features count them from then on. Days
pass within seconds here, so that the half second that a label takes to become a feature would be hours."""


def first_unlabelled(times_ms: NDArray[np.int64], live_row: int, next_row: int) -> int:
    """Return the first live row whose label was not published yet when the event before ``next_row`` happened.

    Examples
    --------
    >>> day = 86_400_000
    >>> first_unlabelled(np.array([0, 1, 2, 7, 8, 10]) * day, 1, 5)
    3
    >>> first_unlabelled(np.array([0, 1, 2, 3]) * day, 1, 1)
    1
    """
    now_ms = int(times_ms[next_row - 1]) if next_row else 0
    return max(live_row, int(np.searchsorted(times_ms, now_ms + _LEAD_MS - LABEL_DELAY_MS, side="right")))


class Feed(threading.Thread):
    """Publishes rows of the stream, and labels as they become known.

    Parameters
    ----------
    rate, rows : int
        Payments per second, and how many.
    hold : callable
        Whether to wait for the stages.

    Attributes
    ----------
    next_row : int
        First row that is not published yet.
    labels : int
        Labels published, by earlier runs as well.
    failure : Exception or None
        What ended it before its time.
    held_s : float
        How long it has waited for the stages, in seconds.
    """

    def __init__(
        self,
        assembly: Assembly,
        endpoints: Endpoints,
        past: Past,
        first_row: int,
        rate: int,
        rows: int,
        hold: Callable[[], bool],
    ) -> None:
        super().__init__(name="producer", daemon=True)
        self._assembly = assembly
        self._client = open_producer(endpoints.kafka, paced=True)
        self._labels_topic = named(endpoints.kafka, LABELS)
        self._past = past
        self._first_row = first_row
        self._rows = rows
        self._hold = hold
        self.held_s = 0.0
        self._times_ms = past.stream[assembly.contract.event_time].to_numpy()
        self._unlabelled = first_unlabelled(self._times_ms, past.live_row, first_row)
        self._labels = Deliveries()
        self._label_writer = RecordWriter(assembly.contracts[LABELS].schema)
        self.publisher = PacedPublisher(self._client, Pace("rate", float(rate)), kafka=endpoints.kafka)
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.next_row = first_row

    @property
    def labels(self) -> int:
        """Labels published so far, those of earlier runs included."""
        return self._unlabelled - self._past.live_row

    def run(self) -> None:
        """Publish until the end or until `stopping` is set."""
        contract = self._assembly.contract
        writer = RecordWriter(contract.schema)
        names = [field.name for field in contract.schema.fields]
        at = self._first_row
        try:
            for chunk in self._past.stream.slice(at, self._rows).select(names).iter_slices(_CHUNK):
                self._wait()
                if self.stopping.is_set():
                    break
                batch = Batch(chunk.height, {name: chunk[name].to_numpy() for name in names})
                tags = list(range(at, at + chunk.height))
                self.publisher.send(
                    self._assembly.declaration.topic, contract, writer, batch, contract.event_time, tags
                )
                at += chunk.height
                self.next_row = at
                self._publish_labels(first_unlabelled(self._times_ms, self._past.live_row, at))
            drain(self._client, self.publisher.deliveries)
            drain(self._client, self._labels)
        except Exception as error:  # noqa: BLE001 shown by the screen, which then ends the demo
            self.failure = error

    def _wait(self) -> None:
        """Wait while stages cannot keep up: half a second of lag is hours of event time here."""
        started_s = time.monotonic()
        while self._hold() and not self.stopping.is_set():
            self.stopping.wait(0.02)
        self.held_s += time.monotonic() - started_s

    def _publish_labels(self, until: int) -> None:
        """Publish the labels of rows up to ``until``."""
        rows = slice(self._unlabelled, until)
        count = until - self._unlabelled
        if not count:
            return
        contract = self._assembly.contract
        keys = as_text(self._past.stream[contract.event_id][rows].to_numpy())
        batch = Batch(
            count,
            {
                "event_id": np.array([key.decode() for key in keys], dtype=object),
                "label": self._past.stream["is_fraud"][rows].to_numpy().astype(np.float64),
                "known_at_ms": self._times_ms[rows] + LABEL_DELAY_MS,
                "source": np.full(count, "cardholder", dtype=object),
                "kind": np.full(count, "new", dtype=object),
            },
        )
        values = self._label_writer.encode(batch)
        publish(self._client, self._labels_topic, keys, values, deliveries=self._labels, tags=range(rows.start, until))
        self._unlabelled = until
