"""Columns of any table into the columns a contract's batch has, losing nothing in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from services.core.avro.schema import MISSING, Field
from services.core.batch import Array, Batch, Mask, Rejection

_DTYPES: Mapping[str, type[np.generic]] = {
    "int": np.int64,
    "long": np.int64,
    "float": np.float64,
    "double": np.float64,
    "boolean": np.bool_,
}
_UNITS: Mapping[str, int] = {"timestamp-millis": 1000, "timestamp-micros": 1}  # microseconds per unit


class Converted(NamedTuple):
    """A converted column; ``failed`` marks values that could not be, ``nulls`` those that are null and may be."""

    values: Array
    nulls: Mask
    failed: Mask


def to_batch(fields: Sequence[Field], columns: Mapping[str, str], frame: pl.DataFrame) -> tuple[Batch, list[Rejection]]:
    """Convert a table.

    Parameters
    ----------
    fields : sequence of Field
        Fields of the contract. One without a column takes its default.
    columns : mapping of field name to column name
        Where each field is found; see `match_columns`.
    frame : DataFrame of shape (n, any)
        Numbers, booleans, texts, bytes, dates or times. Times without a zone are UTC. Text is parsed; an empty text is
        null unless the field holds text itself.

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
        converted = convert(series, field)
        values[field.name] = converted.values
        nulls |= {field.name: converted.nulls} if converted.nulls.any() else {}
        for row in np.flatnonzero(converted.failed).tolist():
            rejections.append(_rejection(row, field, series[row]))
    return Batch(frame.height, values, nulls), sorted(rejections, key=lambda rejection: rejection.row)


def _rejection(row: int, field: Field, found: object) -> Rejection:
    if found is None or found == "":
        return Rejection(row, "null-value", field.name, f"no value; {field.name} must have one")
    kind = field.logical_type or field.kind
    return Rejection(row, "type", field.name, f"found {found!r}, which is no {kind}")


def _dtype(field: Field) -> type[np.generic]:
    return _DTYPES.get(field.kind, np.object_)


def _defaults(field: Field, count: int) -> tuple[Array, Mask]:
    null = field.default in (None, MISSING)
    empty: object = b"" if field.kind == "bytes" else "" if _dtype(field) is np.object_ else 0
    return np.full(count, empty if null else field.default, dtype=_dtype(field)), np.full(count, null)


def convert(series: pl.Series, field: Field) -> Converted:
    """Convert one column to what ``field`` holds.

    Parameters
    ----------
    series : Series of length n
        See `to_batch`.
    field : Field
        Its kind, range, logical type, nullability and default are honoured; constraints beyond those are not looked at.

    Examples
    --------
    >>> convert(pl.Series(["7", "x", None]), Field("a", "long", nullable=True))
    Converted(values=array([7, 0, 0]), nulls=array([False, False,  True]), failed=array([False,  True, False]))
    """
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String and (field.kind not in {"string", "enum"} or field.nullable):
        series = series.set(series == "", None)
    absent = series.is_null().to_numpy()
    if field.kind in {"int", "long"}:
        made = _integers(series, field)
    elif field.kind in {"float", "double"}:
        known = series.dtype.is_numeric() or series.dtype == pl.String
        made = series.cast(pl.Float64, strict=False) if known else _nothing(series, pl.Float64)
    elif field.kind == "boolean":
        made = _booleans(series)
    elif field.kind == "bytes":
        made = series if series.dtype == pl.Binary else _nothing(series, pl.Binary)
    else:
        known = series.dtype == pl.String or series.dtype.is_integer()
        made = series.cast(pl.String) if known else _nothing(series, pl.String)
        if field.kind == "enum":
            made = made.set(~made.is_in(field.symbols), None)
    failed = made.is_null().to_numpy() & ~absent
    return _filled(made, absent, failed, field)


def _filled(made: pl.Series, absent: Mask, failed: Mask, field: Field) -> Converted:
    """Decide what a null stands for, and put something of the right dtype in its place."""
    filler, null = _defaults(field, 1)
    values = np.empty(len(made), dtype=_dtype(field))
    values[:] = made.fill_null(filler[0].item()).to_numpy() if values.dtype != np.object_ else made.to_list()
    values[absent | failed] = filler[0]
    if field.nullable:
        return Converted(values, absent, failed)
    if field.default is not MISSING and not null[0]:
        return Converted(values, np.zeros_like(absent), failed)
    return Converted(values, np.zeros_like(absent), failed | absent)


def _nothing(series: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    return pl.Series([None] * len(series), dtype=dtype)


def _integers(series: pl.Series, field: Field) -> pl.Series:
    unit_us = _UNITS.get(field.logical_type or "")
    if series.dtype.is_integer():
        made = series.cast(pl.Int64, strict=False)
    elif series.dtype.is_float():
        made = series.cast(pl.Int64, strict=False)
        made = made.set(made.cast(pl.Float64) != series, None)
    elif series.dtype in (pl.Datetime, pl.Date) and unit_us is not None:
        made = series.cast(pl.Datetime("us")).dt.epoch("us") // unit_us
    elif series.dtype == pl.String:
        made = series.str.strip_chars().cast(pl.Int64, strict=False)
        if unit_us is not None and made.null_count() > series.null_count():
            made = made.zip_with(made.is_not_null(), _times(series, unit_us))
    else:
        made = _nothing(series, pl.Int64)
    if field.kind == "int":
        made = made.set((made < -(1 << 31)) | (made >= 1 << 31), None)
    return made


def _times(series: pl.Series, unit_us: int) -> pl.Series:
    """Read ISO 8601 texts, in UTC unless they say otherwise; null where they are none."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    made: list[int | None] = []
    for text in series:
        try:
            moment = datetime.fromisoformat(text.strip()) if text is not None else None
        except ValueError:
            moment = None
        if moment is None:
            made.append(None)
            continue
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - epoch
        made.append((since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds) // unit_us)
    return pl.Series(made, dtype=pl.Int64)


def _booleans(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series
    if series.dtype.is_integer():
        return series.cast(pl.String).replace_strict({"0": False, "1": True}, default=None, return_dtype=pl.Boolean)
    if series.dtype == pl.String:
        words = {"0": False, "1": True, "false": False, "true": True}
        return series.str.strip_chars().str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    return _nothing(series, pl.Boolean)
