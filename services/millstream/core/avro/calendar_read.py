"""Columns as Avro dates and times of day: days since the epoch, milliseconds or microseconds since midnight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Final

import polars as pl

from millstream.core.avro.numbers_read import nothing, whole_numbers
from millstream.core.avro.reading import Reading

_PER_SECOND: Final[Mapping[str, int]] = {"time-millis": 1_000, "time-micros": 1_000_000}
CALENDAR: Final = frozenset({"date", *_PER_SECOND})
"""Logical types that are no points in time."""

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MOST_DAYS: Final = date.max.toordinal() - _EPOCH_DAY
_DAY_NS: Final = 86_400_000_000_000
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,9}))?)?", re.ASCII)


def calendar(series: pl.Series, logical_type: str, reading: Reading | None) -> pl.Series:
    """Return Int64 in the unit of the logical type, null where a cell is no date or time of day, or finer.

    A whole number counts the logical type's own unit, unless it is declared to be written as YYYYMMDD.
    """
    if logical_type == "date":
        return _dates(series, reading is not None and reading.unit_of(series.name) == "yyyymmdd")
    per_second = _PER_SECOND[logical_type]
    if series.dtype == pl.Time:
        return _cut(series.to_physical(), per_second)
    if series.dtype != pl.String:
        counts = whole_numbers(series)
        return counts.set((counts < 0) | (counts >= 86_400 * per_second), None)
    made = calendar(whole_numbers(series), logical_type, reading)
    clocks = pl.Series([_clock_ns(text) for text in series.str.strip_chars()], dtype=pl.Int64)
    return made.zip_with(made.is_not_null(), _cut(clocks, per_second))


def _cut(ns: pl.Series, per_second: int) -> pl.Series:
    made = ns // (1_000_000_000 // per_second)
    return made.set(made * (1_000_000_000 // per_second) != ns, None)


def _clock_ns(text: str | None) -> int | None:
    found = _CLOCK.fullmatch(text) if text is not None else None
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    whole_s = int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)
    return whole_s * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def _dates(series: pl.Series, digits: bool) -> pl.Series:
    if series.dtype == pl.Date:
        return series.to_physical().cast(pl.Int64)
    if isinstance(series.dtype, pl.Datetime):
        if series.dtype.time_zone is not None:
            return nothing(series, pl.Int64)
        days = series.cast(pl.Date)
        return days.set(days.cast(series.dtype) != series, None).to_physical().cast(pl.Int64)
    numbers = whole_numbers(series)
    if digits:
        made = pl.Series([_day(each) for each in numbers], dtype=pl.Int64)
    else:
        made = numbers.set(numbers.abs() > _MOST_DAYS, None)
    if series.dtype != pl.String or made.null_count() == series.null_count():
        return made
    found = [_iso(text) if text is not None else None for text in series.str.strip_chars()]
    return made.zip_with(made.is_not_null(), pl.Series(found, dtype=pl.Int64))


def _day(number: int | None) -> int | None:
    return None if number is None else _iso(f"{number // 10_000:04}-{number // 100 % 100:02}-{number % 100:02}")


def _iso(text: str) -> int | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return None
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
