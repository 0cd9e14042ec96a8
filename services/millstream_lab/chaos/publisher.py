"""Publishes the stream at a steady rate until stopped; every record is acknowledged before it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.errors import MillstreamError
from millstream_lab.chaos.stream import ChaosStream

_CHUNK = 50


class Publisher:
    """A thread that publishes.

    Parameters
    ----------
    rate : int
        Sound events a second.

    Attributes
    ----------
    sent_at_s : dict of int to float
        When each event was first published, seconds since the epoch, by event id.
    failure : MillstreamError or None
        What ended it early.
    """

    def __init__(self, kafka: Mapping[str, str], topic: str, stream: ChaosStream, rate: int) -> None:
        # However long the broker is away, what was published once is written once.
        self._producer = open_producer({**kafka, "delivery.timeout.ms": "900000", "log_level": "0"}, paced=True)
        self._topic = topic
        self._stream = stream
        self._rate = rate
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")
        self.deliveries = Deliveries()
        self.sent_at_s: dict[int, float] = {}
        self.sound = 0
        self.failure: MillstreamError | None = None

    def start(self) -> None:
        """Start publishing."""
        self._thread.start()

    def finish(self) -> None:
        """Stop and wait until all is acknowledged.

        Raises
        ------
        MillstreamError
            Publishing failed.
        """
        self._ending.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        started_s = time.monotonic()
        try:
            while not self._ending.is_set():
                messages = self._stream.take(_CHUNK)
                now_s = time.time()
                for each in messages:
                    if each.kind == "sound":
                        self.sent_at_s[each.number] = now_s
                first = self.deliveries.next_tag
                publish(
                    self._producer,
                    self._topic,
                    [each.key for each in messages],
                    [each.value for each in messages],
                    deliveries=self.deliveries,
                    tags=range(first, first + len(messages)),
                )
                self.sound += _CHUNK
                self._ending.wait(max(0.0, started_s + self.sound / self._rate - time.monotonic()))
            drain(self._producer, self.deliveries, 300)
        except MillstreamError as error:
            self.failure = error
