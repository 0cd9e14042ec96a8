"""Rows of a Parquet file, in the file's own types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from millstream.errors import Misconfigured


def parquet_columns(path: Path) -> tuple[tuple[str, ...], int]:
    """Return the columns and the number of rows.

    Raises
    ------
    Misconfigured
        It is no Parquet, or has a column name twice.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path)
        names = tuple(metadata.schema.to_arrow_schema().names)
    except (pyarrow.ArrowException, OSError) as error:
        raise Misconfigured(f"{path.name} cannot be read as Parquet: {error}") from error
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise Misconfigured(f"{path.name} must have distinct column names; more than once: {', '.join(twice)}")
    return names, metadata.num_rows


def parquet_frames(path: Path, columns: list[str], size: int) -> Iterator[pl.DataFrame]:
    """Yield some columns in frames of at most ``size`` rows.

    Raises
    ------
    Misconfigured
        The file is damaged, or a column is of a type that no field of a contract can hold.
    """
    import pyarrow
    import pyarrow.parquet

    # INT96 in nanoseconds wraps around for years before 1678 and after 2261.
    with pyarrow.parquet.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
        batches = file.iter_batches(batch_size=size, columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (pyarrow.ArrowException, OSError) as error:
                raise Misconfigured(f"{path.name} is damaged: {error}") from error
            if batch is None:
                return
            yield pl.DataFrame([_column(path, name, batch.column(name)) for name in columns])


def _column(path: Path, name: str, values: Any) -> pl.Series:
    import pyarrow

    if pyarrow.types.is_decimal256(values.type):
        try:
            values = values.cast(pyarrow.decimal128(38, values.type.scale))
        except pyarrow.ArrowInvalid:
            # Wider than any field: as text, which whole numbers, reals and texts are read from as exactly.
            values = values.cast(pyarrow.string())
    try:
        series = pl.from_arrow(pyarrow.table({name: values}))
    except (pl.exceptions.PolarsError, pyarrow.ArrowException) as error:
        raise Misconfigured(f"{path.name}: column {name!r} of type {values.type} cannot be read: {error}") from error
    assert isinstance(series, pl.DataFrame)
    return series.to_series()
