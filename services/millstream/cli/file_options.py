"""Options of every command that reads a file: what the file itself does not define."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from millstream.adapters.files.tabular import Declared

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
    from millstream.app.file_format import declare
    from millstream.errors import Misconfigured

    try:
        return declare(separator, quote, encoding, decimal_comma, time_unit or (), time_zone, truncate_times)
    except Misconfigured as error:
        raise typer.BadParameter(str(error)) from error


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
