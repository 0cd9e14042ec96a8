"""Snapshots of the online model as scorers read them: the compacted ``snapshots`` topic, keyed by model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from confluent_kafka import Message

from millstream.adapters.kafka.key_follower import KeyFollower
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.models.river_pipelines import OnlineModel
from millstream.errors import Refused
from millstream.topology import SNAPSHOTS


def follow(
    kafka: Mapping[str, str],
    declared: OnlineModel,
    key: bytes,
    accepted: Callable[[OnlineScorer], None],
    refused: Callable[[str, str], None],
) -> KeyFollower[OnlineScorer]:
    """Return what hears of every snapshot, the present one first, checked and ready to answer; `close` it.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    declared : OnlineModel
        What a snapshot must be of.
    key : bytes
        That it must be signed with.
    accepted : callable (scorer)
        Told of each that will be served from the next micro-batch on.
    refused : callable (place, reason)
        Told of each that will not. Both are called in the follower's thread.
    """

    def read(message: Message) -> OnlineScorer | None:
        try:
            scorer = OnlineScorer.load(message.value() or b"", declared, key)
        except Refused as error:
            refused(f"{SNAPSHOTS}[0]@{message.offset()}", str(error))
            return None
        accepted(scorer)
        return scorer

    return KeyFollower(kafka, SNAPSHOTS, declared.name.encode(), read)
