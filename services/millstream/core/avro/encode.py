"""A columnar batch to framed Avro records."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro import encode_kernel as kernel
from millstream.core.avro.schema import Field, Missing, Schema
from millstream.core.batch import Array, Batch

_PUT: Final = {
    "int": kernel.PUT_INT,
    "long": kernel.PUT_LONG,
    "float": kernel.PUT_FLOAT,
    "double": kernel.PUT_DOUBLE,
    "boolean": kernel.PUT_BOOLEAN,
    "string": kernel.PUT_TEXT,
    "bytes": kernel.PUT_TEXT,
    "enum": kernel.PUT_ENUM,
    "fixed": kernel.PUT_FIXED,
}
_DTYPES: Final = {
    "int": "iu",
    "long": "iu",
    "float": "fiu",
    "double": "fiu",
    "boolean": "b",
    "string": "O",
    "bytes": "O",
    "enum": "O",
    "fixed": "O",
}
_MOST_BYTES: Final = {
    "int": 5,
    "long": 10,
    "float": 4,
    "double": 8,
    "boolean": 1,
    "string": 10,
    "bytes": 10,
    "enum": 5,
    "fixed": 0,
}


class RecordWriter:
    """Encodes batches as one schema.

    Parameters
    ----------
    schema : Schema
        What is written; every field one that a column can hold.
    prefix : bytes, optional
        Framing put before each record; default: Avro's single-object header of the schema.
    """

    def __init__(self, schema: Schema, prefix: bytes | None = None) -> None:
        schema.require_columns()
        self.schema = schema
        self.prefix = schema.single_object_prefix if prefix is None else prefix
        self._codes = [{symbol: i for i, symbol in enumerate(item.symbols)} for item in schema.fields]
        self._plans: dict[tuple[bool, ...], _Plan] = {}

    def encode(self, batch: Batch) -> list[bytes]:
        """Return one framed record per row.

        Columns that the schema does not name are left out; a column that is absent takes the field's default.

        Raises
        ------
        ValueError
            If a column is absent and has no default, has a dtype its field cannot take, has nulls that the field does
            not allow, or holds a value out of the type's range.
        """
        n = batch.length
        present = tuple([name in batch.columns for name in self.schema.names])
        plan = self._plans.get(present)
        if plan is None:
            plan = self._plans.setdefault(present, _plan(self.schema, self.prefix, present))
        words = np.empty((plan.words, n), dtype=np.int64)
        nulls = np.zeros((plan.nulls, n), dtype=np.bool_)
        cursors = np.zeros(plan.words, dtype=np.int64)
        texts: list[bytes] = []
        used = 0
        for index, slot, null_slot in plan.inputs:
            item = self.schema.fields[index]
            column = batch.columns[item.name]
            mask = batch.nulls.get(item.name)
            if mask is not None:
                if null_slot >= 0:
                    nulls[null_slot] = mask
                elif mask.any():
                    raise ValueError(f"{self.schema.name}.{item.name}: the column has nulls, the field allows none")
            if column.dtype.kind not in _DTYPES[item.kind]:
                raise ValueError(f"{self.schema.name}.{item.name}: {column.dtype} cannot be written as {item.kind}")
            if item.kind in {"float", "double"}:
                words[slot].view(np.float64)[:] = column
            elif item.kind in {"string", "bytes", "fixed"}:
                cursors[slot] = used
                text = _put_text(item, column, words[slot])
                texts.append(text)
                used += len(text)
            elif item.kind == "enum":
                code = self._codes[index]
                words[slot] = [code.get(symbol, -1) for symbol in column.tolist()]
            else:
                words[slot] = column
        out = np.empty(n * plan.most_bytes + used, dtype=np.uint8)
        ends = np.empty(n, dtype=np.int64)
        text_buffer = np.frombuffer(b"".join([*texts, b"\0"]), dtype=np.uint8)
        row, step = kernel.encode(plan.steps, plan.constants, text_buffer, cursors, words, nulls, out, ends)
        if row >= 0:
            name = plan.names[step]
            value = batch.columns[name][row]
            raise ValueError(f"{self.schema.name}.{name}: row {row} holds {value!r}, no {self.schema[name].kind} of it")
        if n == 0:
            return []
        bounds = ends.tolist()
        blob = out[: bounds[-1]].tobytes()
        return [blob[a:b] for a, b in zip([0, *bounds[:-1]], bounds, strict=True)]


class _Plan:
    """Steps for one set of present columns; neighbouring constants are one step."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.names: list[str] = []
        self.inputs: list[tuple[int, int, int]] = []
        self.words = 0
        self.nulls = 0
        self.most_bytes = 0
        self.pool = bytearray()
        self.steps: NDArray[np.int64] = np.zeros((0, kernel.WIDTH), dtype=np.int64)
        self.constants: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)

    def constant(self, data: bytes) -> None:
        if self.rows and self.rows[-1][kernel.PUT] == kernel.CONSTANT:
            self.rows[-1][kernel.COUNT] += len(data)
        else:
            self.rows.append([kernel.CONSTANT, -1, 0, -1, len(self.pool), len(data)])
            self.names.append("")
        self.pool += data
        self.most_bytes += len(data)

    def column(self, index: int, item: Field) -> None:
        null_slot, null_branch = -1, -1
        if item.nullable:
            null_slot, null_branch = self.nulls, 0 if item.null_first else 1
            self.nulls += 1
        self.rows.append([_PUT[item.kind], null_branch, self.words, null_slot, 0, item.size])
        self.names.append(item.name)
        self.inputs.append((index, self.words, null_slot))
        self.words += 1
        self.most_bytes += _MOST_BYTES[item.kind] + item.nullable


