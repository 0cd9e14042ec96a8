"""Topic ids (KIP-516): which log the offsets of a topic belong to."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.client import client_logger, raise_for, result_of
from millstream.adapters.kafka.cluster import inside, named
from millstream.errors import Retry

logger = logging.getLogger(__name__)

_NO_ID: Final = "0" * 32
_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 4.0
_QUICK_S: Final = 2.0


class PresentTopics:
    """Asks the broker for topic ids, at most every few seconds however many stages ask.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    """

    def __init__(self, kafka: Mapping[str, str]) -> None:
        self._kafka = kafka
        self._admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
        self._found: dict[str, str] = {}
        self._asked_at_s = float("-inf")

    def __call__(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of those topics that exist and have one; what was found last where the broker is away."""
        if time.monotonic() - self._asked_at_s >= _LOOK_S:
            try:
                self.ask(topics, _QUICK_S)
            except Retry as error:
                logger.debug("%s", error)  # the broker is away, which is reported elsewhere
                self._asked_at_s = time.monotonic()
        return self._found

    def ask(self, topics: Iterable[str], timeout_s: float = _TIMEOUT_S) -> Mapping[str, str]:
        """Return the ids of those topics that exist and have one, as of now.

        Raises
        ------
        Retry, Stop
            The broker does not say.
        """
        names = sorted(topics)
        found = topic_ids(self._admin, [named(self._kafka, name) for name in names], timeout_s) if names else {}
        self._found = {inside(self._kafka, name): topic_id for name, topic_id in found.items()}
        self._asked_at_s = time.monotonic()
        return self._found


def topic_ids(admin: AdminClient, names: Sequence[str], timeout_s: float = _TIMEOUT_S) -> dict[str, str]:
    """Return the ids of those of the topics that exist, hexadecimal; brokers before Kafka 2.8 have none.

    Raises
    ------
    Retry, Stop
        The broker does not say.
    """
    found = {}
    for name, future in admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s).items():
        try:
            described = result_of(future, timeout_s)
        except KafkaException as failure:
            if failure.args[0].code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}:
                continue
            raise_for(failure.args[0], f"asking for the id of {name}")
        halves = described.topic_id.get_most_significant_bits(), described.topic_id.get_least_significant_bits()
        found[name] = "".join(f"{half % 2**64:016x}" for half in halves)
    return {name: topic_id for name, topic_id in found.items() if topic_id != _NO_ID}
