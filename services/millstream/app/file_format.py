"""What a file does not say of itself: separator, encoding, units and zone, as its user declares them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from millstream.adapters.files.csv_rows import Dialect
from millstream.adapters.files.tabular import Declared
from millstream.core.avro.reading import UNITS, Reading, Unit
from millstream.errors import Misconfigured


class FileFormat(TypedDict, total=False):
    """How a file is written, where it does not say so.

    Parameters
    ----------
    separator : str
        Between the columns of a CSV; default: as the header shows.
    quote : str
        Quote character of a CSV; ``none``: quotes are text.
    encoding : str
        Of a CSV, such as ``latin-1``.
    decimal_comma : bool
        Numbers of a CSV are written as 10,5.
    time_unit : str or mapping of str to str
        Of whole numbers in time columns whose names have none, for all or by column: s, ms, us, ns or yyyymmdd.
    time_zone : str
        Of times without a zone; default: UTC.
    truncate_times : bool
        Cut digits below the contract's unit off, instead of refusing them.
    """

    separator: str
    quote: str
    encoding: str
    decimal_comma: bool
    time_unit: str | Mapping[str, str]
    time_zone: str
    truncate_times: bool


def declared(given: FileFormat) -> Declared:
    """Return what a file's user declares; raises as `declare` does, and TypeError for another name."""
    for name in given.keys() - FileFormat.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {name!r}; a file's are {', '.join(FileFormat.__annotations__)}")
    unit = given.get("time_unit", {})
    units = [unit] if isinstance(unit, str) else [f"{column}={each}" for column, each in unit.items()]
    return declare(
        given.get("separator"),
        given.get("quote", '"'),
        given.get("encoding", "utf-8"),
        given.get("decimal_comma", False),
        units,
        given.get("time_zone"),
        given.get("truncate_times", False),
    )


def declare(
    separator: str | None,
    quote: str,
    encoding: str,
    decimal_comma: bool,
    time_unit: Iterable[str],
    time_zone: str | None,
    truncate_times: bool,
) -> Declared:
    """Return what the command-line options of a file declare.

    Parameters
    ----------
    time_unit : iterable of str
        ``UNIT``, or ``COLUMN=UNIT``.

    Raises
    ------
    Misconfigured
        Naming the option and what it takes.
    """
    separator = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator in '\r\n"'):
        raise Misconfigured(f"--separator {separator!r}: one character, such as ; or tab")
    if quote != "none" and (len(quote) != 1 or quote in "\r\n"):
        raise Misconfigured(f"--quote {quote!r}: one character, or none")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise Misconfigured(f"--encoding {encoding!r} is not known; such as utf-8, latin-1 or utf-16") from error
    if time_zone is not None:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise Misconfigured(f"--time-zone {time_zone!r} is no zone, such as Europe/Berlin or UTC") from error
    of_all, of_columns = _units(time_unit)
    return Declared(
        Dialect(separator, None if quote == "none" else quote, encoding),
        Reading(of_all, of_columns, time_zone, truncate_times, decimal_comma),
    )


def _units(options: Iterable[str]) -> tuple[Unit | None, dict[str, Unit]]:
    of_all: Unit | None = None
    of_columns: dict[str, Unit] = {}
    for option in options:
        column, _, unit = option.rpartition("=")
        if unit not in UNITS:
            raise Misconfigured(f"--time-unit {option}: one of {', '.join(UNITS)}, or COLUMN=UNIT")
        if column:
            of_columns[column] = unit
        else:
            of_all = unit
    return of_all, of_columns
