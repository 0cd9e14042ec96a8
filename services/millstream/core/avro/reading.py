"""How a table's values are to be read where the values themselves do not say: units, zone and decimal mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Unit = Literal["s", "ms", "us", "ns", "yyyymmdd"]
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)

_SUFFIXES: Final[Mapping[str, Unit]] = {
    "_s": "s",
    "_sec": "s",
    "_secs": "s",
    "_seconds": "s",
    "_ms": "ms",
    "_millis": "ms",
    "_us": "us",
    "_micros": "us",
    "_ns": "ns",
    "_nanos": "ns",
    "_yyyymmdd": "yyyymmdd",
}
TIME_SUFFIXES: Final = tuple(_SUFFIXES)


def unit_in_name(column: str) -> Unit | None:
    """Return the unit of time that a column's name ends with, None where it has none.

    Examples
    --------
    >>> unit_in_name("EVENT_TIME_US"), unit_in_name("event_time")
    ('us', None)
    """
    lowered = column.lower()
    return next((unit for suffix, unit in _SUFFIXES.items() if lowered.endswith(suffix)), None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the user declares about a table.

    Parameters
    ----------
    time_unit : str or None
        Unit of whole numbers in time columns whose name ends with none.
    column_units : mapping of column name to str
        The same for single columns; it wins over the name.
    time_zone : str or None
        IANA name of the zone of times without one; None is UTC.
    truncate_times : bool
        Cut digits below the field's unit off; without it such a time is refused.
    decimal_comma : bool
        Numbers in text have a comma before their fraction, and no point.
    """

    time_unit: Unit | None = None
    column_units: Mapping[str, Unit] = field(default_factory=dict)
    time_zone: str | None = None
    truncate_times: bool = False
    decimal_comma: bool = False

    def unit_of(self, column: str) -> Unit | None:
        """Return the unit of a column's whole numbers, None where nothing declares one."""
        return self.column_units.get(column) or unit_in_name(column) or self.time_unit
