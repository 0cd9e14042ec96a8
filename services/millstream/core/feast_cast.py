"""Values that an on-demand view returns, cast to its declared types as Feast casts them, each value alone.

Feast converts a column with `feast.type_map.python_values_to_proto_values` and checks the type of its first value only,
so that there a value's outcome depends on its neighbours. Here each value has the outcome that Feast gives it alone,
except that a missing value (None, NaN, NaT, NA) is null for every type but a time, as it is in Feast beside others.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from millstream.core.batch import Array, Mask
from millstream.core.declaration import FeatureType

FEAST_NAMES: dict[FeatureType, str] = {
    "int64": "Int64",
    "int32": "Int32",
    "float64": "Float64",
    "float32": "Float32",
    "bool": "Bool",
    "string": "String",
    "unix_timestamp": "UnixTimestamp",
}
"""What ``feast.types`` calls each type."""

NULL_TIME_S = -(2**63)
"""How Feast stores a time that is null, ``feast.type_map.NULL_TIMESTAMP_INT_VALUE``."""

_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799  # years 1 to 9999: Feast cannot read others back
_EMPTY: dict[FeatureType, Any] = {"float64": np.nan, "float32": np.nan, "bool": False, "string": ""}
_NUMPY: dict[FeatureType, type] = {"float64": np.float64, "float32": np.float64, "bool": np.bool_, "string": object}
_BOUNDS = {"int64": 2**63, "int32": 2**31}
_NONE = type(None)
_WHOLE: frozenset[type] = frozenset({int, np.int64, bool})
_REAL: frozenset[type] = frozenset({float, np.float64})
_TAKEN: dict[FeatureType, frozenset[type]] = {"string": frozenset({str}), "bool": frozenset({bool, np.bool_})}


def cast_column(values: Sequence[Any], dtype: FeatureType) -> tuple[Array, Mask | None, dict[int, str]]:
    """Return values as a column.

    Returns
    -------
    column : ndarray of shape (len(values),)
        int64 (whole numbers; times in seconds), float64 (float32 rounded to it), bool, or object of str.
    nulls : bool ndarray or None
        None: no nulls.
    problems : dict of int to str
        By position, what is wrong with a value that Feast does not take; it is null in the column.
    """
    try:
        found = _at_once(values, dtype)
    except (OverflowError, UnicodeEncodeError):
        found = None  # one of the values is at fault; each is looked at
    if found is not None:
        return *found, {}
    column: Array = np.full(len(values), _EMPTY.get(dtype, 0), dtype=_NUMPY.get(dtype, np.int64))
    nulls = np.zeros(len(values), dtype=np.bool_)
    problems = {}
    for row, value in enumerate(values):
        try:
            cast = cast_value(value, dtype)
        except Exception as error:  # noqa: BLE001 values may be of a team's own classes
            problems[row], cast = f"{_named(value)}: {error}", None
        nulls[row] = cast is None or cast != cast  # noqa: PLR0124 NaN is null
        if cast is not None:
            column[row] = cast
    return column, nulls if nulls.any() else None, problems


def cast_value(value: Any, dtype: FeatureType) -> int | float | bool | str | None:
    """Return what Feast makes of a value alone, None for null.

    Raises
    ------
    TypeError, ValueError, OverflowError
        Feast does not take it.

    Examples
    --------
    >>> cast_value("12", "int64"), cast_value(2.7, "int64"), cast_value(10, "string"), cast_value([1], "int64")
    (12, 2, '10', None)
    """
    if value is None or (not isinstance(value, str | bytes) and hasattr(value, "__len__") and len(value) >= 0):
        return None  # what holds several values, Feast takes for null
    if dtype == "unix_timestamp":
        return _seconds(value)
    return None if is_missing(value) else _CASTS[dtype](value)


def is_missing(value: Any) -> bool:
    """Return whether a single value is missing, as ``pandas.isnull`` does, which needs not be imported for it."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | complex | np.inexact) and bool(value != value)  # noqa: PLR0124


