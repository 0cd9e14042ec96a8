"""Conversion of a table's columns to those of a contract, without silent loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from millstream.core.avro.calendar_read import CALENDAR, calendar
from millstream.core.avro.explain_cell import explain
from millstream.core.avro.numbers_read import booleans, nothing, number_texts, reals, texts, whole_numbers
from millstream.core.avro.reading import Reading
from millstream.core.avro.schema import MISSING, Field
from millstream.core.avro.times_read import PER_SECOND, times
from millstream.core.batch import Array, Batch, Mask, Rejection

_DTYPES: Mapping[str, type[np.generic]] = {
    "int": np.int64,
    "long": np.int64,
    "float": np.float64,
    "double": np.float64,
    "boolean": np.bool_,
}


_AS_NAMED = Reading()


class NumberText(str):
    """A number as JSON writes it, in a column that holds other things too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ConvertedColumn(NamedTuple):
    """A converted column; ``failed`` marks values that could not be, ``nulls`` those that are null and may be."""

    values: Array
    nulls: Mask
    failed: Mask


def to_batch(
    fields: Sequence[Field], columns: Mapping[str, str], frame: pl.DataFrame, reading: Reading = _AS_NAMED
) -> tuple[Batch, list[Rejection]]:
    """Convert a table, each cell on its own.

    Parameters
    ----------
    fields : sequence of Field
        Fields of the contract. One without a column takes its default.
    columns : mapping of field name to column name
        Where each field is found; see `match_columns`.
    frame : DataFrame of shape (n, any)
        Numbers, booleans, texts, bytes, dates or times, or objects of several of these kinds. Text is parsed; an empty
        text is null unless the field holds text itself.
    reading : Reading
        Units, zone and decimal mark that the values do not have in themselves.

    Returns
    -------
    batch : Batch of length n
        Rows with a rejection hold arbitrary values in the rejected field.
    rejections : list of Rejection
        One per row and field, by row.
    """
    values: dict[str, Array] = {}
    nulls: dict[str, Mask] = {}
    rejections: list[Rejection] = []
    for field in fields:
        if field.name not in columns:
            values[field.name], mask = _defaults(field, frame.height)
            nulls |= {field.name: mask} if mask.any() else {}
            continue
        series = frame[columns[field.name]]
        converted = convert(series, field, reading)
        values[field.name] = converted.values
        nulls |= {field.name: converted.nulls} if converted.nulls.any() else {}
        for row in np.flatnonzero(converted.failed).tolist():
            rejections.append(_rejection(row, field, series, reading))
    return Batch(frame.height, values, nulls), sorted(rejections, key=lambda rejection: rejection.row)


def _rejection(row: int, field: Field, series: pl.Series, reading: Reading) -> Rejection:
    found = series[row]
    if found is None or (isinstance(found, str) and not found.strip()):
        return Rejection(row, "null-value", field.name, f"no value; {field.name} must have one")
    return Rejection(row, "type", field.name, explain(found, field, series.name, reading))


def _dtype(field: Field) -> type[np.generic]:
    return _DTYPES.get(field.kind, np.object_)


def _defaults(field: Field, count: int) -> tuple[Array, Mask]:
    null = field.default in (None, MISSING)
    empty: object = b"" if field.kind in {"bytes", "fixed"} else "" if _dtype(field) is np.object_ else 0
    return np.full(count, empty if null else field.default, dtype=_dtype(field)), np.full(count, null)


def convert(series: pl.Series, field: Field, reading: Reading | None = None) -> ConvertedColumn:
    """Convert one column to what ``field`` holds.

    Parameters
    ----------
    series : Series of length n
        See `to_batch`.
    field : Field
        Its kind, range, logical type, nullability and default are honoured; constraints beyond those are not looked at.
    reading : Reading, optional
        Without it whole numbers in a time field are in its unit, whatever the column is called.

    Examples
    --------
    >>> convert(pl.Series(["7", "x", None]), Field("a", "long", nullable=True))
    ConvertedColumn(values=array([7, 0, 0]), nulls=array([False, False,  True]), failed=array([False,  True, False]))
    """
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.Object:
        return _of_several_kinds(series, field, reading)
    textual = field.kind in {"string", "enum"}
    if series.dtype == pl.String and (field.nullable or not textual):
        series = series.set(((series if textual else series.str.strip_chars()) == "").fill_null(False), None)
    absent = series.is_null().to_numpy()
    made = _made(series, field, reading)
    return _filled(made, absent, made.is_null().to_numpy() & ~absent, field)


def _made(series: pl.Series, field: Field, reading: Reading | None) -> pl.Series:
    """Return the column in the field's type, null where a value is none of it."""
    if field.kind in {"int", "long"}:
        return _integers(series, field, reading)
    if field.kind in {"float", "double"}:
        comma = reading is not None and reading.decimal_comma
        return reals(series, decimal_comma=comma, single=field.kind == "float")
    if field.kind == "boolean":
        return booleans(series)
    if field.kind in {"bytes", "fixed"}:
        made = series if series.dtype == pl.Binary else nothing(series, pl.Binary)
        return made.set(made.bin.size() != field.size, None) if field.kind == "fixed" else made
    made = texts(series)
    return made.set(~made.is_in(field.symbols), None) if field.kind == "enum" else made


def _of_several_kinds(series: pl.Series, field: Field, reading: Reading | None) -> ConvertedColumn:
    """Convert cells of several kinds, each as it would be in a column of its own kind."""
    cells = series.to_list()
    kind_of = {str: 0, bool: 1}
    kinds = np.array([-1 if cell is None else kind_of.get(type(cell), 2) for cell in cells], dtype=np.int8)
    whole = convert(pl.Series(series.name, [None] * len(cells), dtype=pl.String), field, reading)
    for kind, dtype in enumerate((pl.String, pl.Boolean, pl.String)):
        rows = np.flatnonzero(kinds == kind)
        mine = [cells[row] if kind == 1 else str(cells[row]) for row in rows.tolist()]
        part = pl.Series(series.name, mine, dtype=dtype)
        if kind == 2 and field.kind in {"string", "enum"}:
            part = number_texts(part)
            made = convert(part, field, reading)
            made.failed[:] |= part.is_null().to_numpy()
            made.nulls[:] &= ~made.failed
        else:
            made = convert(part, field, reading)
        for into, values in zip(whole, made, strict=True):
            into[rows] = values
    return whole


def _filled(made: pl.Series, absent: Mask, failed: Mask, field: Field) -> ConvertedColumn:
    """Decide what a null stands for, and put something of the right dtype in its place."""
    filler, null = _defaults(field, 1)
    values = np.empty(len(made), dtype=_dtype(field))
    values[:] = made.fill_null(filler[0].item()).to_numpy() if values.dtype != np.object_ else made.to_list()
    values[absent | failed] = filler[0]
    if field.nullable:
        return ConvertedColumn(values, absent.copy(), failed)
    if field.default is not MISSING and not null[0]:
        return ConvertedColumn(values, np.zeros_like(absent), failed)
    return ConvertedColumn(values, np.zeros_like(absent), failed | absent)


def _integers(series: pl.Series, field: Field, reading: Reading | None) -> pl.Series:
    logical = field.logical_type or ""
    if logical in PER_SECOND:
        return times(series, logical, reading)
    made = calendar(series, logical, reading) if logical in CALENDAR else whole_numbers(series)
    if field.kind == "int":
        made = made.set((made < -(1 << 31)) | (made >= 1 << 31), None)
    return made
