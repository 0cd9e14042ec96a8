"""Random flat schemas and records of them, for the codec's tests."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import fastavro
import numpy as np
from hypothesis import strategies as st

from millstream.core.avro.schema import Schema
from millstream.core.batch import Array, Batch, Mask

SYMBOLS = ["red", "green", "blue"]
ENUM = {"type": "enum", "name": "Colour", "symbols": SYMBOLS}
KINDS = ["int", "long", "float", "double", "boolean", "string", "bytes", "enum"]
DTYPES = {"int": np.int64, "long": np.int64, "float": np.float64, "double": np.float64, "boolean": np.bool_}

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "boolean": st.booleans(),
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=12),
    "enum": st.sampled_from(SYMBOLS),
}


def record(fields: list[dict[str, Any]], name: str = "Thing") -> dict[str, Any]:
    """Avro JSON of a record; an enum is defined where it is first used."""
    return {"type": "record", "name": name, "namespace": "test", "fields": fields}


def avro_type(kind: str, union: str | None, defined: set[str]) -> Any:
    """Avro type of a kind, in a union with null on the given side or in none."""
    inner: Any = kind
    if kind == "enum":
        inner = "Colour" if defined else ENUM
        defined.add("Colour")
    return {"first": ["null", inner], "last": [inner, "null"]}.get(union or "", inner)


@st.composite
def specs(draw: st.DrawFn, max_fields: int = 6) -> dict[str, Any]:
    """Draw a flat record schema."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=0, max_size=max_fields))
    defined: set[str] = set()
    unions = st.sampled_from([None, None, "first", "last"])
    return record([{"name": f"f{i}", "type": avro_type(kind, draw(unions), defined)} for i, kind in enumerate(kinds)])


@st.composite
def records(draw: st.DrawFn, schema: Schema, max_size: int = 5) -> list[dict[str, Any]]:
    """Draw records of a schema."""
    fields = {
        item.name: st.none() | VALUES[item.kind] if item.nullable else VALUES[item.kind] for item in schema.fields
    }
    return draw(st.lists(st.fixed_dictionaries(fields), max_size=max_size))


def write(spec: dict[str, Any], value: dict[str, Any]) -> bytes:
    """Encode one record with fastavro, unframed."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(spec), value)
    return out.getvalue()


def batch_of(schema: Schema, values: list[dict[str, Any]]) -> Batch:
    """Put records into columns."""
    columns: dict[str, Array] = {}
    nulls: dict[str, Mask] = {}
    blank: dict[str, Any] = {"string": "", "bytes": b"", "enum": SYMBOLS[0]}
    for item in schema.fields:
        cells = [value[item.name] for value in values]
        column: Array = np.empty(len(cells), dtype=DTYPES.get(item.kind, object))
        column[:] = [blank.get(item.kind, 0) if cell is None else cell for cell in cells]
        columns[item.name] = column
        if any(cell is None for cell in cells):
            nulls[item.name] = np.array([cell is None for cell in cells])
    return Batch(len(values), columns, nulls)


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """Take records out of columns."""
    return [
        {name: None if batch.is_null(name)[i] else column[i] for name, column in batch.columns.items()}
        for i in range(batch.length)
    ]


def same(left: Any, right: Any) -> bool:
    """Equality by bits, except that all NaNs are one."""
    if isinstance(left, float) and isinstance(right, float) and not (math.isnan(left) and math.isnan(right)):
        return struct.pack("<d", left) == struct.pack("<d", right)
    if isinstance(left, float) and isinstance(right, float):
        return True
    return bool(left == right) and (left is None) == (right is None)