def _at_once(values: Sequence[Any], dtype: FeatureType) -> tuple[Array, Mask | None] | None:
    """Return a column whose values are all of plain types, None if they are not; raises if one does not fit."""
    kinds = set(map(type, values))
    plain = kinds - {_NONE}
    if dtype in {"float64", "float32"}:
        allowed = _REAL | _WHOLE - ({bool} if dtype == "float64" else set())
        return _reals(values, dtype) if plain <= allowed else None
    if dtype in _BOUNDS and plain and plain <= _REAL:
        return _truncated(np.array(values, dtype=np.float64), _BOUNDS[dtype])
    if not plain <= _TAKEN.get(dtype, _WHOLE):
        return None
    missing = np.fromiter((value is None for value in values), np.bool_, len(values)) if _NONE in kinds else None
    if missing is not None:
        values = [_EMPTY.get(dtype, 0) if value is None else value for value in values]
    if dtype == "string":
        "".join(values).encode()
    column: Array = np.array(values, dtype=_NUMPY.get(dtype, np.int64))
    if column.dtype == np.int64 and len(column):
        low, high = (_FIRST_S, _LAST_S) if dtype == "unix_timestamp" else (-_BOUNDS[dtype], _BOUNDS[dtype] - 1)
        if column.min() < low or column.max() > high:
            return None
    return column, missing


def _reals(values: Sequence[Any], dtype: FeatureType) -> tuple[Array, Mask | None]:
    reals = np.array(values, dtype=np.float64)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            reals = reals.astype(np.float32).astype(np.float64)
    missing = np.isnan(reals)
    return reals, missing if missing.any() else None


def _truncated(reals: Array, bound: int) -> tuple[Array, Mask | None] | None:
    missing = np.isnan(reals)
    cut = np.trunc(np.where(missing, 0.0, reals))
    if not ((cut >= -bound) & (cut < bound)).all():
        return None
    return cut.astype(np.int64), missing if missing.any() else None


def _whole(value: Any, bits: int) -> int:
    if bits == 64 and type(value).__name__ == "Timestamp" and isinstance(value, dt.datetime):
        value = value.timestamp()
    cast = int(value)
    if not -(2 ** (bits - 1)) <= cast < 2 ** (bits - 1):
        raise ValueError(f"it is out of the range of {bits} bits")
    return cast


def _real(value: Any) -> float:
    if type(value) not in {float, np.float64, int, np.int_, decimal.Decimal}:
        raise TypeError("Float64 takes float, int and Decimal only")
    return float(value)


def _real32(value: Any) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(float(value)))


def _flag(value: Any) -> bool:
    if type(value) not in {bool, np.bool_, int, np.int_}:
        raise TypeError("Bool takes bool and int only")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError("it is out of the range of 64 bits")
    return bool(value)


def _text(value: Any) -> str:
    text = str(value)
    text.encode()
    return text


def _seconds(value: Any) -> int | None:
    if isinstance(value, float):
        return None  # seconds as a float are null to Feast
    if is_missing(value) and not isinstance(value, np.datetime64):
        raise ValueError("a time is null as None only")
    if isinstance(value, dt.datetime):
        aware = value if value.utcoffset() is not None else value.replace(tzinfo=dt.UTC)
        seconds = int(aware.timestamp())
    elif isinstance(value, np.datetime64):
        seconds = int(value.astype("datetime64[s]").astype(np.int64))
    else:
        seconds = int(value)
    if seconds == NULL_TIME_S:
        return None
    if not _FIRST_S <= seconds <= _LAST_S:
        raise ValueError("it is not within the years 1 to 9999")
    return seconds


_CASTS: dict[FeatureType, Callable[[Any], Any]] = {
    "int64": lambda value: _whole(value, 64),
    "int32": lambda value: _whole(value, 32),
    "float64": _real,
    "float32": _real32,
    "bool": _flag,
    "string": _text,
}


def _named(value: Any) -> str:
    """Return what kind of value it is, and a number itself; texts are not shown: they may be personal data, or long."""
    kind = type(value).__name__
    if isinstance(value, int | np.integer) and kind != "timedelta64":  # which numpy counts among the integers
        return f"{kind} {value}" if abs(int(value)) < 2**100 else kind
    return f"{kind} {value:.10g}" if isinstance(value, float | np.floating) else kind
