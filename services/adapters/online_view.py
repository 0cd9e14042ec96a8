"""The `OnlineView` port on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import redis

from services.adapters.feast_codec import ViewCodec
from services.adapters.redis_cas import CAS
from services.errors import Retry
from services.ports import ViewRows

_TIMEOUT_S = 2.0
Fallback = Callable[[ViewRows], None]


class RedisOnlineView:
    """Writes rows in Feast's layout, one compare-and-set a row, a whole write in one round trip.

    Parameters
    ----------
    url : str
        redis:// or rediss:// URL.
    project : str
        Feast project; also names the epoch mark.
    codecs : mapping of str to ViewCodec
        By view name.
    fallbacks : mapping of str to callable
        Views whose codec failed its self-test are written by this instead.
    """

    def __init__(
        self, url: str, project: str, codecs: Mapping[str, ViewCodec], fallbacks: Mapping[str, Fallback] | None = None
    ) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, health_check_interval=30
        )
        self._codecs = codecs
        self._fallbacks = fallbacks or {}
        self._script = self._client.register_script(CAS)
        self._epoch_key = f"millstream:{project}:epoch"

    def write(self, rows: Sequence[ViewRows]) -> int:
        """See `OnlineView.write`."""
        try:
            for each in rows:
                if each.view in self._fallbacks:
                    self._fallbacks[each.view](each)
            return self._write([each for each in rows if each.view not in self._fallbacks])
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store refused rows: {type(error).__name__}: {error}") from error

    def _write(self, rows: Sequence[ViewRows]) -> int:
        pipe = self._client.pipeline(transaction=False)
        count = 0
        for each in rows:
            codec = self._codecs[each.view]
            for row in codec.encode(each):
                pipe.execute_command(
                    "EVALSHA",
                    self._script.sha,
                    1,
                    row.key,
                    codec.timestamp_field,
                    row.seconds,
                    row.nanos,
                    0,
                    *row.pairs,
                )
                count += 1
        if not count:
            return 0
        try:
            answers = pipe.execute()
        except redis.exceptions.NoScriptError:
            # A server that was restarted or flushed has forgotten the script. Rows are idempotent: write all again.
            self._client.script_load(CAS)
            return self._write(rows)
        return sum(cast("list[int]", answers))

    def epoch(self) -> str | None:
        """See `OnlineView.epoch`."""
        try:
            found = self._client.get(self._epoch_key)
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store cannot be reached: {error}") from error
        return None if found is None else cast("bytes", found).decode()

    def mark_epoch(self, epoch: str) -> None:
        """See `OnlineView.mark_epoch`."""
        try:
            self._client.set(self._epoch_key, epoch)
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store cannot be reached: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
