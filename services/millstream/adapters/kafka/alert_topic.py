"""Alerts and what people did about them, read from and written to their topics."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Message

from millstream.adapters.kafka.client import PASSING, client_logger, raise_for, read_committed
from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer
from millstream.adapters.kafka.producer import publish as queue
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch
from millstream.core.drift.actions import Action
from millstream.errors import Retry
from millstream.topology import ALERT_ACTIONS, ALERTS

_MOST_BYTES = 16_777_216


class AlertTopic:
    """The alerts of a Kafka cluster.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    alerts, actions : RecordReader
        Of the two topics.
    actions_schema : Schema
    """

    def __init__(
        self, kafka: Mapping[str, str], alerts: RecordReader, actions: RecordReader, actions_schema: Schema
    ) -> None:
        self._kafka = kafka
        self._alerts = alerts
        self._actions = actions
        self._writer = RecordWriter(actions_schema)

    def history(self) -> list[dict[str, Any]]:
        """Return every retained alert, in order: of the last 30 days all, of earlier ones each incident's newest."""
        messages = [each for part in read_committed(self._kafka, ALERTS, 0, 0, None) for each in part]
        return _rows(self._alerts, messages)

    def standing(self) -> list[dict[str, Any]]:
        """Return the newest alert of each incident, in order of opening."""
        newest = {row["id"]: row for row in self.history()}
        return sorted(newest.values(), key=lambda row: (row["opened_at_ms"], row["id"]))

    def actions(self) -> list[Action]:
        """Return what people did and did not take back."""
        held: dict[bytes | None, Message] = {}
        for messages in read_committed(self._kafka, ALERT_ACTIONS, 0, 0, None):
            for message in messages:
                held[message.key()] = message
        return [Action(**row) for row in _rows(self._actions, [each for each in held.values() if each.value()])]

    def act(self, action: Action) -> None:
        """Publish an action.

        Raises
        ------
        Retry
            Kafka did not acknowledge it.
        """
        row = asdict(action)
        columns = {name: np.array([value]) for name, value in row.items() if isinstance(value, int)}
        texts = {name: np.array([value], dtype=object) for name, value in row.items() if isinstance(value, str)}
        self._publish(action.id, self._writer.encode(Batch(1, {**columns, **texts}))[0])

    def take_back(self, action_id: str) -> None:
        """Delete an action; raises as `act` does."""
        self._publish(action_id, None)

    def _publish(self, key: str, value: bytes | None) -> None:
        producer, deliveries = open_producer(self._kafka), Deliveries()
        queue(producer, named(self._kafka, ALERT_ACTIONS), [key.encode()], [value], deliveries=deliveries, tags=[0])
        drain(producer, deliveries)
        if deliveries.failed:
            raise Retry(f"{ALERT_ACTIONS} was not written: {deliveries.failed[0][1]}")

    def follow(self, group: str | None, from_start: bool = False) -> Generator[dict[str, Any] | None, None, None]:
        """Yield alerts as they come, and None when there is none for half a second.

        Parameters
        ----------
        group : str or None
            Consumer group that remembers how far it came: what was yielded is committed when the next is asked for, so
            that none is lost and the last may come twice. None: from now on, nothing is remembered.
        from_start : bool
            Where a group that remembers nothing begins.
        """
        consumer = Consumer(
            {
                **self._kafka,
                "group.id": group or "millstream.alerts",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest" if from_start else "latest",
                "isolation.level": "read_committed",
                "logger": client_logger,
            }
        )
        consumer.subscribe([named(self._kafka, ALERTS)])
        try:
            while True:
                message = consumer.poll(0.5)
                if message is None:
                    yield None
                    continue
                error = message.error()
                if error is not None:
                    if error.code() not in PASSING:
                        raise_for(error, f"reading {ALERTS}")
                    continue
                yield from _rows(self._alerts, [message])
                if group is not None:
                    consumer.commit(message=message, asynchronous=False)
        finally:
            consumer.close()


def _rows(reader: RecordReader, messages: list[Message]) -> list[dict[str, Any]]:
    batch = reader.decode([each.value() for each in messages], _MOST_BYTES).batch
    columns = {
        name: [
            None if null else value for value, null in zip(column.tolist(), batch.is_null(name).tolist(), strict=True)
        ]
        for name, column in batch.columns.items()
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(batch.length)]
