"""Options of every command that reads a file: what the file does not say of itself."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

if TYPE_CHECKING:
    from millstream.adapters.files.tabular import Declared
    from millstream.core.avro.reading import Unit

Separator = Annotated[
    str | None, typer.Option("--separator", help="Between the columns of a CSV; default: as the header shows.")
]
Quote = Annotated[str, typer.Option("--quote", help="Quote character of a CSV, or none: quotes are text.")]
Encoding = Annotated[str, typer.Option("--encoding", help="Of a CSV, such as latin-1 or utf-16.")]
DecimalComma = Annotated[bool, typer.Option("--decimal-comma", help="Numbers of a CSV are written as 10,5.")]
TimeUnit = Annotated[
    list[str] | None,
    typer.Option(
        "--time-unit",
        help="Of whole numbers in time columns whose names have none: s, ms, us, ns or yyyymmdd; COLUMN=UNIT; repeat.",
    ),
]
TimeZone = Annotated[
    str | None, typer.Option("--time-zone", help="Of times without a zone, such as Europe/Berlin; default: UTC.")
]
TruncateTimes = Annotated[
    bool, typer.Option("--truncate-times", help="Cut digits below the contract's unit off, instead of refusing them.")
]


def declared_by(
    separator: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    decimal_comma: bool = False,
    time_unit: list[str] | None = None,
    time_zone: str | None = None,
    truncate_times: bool = False,
) -> Declared:
    """Return what the options declare.

    Raises
    ------
    BadParameter
        Naming the option and what it takes.
    """
    from millstream.adapters.files.csv_rows import Dialect
    from millstream.adapters.files.tabular import Declared
    from millstream.core.avro.reading import Reading

    separator = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or separator in '\r\n"'):
        raise typer.BadParameter(f"--separator {separator!r}: one character, such as ; or tab")
    if quote != "none" and (len(quote) != 1 or quote in "\r\n"):
        raise typer.BadParameter(f"--quote {quote!r}: one character, or none")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise typer.BadParameter(f"--encoding {encoding!r} is not known; such as utf-8, latin-1 or utf-16") from error
    if time_zone is not None:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise typer.BadParameter(f"--time-zone {time_zone!r} is no zone, such as Europe/Berlin or UTC") from error
    of_all, of_columns = _units(time_unit or [])
    return Declared(
        Dialect(separator, None if quote == "none" else quote, encoding),
        Reading(of_all, of_columns, time_zone, truncate_times, decimal_comma),
    )


def _units(options: list[str]) -> tuple[Unit | None, dict[str, Unit]]:
    from millstream.core.avro.reading import UNITS

    of_all: Unit | None = None
    of_columns: dict[str, Unit] = {}
    for option in options:
        column, _, unit = option.rpartition("=")
        if unit not in UNITS:
            raise typer.BadParameter(f"--time-unit {option}: one of {', '.join(UNITS)}, or COLUMN=UNIT")
        if column:
            of_columns[column] = unit
        else:
            of_all = unit
    return of_all, of_columns


def mapping_of(options: list[str]) -> dict[str, str]:
    """Return the columns and fields of ``--map COLUMN=FIELD``.

    Raises
    ------
    BadParameter
        One is not of that form.
    """
    pairs = [option.partition("=") for option in options]
    for column, equals, name in pairs:
        if not (column and equals and name):
            raise typer.BadParameter(f"--map {column}{equals}{name}: must be COLUMN=FIELD")
    return {column: name for column, _, name in pairs}
