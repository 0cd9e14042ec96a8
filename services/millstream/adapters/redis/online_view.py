"""The `OnlineView` port on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RetryPolicy

from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.redis.compare_and_set import SCRIPT
from millstream.core.batch import Array
from millstream.errors import Retry
from millstream.ports import ViewRows

_TIMEOUT_S = 2.0
Fallback = Callable[[ViewRows], int]


def mark_key(project: str) -> str:
    """Return the Redis key of the mark; once it is deleted, every running worker writes all its rows again."""
    return f"millstream:{project}:epoch"


class RedisOnlineView:
    """Writes rows in Feast's layout by compare-and-set, a whole write in one round trip.

    Not safe for use by several threads. A server that was restarted may have lost its last moment (an append-only file
    is synced once a second): its mark counts only while it is the same run of the server.

    Parameters
    ----------
    url : str
        redis:// or rediss:// URL.
    project : str
        Feast project; also names the mark.
    codecs : mapping of str to ViewCodec
        By view name.
    fallbacks : mapping of str to callable
        Views that are written by this instead (rows in, rows applied out), because their codec failed its self-test.
    """

    def __init__(
        self, url: str, project: str, codecs: Mapping[str, ViewCodec], fallbacks: Mapping[str, Fallback] | None = None
    ) -> None:
        # Who writes decides when to try again; a client that retries internally would only hide the delay.
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=RetryPolicy(NoBackoff(), 0),
        )
        self._connection: Any = self._client.connection_pool.make_connection()  # connects when first used
        self._codecs = codecs
        self._fallbacks = fallbacks or {}
        self._mark_key = mark_key(project)

    def write(self, rows: Sequence[ViewRows]) -> int:
        """See `OnlineView.write`."""
        try:
            applied = sum(self._fallbacks[each.view](each) for each in rows if each.view in self._fallbacks)
            commands = [
                command
                for each in rows
                if each.view not in self._fallbacks
                for command in self._codecs[each.view].commands(each)
            ]
            return applied + self._send(commands)
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store did not take rows: {type(error).__name__}: {error}") from error

    def _send(self, commands: Sequence[bytes]) -> int:
        if not commands:
            return 0
        answers = self._round_trip(commands)
        if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
            # The server was restarted or received SCRIPT FLUSH. Rows are idempotent: write all again.
            self._client.script_load(SCRIPT)
            answers = self._round_trip(commands)
        for answer in answers:
            if isinstance(answer, redis.exceptions.RedisError):
                raise answer
        return sum(cast("list[int]", answers))

    def _round_trip(self, commands: Sequence[bytes]) -> list[Any]:
        answers: list[Any] = []
        self._connection.send_packed_command([b"".join(commands)])
        for _ in commands:
            try:
                answers.append(self._connection.read_response())
            except redis.exceptions.ResponseError as error:
                answers.append(error)  # the other answers must be read all the same
        return answers

    def delete(self, view: str, keys: Array) -> None:
        """Delete a view's rows of these entities, of whatever event time, so that older rows can be written.

        Raises
        ------
        Retry
            The store cannot be reached.
        """
        codec = self._codecs[view]
        try:
            with cast("Any", self._client).pipeline(transaction=False) as pipe:
                for key in codec.keys(keys):
                    pipe.hdel(key, codec.time_field, *codec.fields)
                pipe.execute()
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store did not delete rows: {type(error).__name__}: {error}") from error

    def epoch(self) -> str | None:
        """See `OnlineView.epoch`."""
        try:
            found = cast("bytes | None", self._client.get(self._mark_key))
            if found is None:
                return None
            epoch, _, run = found.decode().partition(" ")
            return epoch if run == self._run() else None
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store cannot be reached: {error}") from error

    def mark_epoch(self, epoch: str) -> None:
        """See `OnlineView.mark_epoch`."""
        try:
            self._client.set(self._mark_key, f"{epoch} {self._run()}")
        except redis.exceptions.RedisError as error:
            raise Retry(f"the online store cannot be reached: {error}") from error

    def _run(self) -> str:
        try:
            return str(cast("dict[str, Any]", self._client.info("server")).get("run_id", ""))
        except redis.exceptions.NoPermissionError:
            return ""  # then only lost marks show lost rows

    def close(self) -> None:
        """Close the connections."""
        self._connection.disconnect()
        self._client.close()
