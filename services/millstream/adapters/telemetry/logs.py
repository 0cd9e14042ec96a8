"""Structured logs on standard error, for people or as JSON lines; secrets are struck out of whatever is logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TextIO

from pydantic import SecretStr

from millstream.core.urls import passwords
from millstream.errors import Misconfigured
from millstream.settings import Settings

FORMATS = ("human", "json")
_STRUCK = "***"
_SECRET_KEYS = ("password", "secret", "token", "private", "key.pem")
# user:password@ in any URL, and password=..., however the setting that holds it is spelt.
_URL = re.compile(r"(\w[\w+.-]*://)[^/\s:@]*:[^/\s@]+@")
_ASSIGNED = re.compile(
    r"""(["']?[\w.-]*(?:password|passwd|secret|token|user\.info)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;}\])]+)""", re.I
)
_FRAMEWORKS = ("faust", "mode", "httpx2")
_CLIENT = "librdkafka"
_CLIENT_EVERY_S = 10.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure_logs(
    log_format: str, *, level: str = "INFO", secrets: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Send every logger's records to one handler; calling again replaces it.

    The frameworks' own records are left out below WARNING, and of what a Kafka client repeats (a broker that is away
    is logged many times a second) each kind is written once in ten seconds, with the number left out.

    Parameters
    ----------
    log_format : str
        ``human`` or ``json``: one object per line with ``time``, ``level``, ``logger``, ``message``, ``thread``,
        ``error`` (a traceback) and whatever was given as ``extra``.
    level : str
        Least severe level that is written.
    secrets : sequence of str
        Values never to be written, see `secrets_of`. Passwords in URLs and ``password=...`` are struck out anyway.
    stream : text stream or None
        Default: standard error.

    Raises
    ------
    Misconfigured
        If the format or the level is none that exists.
    """
    if log_format not in FORMATS:
        raise Misconfigured(f"log format {log_format!r} is unknown; allowed: {', '.join(FORMATS)}")
    if level.upper() not in logging.getLevelNamesMapping():
        raise Misconfigured(f"log level {level!r} is unknown; allowed: DEBUG, INFO, WARNING, ERROR, CRITICAL")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Redacting(_Json() if log_format == "json" else _Human(), secrets))
    handler.addFilter(_Quiet())
    handler.addFilter(_Sparse())
    root = logging.getLogger()
    for present in list(root.handlers):
        if isinstance(present.formatter, _Redacting):
            root.removeHandler(present)
    root.addHandler(handler)
    root.setLevel(level.upper())


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return every secret value among the settings, for `configure_logs`."""
    found = [value.get_secret_value() for _name, value in settings if isinstance(value, SecretStr)]
    found += [value for key, value in settings.kafka.items() if any(part in key for part in _SECRET_KEYS)]
    # A URL's or pair's password also appears alone, e.g. in a server's error.
    addresses = [settings.schema_registry_url, settings.mlflow_tracking_uri, *found]
    found += [password for address in addresses if address for password in passwords(address)]
    found += [value.partition(":")[2] for value in found if ":" in value and "//" not in value]
    return tuple(sorted({value for value in found if len(value) > 2}, key=len, reverse=True))


class _Quiet(logging.Filter):
    """Leaves out what the frameworks say of themselves, under whichever logger: mode speaks as the class's module."""

    def __init__(self) -> None:
        super().__init__()
        # Not importlib.util's: it asks the module where one is loaded, and faust puts one without a spec in its place.
        specs = [PathFinder.find_spec(name) for name in _FRAMEWORKS]
        self._files = tuple(str(Path(spec.origin).parent) for spec in specs if spec is not None and spec.origin)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not record.pathname.startswith(self._files)


class _Sparse(logging.Filter):
    """Passes each kind of a Kafka client's records once in a while, with how many were left out since."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != _CLIENT:
            return True
        kind = record.getMessage().partition(" ")[0]
        at_s, left_out = self._logged.get(kind, (float("-inf"), 0))
        if record.created - at_s < _CLIENT_EVERY_S:
            self._logged[kind] = (at_s, left_out + 1)
            return False
        self._logged[kind] = (record.created, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it since)", None
        return True


class _Redacting(logging.Formatter):
    """Another formatter's text with the secrets struck out, tracebacks and extras included."""

    def __init__(self, inner: logging.Formatter, secrets: Sequence[str]) -> None:
        super().__init__()
        self._inner = inner
        # A secret inside JSON is escaped.
        spelt = {spelling for secret in secrets for spelling in (secret, json.dumps(secret)[1:-1]) if spelling}
        ordered = sorted(spelt, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        if self._known is not None:
            text = self._known.sub(_STRUCK, text)
        return text


def strike(text: str) -> str:
    """Return the text with passwords in URLs and assignments struck out.

    Examples
    --------
    >>> strike("redis://user:hunter2@localhost:6379 and sasl.password=hunter2, acks=all")
    'redis://***@localhost:6379 and sasl.password=***, acks=all'
    """
    return _ASSIGNED.sub(rf"\1{_STRUCK}", _URL.sub(rf"\1{_STRUCK}@", text))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname:<8} {record.name}: {strike(record.getMessage())}"
        if record.exc_info:
            text += "\n" + strike(self.formatException(record.exc_info))
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": strike(record.getMessage()),
            "thread": record.threadName,
        }
        line |= {
            name: _STRUCK if any(part in name.lower() for part in _SECRET_KEYS) else _plain(value)
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        if record.exc_info:
            line["error"] = strike(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return strike(str(value))
