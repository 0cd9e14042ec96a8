"""URLs of servers: validation, display, and the passwords in them."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_ADVICE = "percent-encoded: %23 for #, %2F for /, %3F for ?, %40 for @, %5B for [, %5D for ], %25 for %"
_SHOWN = ("db",)
_SECRET = re.compile("pass|secret|token", re.IGNORECASE)


def problem(text: str, schemes: Collection[str]) -> str | None:
    """Return what is wrong with a URL, None if nothing is; no part of the URL is repeated.

    Parameters
    ----------
    text : str
        The URL, credentials included.
    schemes : collection of str
        Allowed schemes, in lower case. ``unix`` needs a path instead of a host.

    Examples
    --------
    >>> problem("redis://:a%23b@127.0.0.1:6379/0", ["redis"])
    >>> problem("http://127.0.0.1", ["redis", "rediss"])
    'should be a URL that begins with redis:// or rediss://'
    >>> problem("redis://:a#b@127.0.0.1:6379/0", ["redis"]).partition(":")[0]
    'is no valid URL. Special characters in user or password must be percent-encoded'
    """
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return _special()
    if parts.scheme not in schemes:
        return "should be a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)
    if re.search(r"[\s\x00-\x1f\x7f]", text) or parts.fragment or "@" in parts.path:
        return _special()
    if parts.scheme == "unix":
        return None if parts.path.strip("/") else "should name the socket: unix:///path/to/socket"
    return None if host else _special()


def _special() -> str:
    return f"is no valid URL. Special characters in user or password must be {_ADVICE}"


def without_credentials(text: str) -> str:
    """Return the URL without user, password and the parameters that may hold them.

    Examples
    --------
    >>> without_credentials("redis://app:hunter2@127.0.0.1:6379/0?password=hunter2&db=1")
    'redis://127.0.0.1:6379/0?db=1'
    """
    parts = urlsplit(text)
    shown = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in _SHOWN])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?' if shown else ''}{shown}"


def passwords(text: str) -> tuple[str, ...]:
    """Return every password in a URL, as written and decoded.

    Examples
    --------
    >>> passwords("redis://:a%23b@127.0.0.1:6379/0?password=hunter2")
    ('a%23b', 'a#b', 'hunter2')
    """
    try:
        parts = urlsplit(text)
        written = [parts.password or ""]
    except ValueError:
        return ()
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        if _SECRET.search(name):
            written.append(value)
    found = [spelling for each in written if each for spelling in (each, unquote(each))]
    return tuple(dict.fromkeys(found))