def _plan(schema: Schema, prefix: bytes, present: tuple[bool, ...]) -> _Plan:
    plan = _Plan()
    plan.constant(prefix)
    for index, item in enumerate(schema.fields):
        if present[index]:
            plan.column(index, item)
        elif isinstance(item.default, Missing):
            raise ValueError(f"{schema.name}.{item.name}: the batch has no such column and the field no default")
        else:
            plan.constant(_encoded_default(item))
    plan.steps = np.array(plan.rows, dtype=np.int64)
    plan.constants = np.frombuffer(bytes(plan.pool) + b"\0", dtype=np.uint8)
    return plan


def _encoded_default(item: Field) -> bytes:
    """Return the wire bytes of a field's default, union branch included."""
    is_null = item.default is None
    branch = b""
    if item.nullable:
        branch = b"\0" if item.null_first == is_null else b"\2"
    if is_null:
        return branch
    single = Schema("D", (replace(item, nullable=False),))
    kinds = {"float": np.float64, "double": np.float64, "int": np.int64, "long": np.int64, "boolean": np.bool_}
    column: Array = np.empty(1, dtype=kinds.get(item.kind, object))
    column[0] = item.default
    return branch + RecordWriter(single, b"").encode(Batch(1, {item.name: column}))[0]


def _put_text(item: Field, column: Array, lengths: NDArray[np.int64]) -> bytes:
    """Fill the lengths in bytes of one text column; return its bytes end to end.

    A string may be given as its UTF-8 bytes, when all of the column are.
    """
    cells = column.tolist()
    if cells and cells[0] is cells[-1] and cells.count(cells[0]) == len(cells):  # one model, one arm
        cell = cells[0].encode() if isinstance(cells[0], str) else cells[0]
        lengths[:] = len(cell)
        return bytes(cell * len(cells))
    if item.kind == "string" and not (cells and isinstance(cells[0], bytes)):
        text = "".join(cells)
        data = text.encode()
        if len(data) != len(text):
            cells = [cell.encode() for cell in cells]
    else:
        data = b"".join(cells)
    lengths[:] = np.fromiter(map(len, cells), dtype=np.int64, count=len(cells))
    return data
