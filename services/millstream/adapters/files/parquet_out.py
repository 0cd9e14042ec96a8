"""Writes batches to one Parquet file, which appears under its name only when complete."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch

if TYPE_CHECKING:
    from typing import Self

_TYPES = {
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
}


def to_table(batch: Batch, schema: Schema) -> pa.Table:
    """Return the schema's columns of a batch as an Arrow table; times stay integers with their unit in the name."""
    arrays = []
    for field in schema.fields:
        mask = batch.nulls.get(field.name)
        values = batch.columns[field.name]
        kind = _TYPES[field.kind]
        made = pa.array(values, mask=mask, from_pandas=False)
        arrays.append(made if made.type == kind else made.cast(kind))
    return pa.Table.from_arrays(arrays, names=[field.name for field in schema.fields])


class ParquetOut:
    """A Parquet file being written; use as a context manager.

    Parameters
    ----------
    path : Path
        Where it will be; while it grows it is ``{path}.part``, removed if writing fails.
    schema : Schema
        Its columns.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrow = pa.schema([pa.field(field.name, _TYPES[field.kind]) for field in self._schema.fields])
        self._writer = pq.ParquetWriter(self._part, arrow, compression="zstd", compression_level=1)
        return self

    def write(self, batch: Batch) -> None:
        """Append rows."""
        if batch.length and self._writer is not None:
            self._writer.write_table(to_table(batch, self._schema))
            self.rows += batch.length

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            self._part.rename(self._path)
        else:
            self._part.unlink(missing_ok=True)
