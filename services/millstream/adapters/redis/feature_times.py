"""Event timestamps of online rows, read as Feast reads features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from millstream.adapters.feast.codec import ViewCodec
from millstream.core.batch import Array
from millstream.core.declaration import View

logger = logging.getLogger(__name__)

_READ_S = 0.25


class FeatureTimes:
    """`millstream.stages.monitor.freshness.ReadTimes` on Redis; `close` it after use.

    Parameters
    ----------
    redis_url, project : str
    views : sequence of View
    """

    def __init__(self, redis_url: str, project: str, views: Sequence[View]) -> None:
        self._codecs = {view.name: ViewCodec(project, view) for view in views}
        self._client = redis.Redis.from_url(redis_url, socket_timeout=_READ_S, socket_connect_timeout=_READ_S)
        self._away = False

    def __call__(self, view: str, keys: Array) -> Sequence[int | None]:
        """Return the feature time of each row; None for all while the store cannot be reached."""
        codec = self._codecs[view]
        pipeline = self._client.pipeline(transaction=False)
        for key in codec.keys(keys):
            pipeline.hget(key, codec.time_field)  # type: ignore[arg-type] # redis takes bytes
        try:
            stored = pipeline.execute()
        except redis.RedisError as error:
            if not self._away:
                logger.warning("how fresh online features are cannot be read: %s", error)
            self._away = True
            return [None] * len(keys)
        self._away = False
        return [None if each is None else _microseconds(each) for each in stored]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _microseconds(stored: Any) -> int:
    from google.protobuf.timestamp_pb2 import Timestamp

    return int(Timestamp.FromString(stored).ToMicroseconds())
