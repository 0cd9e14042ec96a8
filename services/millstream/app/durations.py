"""Durations and points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from millstream.errors import Misconfigured

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}


def duration_ms(text: str) -> int:
    """Return a duration such as 7d, 12h, 30m or 45s in milliseconds.

    Raises
    ------
    Misconfigured
        The text is no duration.

    Examples
    --------
    >>> duration_ms("1.5d")
    129600000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text.strip())
    if found is None:
        raise Misconfigured(f"{text!r} is no duration, such as 7d, 12h, 30m or 45s")
    return round(float(found[1]) * _UNITS_MS[found[2]])


def moment_ms(text: str) -> int:
    """Return an ISO date or time, UTC unless it says otherwise, in milliseconds since the epoch.

    Raises
    ------
    Misconfigured
        The text is no date or time.

    Examples
    --------
    >>> moment_ms("2018-08-01"), moment_ms("2018-08-01T02:00+02:00")
    (1533081600000, 1533081600000)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misconfigured(f"{text!r} is no ISO date or time, such as 2018-08-01") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
