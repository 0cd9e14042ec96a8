"""Columns of any type as times in the unit of an Avro field: exactly, or null where a cell is none or its unit unknown.

A time is a date or timestamp of the table's own type, an ISO 8601 text, or a whole number whose unit is declared or
follows from its size. Below the field's unit nothing is cut off unless that is declared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from millstream.core.avro.numbers_read import nothing, whole_numbers
from millstream.core.avro.reading import Reading, Unit

PER_SECOND: Final[Mapping[str, int]] = {
    f"{kind}timestamp-{unit}": number
    for kind in ("", "local-")
    for unit, number in (("millis", 1_000), ("micros", 1_000_000), ("nanos", 1_000_000_000))
}
"""Units per second of the logical types that are points in time."""

_UNITS_PER_SECOND: Final[Mapping[str, int]] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NS: Final = 1_000_000_000
_LIMIT: Final = (1 << 63) - 1
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 naive, as the texts that are compared with it
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
# Between March 1973 and November 2286, in seconds: no other unit puts the same number into these three centuries.
_FROM_S, _TO_S = 10**8, 10**10


def times(series: pl.Series, logical_type: str, reading: Reading | None) -> pl.Series:
    """Return Int64 in the unit of the logical type.

    Parameters
    ----------
    series : Series
        Dates, timestamps, texts or numbers; its name may end with a unit.
    reading : Reading or None
        None: whole numbers are in the field's unit, whatever they are called.
    """
    per_second = PER_SECOND[logical_type]
    local = logical_type.startswith("local-")
    reading = reading or Reading(column_units={series.name: _field_unit(per_second)})
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("ms"))
    if isinstance(series.dtype, pl.Datetime):
        return _scaled(*_physical(series, series.dtype, local, reading.time_zone), per_second, reading.truncate_times)
    unit = reading.unit_of(series.name)
    if series.dtype.is_integer():
        return _numbers(series, unit, per_second, reading)
    if series.dtype.is_numeric() or series.dtype == pl.String:
        numbers = _numbers(series, unit, per_second, reading)
        texts = series.cast(pl.String).str.strip_chars()
        return _with_texts(numbers, texts, unit, per_second, local, reading)
    return nothing(series, pl.Int64)


def _field_unit(per_second: int) -> Unit:
    return {1_000: "ms", 1_000_000: "us", _NS: "ns"}[per_second]  # type: ignore[return-value]


def _physical(series: pl.Series, dtype: pl.Datetime, local: bool, zone: str | None) -> tuple[pl.Series, int]:
    """Return counts since the epoch, and how many make a second."""
    if local and dtype.time_zone is not None:
        return nothing(series, pl.Int64), 1
    if not local and dtype.time_zone is None and zone is not None:
        series = series.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return series.to_physical(), _UNITS_PER_SECOND[dtype.time_unit]


def _scaled(counts: pl.Series, given: int, wanted: int, truncate: bool) -> pl.Series:
    if given <= wanted:
        factor = wanted // given
        return counts.set(counts.abs() > _LIMIT // factor, None) * factor if factor > 1 else counts
    divisor = given // wanted
    made = counts // divisor
    return made if truncate else made.set(made * divisor != counts, None)


def _numbers(series: pl.Series, unit: Unit | None, per_second: int, reading: Reading) -> pl.Series:
    counts = whole_numbers(series)
    if unit == "yyyymmdd":
        return pl.Series([_calendar(each, per_second, reading) for each in counts], dtype=pl.Int64)
    if unit is not None:
        return _scaled(counts, _UNITS_PER_SECOND[unit], per_second, reading.truncate_times)
    certain = (counts >= _FROM_S * per_second) & (counts // per_second < _TO_S)
    digits = counts.cast(pl.String).str.contains(r"^(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])([01]\d|2[0-3])[0-5]\d$")
    return counts.set((certain & ~digits).fill_null(False).not_(), None)


def _calendar(number: int | None, per_second: int, reading: Reading) -> int | None:
    if number is None:
        return None
    try:
        day = date(number // 10_000, number // 100 % 100, number % 100)
    except ValueError:
        return None
    return _in_unit(moment_ns(day.isoformat(), reading.time_zone), per_second, True)


def _with_texts(
    made: pl.Series, texts: pl.Series, unit: Unit | None, per_second: int, local: bool, reading: Reading
) -> pl.Series:
    """Return whole numbers as they were read, and what is none of them as a time or as a number with a fraction."""
    if made.null_count() == texts.null_count():
        return made
    zone = None if local else reading.time_zone
    found = made.to_list()
    for row, (text, done) in enumerate(zip(texts, found, strict=True)):
        if text is None or done is not None:
            continue
        ns = moment_ns(text, zone, local)
        if ns is None and unit is not None and unit in _UNITS_PER_SECOND:
            ns = _fraction_ns(text, _UNITS_PER_SECOND[unit])
        found[row] = _in_unit(ns, per_second, reading.truncate_times)
    return pl.Series(found, dtype=pl.Int64)


def _fraction_ns(text: str, given: int) -> int | None:
    """Return a count with a fraction in nanoseconds, None where it is none or finer than that."""
    if not re.fullmatch(r"[+-]?\d{1,30}\.\d{1,30}", text, re.ASCII):
        return None
    try:
        ns = Decimal(text) * (_NS // given)
    except InvalidOperation:
        return None
    return int(ns) if ns == ns.to_integral_value() else None


def _in_unit(ns: int | None, per_second: int, truncate: bool) -> int | None:
    if ns is None:
        return None
    count, rest = divmod(ns, _NS // per_second)
    return count if (truncate or not rest) and abs(count) <= _LIMIT else None


def moment_ns(text: str, zone: str | None, local: bool = False) -> int | None:
    """Return an ISO 8601 date or time in nanoseconds since the epoch; None where it is none.

    A time that the clocks of its zone show twice or not at all is none either.

    Parameters
    ----------
    zone : str or None
        IANA name of the zone of a text without one; None is UTC.
    local : bool
        A time without a zone, as on the wall; a text with one is refused.
    """
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    day, clock, fraction, offset = found.groups()
    if fraction is not None and (fraction[9:].strip("0") or (clock or "").count(":") < 2):
        return None
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
    except ValueError:
        return None
    if offset is not None and local:
        return None
    shift = _offset(offset) if offset is not None else timedelta(0) if zone is None else _zone_offset(moment, zone)
    if shift is None:
        return None
    since = moment - _EPOCH - shift
    return (since.days * 86_400 + since.seconds) * _NS + int((fraction or "")[:9].ljust(9, "0"))


def _offset(text: str) -> timedelta | None:
    if text[0] not in "+-":
        return timedelta(0)
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        return None
    size = timedelta(hours=hours, minutes=minutes)
    return -size if text[0] == "-" else size


def _zone_offset(moment: datetime, zone: str) -> timedelta | None:
    """Return the zone's offset then; None where clocks show that time twice or not at all."""
    here = moment.replace(tzinfo=ZoneInfo(zone))
    first, second = here.utcoffset(), here.replace(fold=1).utcoffset()
    return first if first == second else None


def candidates(number: int) -> list[tuple[Unit, datetime]]:
    """Return what a whole number may mean as a time between 1973 and 2286: unit and moment, UTC."""
    found: list[tuple[Unit, datetime]] = []
    if len(str(number)) == 8 and _calendar(number, 1, Reading()) is not None:
        found.append(("yyyymmdd", datetime.strptime(str(number), "%Y%m%d").replace(tzinfo=UTC)))
    for unit, given in _UNITS_PER_SECOND.items():
        if _FROM_S <= number // given < _TO_S:
            found.append((unit, datetime.fromtimestamp(number // given, UTC)))  # type: ignore[arg-type]
    return found
