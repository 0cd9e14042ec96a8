"""``monitors.toml`` of the feature repo: monitored columns and the false-alarm budget; everything has a default.

::

    false_alarms = "1 per week"       # of everything measured against a reference, for the whole model
    windows = ["6h", "1d", "7d"]      # compared with the model's reference
    ignore = []                       # features that are not watched one by one
    segment_by = ""                   # a feature such as a category: everything is watched within its values as well

    [limits]                          # "off" switches one off
    dead_letter_share = 0.01
    late_share = 0.05
    duplicate_share = 0.05
    null_share = 0.05                 # beyond the reference's own
    unseen_share = 0.05               # outside of the values the reference has
    freshness = "10m"                 # of online features: until what was scored can be read
    label_delay = "14d"               # off unless declared, as are the next three
    latency_p99 = "1s"
    events_per_hour = 100
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from millstream.core.drift.budget import Budget
from millstream.core.drift.declared import LONGEST_WINDOW_MS, Limits, Monitors, parse_budget, parse_span_ms
from millstream.core.drift.seasons import HOUR_MS
from millstream.errors import Misconfigured

FILE: Final = "monitors.toml"

_DEFAULT: Final = Monitors()
_OFF: Final = "off"
_NAMED: Final = 5


def load_monitors(feature_repo: Path, features: Sequence[str]) -> Monitors:
    """Return what the feature repo declares; without a file, the defaults.

    Parameters
    ----------
    feature_repo : Path
    features : sequence of str
        Those of the declared feature service, which alone can be ignored or define segments.

    Raises
    ------
    Misconfigured
        Naming every key that is wrong, what was given and what is allowed.
    """
    path = feature_repo / FILE
    if not path.is_file():
        return _DEFAULT
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    wrong: list[str] = []
    limits = _read(raw.get("limits", {}), _LIMITS, "limits", wrong)
    found = _read({key: value for key, value in raw.items() if key != "limits"}, _KEYS, "", wrong)
    for key, names in (("ignore", found.get("ignore", ())), ("segment_by", [found.get("segment_by")])):
        wrong += [_unknown(key, name, features) for name in names if name and name not in features]
    if wrong:
        raise Misconfigured(f"{path} is wrong:\n  " + "\n  ".join(wrong))
    return Monitors(
        found.get("false_alarms", _DEFAULT.budget),
        found.get("windows", _DEFAULT.windows_ms),
        found.get("ignore", _DEFAULT.ignore),
        found.get("segment_by", _DEFAULT.segment_by),
        limits=Limits(**{_FIELDS.get(key, key): value for key, value in limits.items()}),
    )


def _read(raw: Any, readers: Mapping[str, Callable[[Any], Any]], table: str, wrong: list[str]) -> dict[str, Any]:
    """Return the values of a table's keys; what is wrong with others is added to ``wrong``."""
    if not isinstance(raw, dict):
        wrong.append(f"{table} is to be a table, [{table}], not {_shown(raw)}")
        return {}
    found = {}
    for key, value in raw.items():
        name = f"{table}.{key}" if table else key
        if key not in readers:
            there = [*readers, *([] if table else ["limits"])]
            where = f"[{table}] has" if table else "there are"
            wrong.append(f"{name}: there is no such key; {where} {', '.join(there)}")
            continue
        try:
            found[key] = readers[key](value)
        except ValueError as error:
            wrong.append(f"{name} = {_shown(value)}: {error}")
    return found


def _shown(value: Any) -> str:
    """Return a value much as the file has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _unknown(key: str, name: str, features: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, features, _NAMED, 0.0)
    return (
        f"{key}: {name!r} is none of the {len(features)} features of the declared feature service, such as "
        f"{', '.join(alike)}"
    )


def _budget(value: Any) -> Budget:
    if not isinstance(value, str):
        raise ValueError("a budget in words is wanted, such as '1 per week'")
    return parse_budget(value)


def _span(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("a length of time with its unit is wanted, such as '500ms', '30s', '15m', '6h' or '7d'")
    return parse_span_ms(value)


def _windows(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of lengths of time is wanted, such as ['6h', '1d']")
    found = tuple(_span(each) for each in value)
    days = LONGEST_WINDOW_MS // (24 * HOUR_MS)
    for text, each in zip(value, found, strict=True):
        if each % HOUR_MS or each > LONGEST_WINDOW_MS:
            raise ValueError(f"{text!r} is no window: windows are whole hours, and {days} days at most")
        if found.count(each) > 1:
            raise ValueError(f"{text!r} is there twice: each window is to be another length")
    return found


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("a list of names of features is wanted")
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the name of a feature is wanted, or '' for none")
    return value


def _number(value: Any, most: float, wanted: str) -> float:
    # TOML's booleans are Python's, and those are numbers.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most or math.isinf(value):
        raise ValueError(f"{wanted} is wanted")
    return float(value)


def _off_or(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reader(value: Any) -> Any:
        if value == _OFF:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(f"{error}, or '{_OFF}'") from error

    return reader


_share: Final = _off_or(lambda value: _number(value, 1.0, "a share above 0 and at most 1"))
_limit_ms: Final = _off_or(_span)

_KEYS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "false_alarms": _budget,
    "windows": _windows,
    "ignore": _texts,
    "segment_by": _text,
}
_LIMITS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "dead_letter_share": _share,
    "late_share": _share,
    "duplicate_share": _share,
    "null_share": _share,
    "unseen_share": _share,
    "freshness": _limit_ms,
    "label_delay": _limit_ms,
    "latency_p99": _limit_ms,
    "events_per_hour": _off_or(lambda value: _number(value, math.inf, "a number above 0")),
}
_FIELDS: Final = {name: f"{name}_ms" for name in ("freshness", "label_delay", "latency_p99")}
