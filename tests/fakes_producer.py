"""A producer client that keeps its records in memory, with a queue that fills and a broker that may refuse."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError


class FakeProducer:
    """Acknowledges queued records when polled; ``room`` is the queue's size, ``refused`` the values that fail."""

    def __init__(self, room: int = 1000, refused: frozenset[bytes] = frozenset(), reachable: bool = True) -> None:
        self.records: list[tuple[str, bytes | None, bytes | None, int]] = []
        self.reachable = reachable
        self._room = room
        self._refused = refused
        self._queue: list[tuple[tuple[str, bytes | None, bytes | None, int], Callable[..., None]]] = []

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        *,
        on_delivery: Callable[[KafkaError | None, Any], None],
        timestamp: int,
    ) -> None:
        if len(self._queue) >= self._room:
            raise BufferError
        self._queue.append(((topic, key, value, timestamp), on_delivery))

    def poll(self, timeout: float) -> int:
        if not self.reachable:
            return 0
        served, self._queue = self._queue, []
        for record, report in served:
            if record[2] in self._refused:
                report(KafkaError(KafkaError._MSG_TIMED_OUT), None)
            else:
                self.records.append(record)
                report(None, None)
        return len(served)

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self._queue)
