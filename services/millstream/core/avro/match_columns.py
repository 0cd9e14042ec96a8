"""Matching of a table's columns to the fields of a contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from millstream.core.avro.reading import TIME_SUFFIXES
from millstream.core.avro.schema import MISSING, Field
from millstream.core.avro.times_read import PER_SECOND

_UNITS = ("_eur",)


class ColumnMatch(NamedTuple):
    """``columns`` maps each field to its column; ``problems`` are sentences, empty when every field has a place."""

    columns: Mapping[str, str]
    problems: tuple[str, ...]


def match_columns(fields: Sequence[Field], available: Sequence[str], mapping: Mapping[str, str]) -> ColumnMatch:
    """Find a column for each field.

    Parameters
    ----------
    fields : sequence of Field
        What the contract wants. A field with a default, or one that may be null, may go without a column.
    available : sequence of str
        Column names of the table.
    mapping : mapping of column name to field name
        The user's mapping; it takes precedence. Otherwise a column matches that has, in upper or lower case, the
        field's name, one of its Avro aliases, or its name without the unit; of a time also its name with another unit
        of time. A number that is no point in time, such as ``delay_s``, has no such choice: its unit would be a guess.

    Examples
    --------
    >>> at = Field("event_time_ms", "long", logical_type="timestamp-millis")
    >>> wanted = [at, Field("amount", "double", aliases=("TX_AMOUNT",))]
    >>> match_columns(wanted, ["Event_Time", "tx_amount"], {}).columns
    {'event_time_ms': 'Event_Time', 'amount': 'tx_amount'}
    """
    names = [field.name for field in fields]
    problems = [
        f"there is no column {column!r} to map to {name!r}; the columns are {', '.join(available)}"
        for column, name in mapping.items()
        if column not in available
    ]
    problems += [
        f"{name!r} (mapped from {column!r}) is no field of the contract; the fields are {', '.join(names)}"
        for column, name in mapping.items()
        if name not in names
    ]
    columns: dict[str, str] = {}
    for field in fields:
        mapped = [column for column, name in mapping.items() if name == field.name]
        found = mapped or _candidates(field, [column for column in available if column not in mapping])
        if len(found) > 1:
            problems.append(
                f"{field.name!r} could be any of {', '.join(found)}; say which with --map COLUMN={field.name}"
            )
        elif found:
            columns[field.name] = found[0]
        elif not field.nullable and field.default is MISSING:
            problems.append(
                f"no column for {field.name!r}; the columns are {', '.join(available)}. "
                f"Name it with --map COLUMN={field.name}"
            )
    return ColumnMatch(columns, tuple(problems))


def _candidates(field: Field, available: Sequence[str]) -> list[str]:
    """Return the columns that match by the first rule under which any does."""
    lowered = field.name.lower()
    timed = field.logical_type in PER_SECOND
    units = TIME_SUFFIXES if timed else _UNITS
    bare = next((lowered.removesuffix(unit) for unit in units if lowered.endswith(unit)), lowered)
    if field.name in available:
        return [field.name]
    other_units = {bare + suffix for suffix in TIME_SUFFIXES} if timed else set()
    for accepted in ({lowered}, {alias.lower() for alias in field.aliases}, {bare}, other_units):
        found = [column for column in available if column.lower() in accepted]
        if found:
            return found
    return []
