"""The URL of Redis, for callers that do not use Kafka."""

from __future__ import annotations

from millstream.adapters.embedded.endpoints import status
from millstream.errors import Misconfigured
from millstream.settings import Settings


def redis_url(settings: Settings) -> str:
    """Return the URL the settings give, else the embedded server's.

    Raises
    ------
    Misconfigured
        If none is set and the embedded one does not run; says what to do.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    _, redis = status(settings)
    if redis.pid is None:
        raise Misconfigured(
            f"no Valkey is running in {settings.state_dir.resolve()}: run `millstream up`, or set MILLSTREAM_REDIS_URL"
        )
    return redis.address
