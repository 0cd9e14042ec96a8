"""Messages for cells that do not fit a field: what was found, what is allowed and what to do."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal

import polars as pl

from millstream.core.avro.calendar_read import CALENDAR
from millstream.core.avro.numbers_read import EXACT, reals, whole_numbers
from millstream.core.avro.reading import UNITS, Reading
from millstream.core.avro.schema_field import Field
from millstream.core.avro.times_read import PER_SECOND, candidates, moment_ns

BINARY_LABEL = "binary label"
"""Stands in for a logical type in a field that holds labels of two classes."""

_LONGEST = 80


def explain(found: object, field: Field, column: str, reading: Reading) -> str:
    """Return the sentence.

    Parameters
    ----------
    found : object
        A value that `millstream.core.avro.convert.convert` did not take for this field; not None.
    """
    shown = repr(found.to_list() if isinstance(found, pl.Series) else found)
    shown = f"found {shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + '...'}"
    logical = field.logical_type or ""
    if logical in PER_SECOND:
        return f"{shown}, {_no_time(found, column, reading, logical)}"
    return f"{shown}, {_no_value(found, field)}"


def _no_value(found: object, field: Field) -> str:
    if field.logical_type == BINARY_LABEL:
        return "which is no binary label; allowed: 0, 1, true and false"
    if field.logical_type in CALENDAR:
        return f"which is no {field.logical_type}"
    if field.kind in {"float", "double"} and _whole(found) is not None and _real(found) is None:
        return "a whole number that a double cannot hold exactly"
    why = _no_whole_number(found) if field.kind in {"int", "long", "string", "enum", "boolean"} else ""
    if field.kind == "enum" and not why:
        return f"which is not allowed; allowed: {', '.join(field.symbols)}"
    return f"which is no {field.kind}" + (f": {why}" if why else "")


def _series(found: object) -> pl.Series:
    return (
        pl.Series([str(found)]) if isinstance(found, str | int) and not isinstance(found, bool) else pl.Series([found])
    )


def _whole(found: object) -> int | None:
    try:
        number: int | None = whole_numbers(_series(found)).item()
    except (TypeError, OverflowError):
        return None
    return number


def _real(found: object) -> float | None:
    number: float | None = reals(_series(found)).item()
    return number


def _no_whole_number(found: object) -> str:
    """Return what keeps a number from being a whole one, "" where it is no number."""
    if isinstance(found, bool) or not isinstance(found, int | float | Decimal | str):
        return ""
    try:
        number = Decimal(str(found).strip())
    except ArithmeticError:
        return ""
    if not number.is_finite():
        return ""
    problems = {
        "it has a fraction": number != number.to_integral_value(),
        "digits may be missing from a number written with an exponent": isinstance(found, str) and "e" in found.lower(),
        "it does not fit 64 bits": not -(1 << 63) <= number < 1 << 63,
        "it was written from a double, and doubles of that size skip whole numbers": (
            abs(number) >= EXACT and (isinstance(found, float) or "." in str(found))
        ),
    }
    return next((problem for problem, holds in problems.items() if holds), "")


def _no_time(found: object, column: str, reading: Reading, logical: str) -> str:
    number = _whole(found)
    unit = reading.unit_of(column)
    if number is not None and unit is None:
        read = ", ".join(f"{at:%Y-%m-%dT%H:%M:%SZ} in {unit}" for unit, at in candidates(number))
        return (
            f"a whole number in column {column!r}, whose name does not end with its unit"
            + (f"; it may be {read}" if read else "")
            + f". Declare it with --time-unit {'|'.join(UNITS)}"
        )
    if number is not None:
        return f"which is no {logical} when read in {unit}"
    if unit is not None and re.fullmatch(r"[+-]?\d+\.\d+", str(found)):
        return f"which has digits below the unit of {logical} when read in {unit}; --truncate-times cuts them off"
    text = found.isoformat() if isinstance(found, datetime) else found.strip() if isinstance(found, str) else ""
    if moment_ns(text, None) is None:
        return f"which is no {logical}: an ISO 8601 date or time, such as 2018-11-01T12:00:00Z, or a whole number"
    if reading.time_zone is not None and moment_ns(text, reading.time_zone) is None:
        return f"a time that clocks in {reading.time_zone} show twice or not at all"
    return f"which has digits below the unit of {logical}; --truncate-times cuts them off"
