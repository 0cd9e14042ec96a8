"""Framed Avro records to a columnar batch: both framings, any mix of writer schemas, poison as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro import decode_kernel as kernel
from millstream.core.avro import faults, skip_kernel
from millstream.core.avro.program import Layout, compile_program
from millstream.core.avro.rejection import rejection_of
from millstream.core.avro.schema import Schema, SchemaError, SchemaId
from millstream.core.batch import Array, Batch, Mask, Rejection, Rows

_U64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """What came of n records.

    Parameters
    ----------
    batch : Batch
        The m records that decoded, in input order.
    rows : int64 ndarray of shape (m,)
        Their positions among the n, ascending.
    rejections : list of Rejection, length n - m
        The others; ``row`` is the position among the n, ascending.
    """

    batch: Batch
    rows: Rows
    rejections: list[Rejection]


class RecordReader:
    """Decodes records of any writer schema as one reader schema.

    Parameters
    ----------
    reader : Schema
        What the columns will be; every field one that a column can hold.
    resolve : callable
        Returns the writer's schema of an id, or None when it is unknown; raises SchemaError when it is known but is no
        Avro record. Asked once per id and batch until it answers; other errors it raises (a registry that is away) pass
        through.

    Raises
    ------
    SchemaError
        If a field of the reader is of a type that no column can hold.
    """

    def __init__(self, reader: Schema, resolve: Callable[[SchemaId], Schema | None]) -> None:
        reader.require_columns()
        self.reader = reader
        self._resolve = resolve
        self._layout = Layout.of(reader)
        self._symbols = [_symbol_table(item.symbols) for item in reader.fields]
        self._refused: dict[SchemaId, SchemaError] = {}
        self._ids: list[SchemaId] = []
        self._known = np.zeros((0, 4), dtype=np.int64)
        self._steps = np.zeros((0, kernel.WIDTH), dtype=np.int64)
        self._step_names: list[str] = []
        self._step_notes: list[tuple[str, str]] = []
        self._types = np.zeros((1, skip_kernel.WIDTH), dtype=np.int64)
        self._stack = np.zeros((skip_kernel.MOST_NESTED, 3), dtype=np.int64)
        self._codes = np.zeros(1, dtype=np.int64)
        self._constants = b"\0"  # never empty, so that the buffer is not
        self._learn(reader.id, reader)

    def decode(self, values: Sequence[bytes | None], max_bytes: int) -> DecodeResult:
        """Decode records; any bytes whatever give a row or a rejection, never an exception.

        Parameters
        ----------
        values : sequence of bytes or None, length n
            Framed records; None is a tombstone.
        max_bytes : int
            Longer values are rejected unread.

        Returns
        -------
        DecodeResult
            Reasons of rejections: ``null-value``, ``oversize``, ``unknown-framing``, ``unknown-schema``,
            ``incompatible-schema``, ``undecodable``.
        """
        n = len(values)
        try:
            lengths = np.fromiter(map(len, values), dtype=np.int64, count=n)  # type: ignore[arg-type]
            present: list[bytes] = list(values)  # type: ignore[arg-type]
        except TypeError:
            lengths = np.array([-1 if value is None else len(value) for value in values], dtype=np.int64)
            present = [value for value in values if value is not None]
        layout = self._layout
        words = np.empty((layout.words, n), dtype=np.int64)
        nulls = np.empty((layout.nulls, n), dtype=np.bool_)
        codes = np.empty((3, n), dtype=np.int64)
        tried: set[SchemaId] = set()
        while True:
            data = b"".join([*present, self._constants])
            counts = np.zeros(layout.nulls + layout.words, dtype=np.int64)
            m = kernel.decode(
                np.frombuffer(data, dtype=np.uint8),
                lengths,
                max_bytes,
                self._known,
                self._steps,
                self._codes,
                self._types,
                len(data) - len(self._constants),
                words,
                nulls,
                counts,
                codes[0],
                codes[1],
                codes[2],
                self._stack,
            )
            if m == n:
                return DecodeResult(self._batch(m, data, words, nulls, counts), np.arange(n, dtype=np.int64), [])
            if not self._learn_unknown(values, codes, tried):
                break
        bad = np.flatnonzero(codes[0])
        rejections = [
            self._rejection(row, int(codes[0, row]), int(codes[1, row]), int(codes[2, row]), values[row])
            for row in bad.tolist()
        ]
        return DecodeResult(
            self._batch(m, data, words, nulls, counts), np.flatnonzero(codes[0] == faults.OK), rejections
        )

    def _batch(
        self, m: int, data: bytes, words: NDArray[np.int64], nulls: NDArray[np.bool_], counts: NDArray[np.int64]
    ) -> Batch:
        layout = self._layout
        columns: dict[str, Array] = {}
        masks: dict[str, Mask] = {}
        flat: str | None = None
        for index, item in enumerate(self.reader.fields):
            slot, null_slot = layout.slots[index], layout.null_slots[index]
            column = words[slot, :m]
            if item.kind in {"float", "double"}:
                columns[item.name] = column.view(np.float64)
            elif item.kind == "boolean":
                columns[item.name] = column.astype(np.bool_)
            elif item.kind == "enum":
                columns[item.name] = self._symbols[index][column]
            elif item.kind in {"string", "bytes", "fixed"}:
                starts = column.tolist()
                ends = (column + words[slot + 1, :m]).tolist()
                cells = np.empty(m, dtype=object)
                if item.kind != "string":
                    cells[:] = [data[a:b] for a, b in zip(starts, ends, strict=True)]
                elif counts[layout.nulls + slot]:
                    cells[:] = [data[a:b].decode() for a, b in zip(starts, ends, strict=True)]
                else:  # all ASCII: slices of one text are three times as fast
                    flat = data.decode("latin-1") if flat is None else flat
                    cells[:] = [flat[a:b] for a, b in zip(starts, ends, strict=True)]
                columns[item.name] = cells
            else:
                columns[item.name] = column
            if null_slot >= 0 and counts[null_slot]:
                masks[item.name] = nulls[null_slot, :m]
        return Batch(m, columns, masks)

    def _learn_unknown(self, values: Sequence[bytes | None], codes: NDArray[np.int64], tried: set[SchemaId]) -> bool:
        """Resolve ids met for the first time; return whether any is now known, so that the batch is read again."""
        rows = np.flatnonzero(codes[0] == faults.UNKNOWN).tolist()
        fresh = {_schema_id(values[row], int(codes[1, row])) for row in rows} - tried
        tried |= fresh
        learnt = False
        for number in sorted(fresh):
            writer: Schema | SchemaError | None
            try:
                writer = self._resolve(number)
            except SchemaError as error:
                writer = error
            if writer is not None:
                self._learn(number, writer)
                learnt = True
        return learnt

    def _learn(self, number: SchemaId, writer: Schema | SchemaError) -> None:
        first = last = -1
        try:
            if isinstance(writer, SchemaError):
                raise writer
            program = compile_program(writer, self.reader, self._layout)
        except SchemaError as error:
            self._refused[number] = error
        else:
            first, last = len(self._steps), len(self._steps) + program.main
            steps = program.placed(first, len(self._codes), len(self._constants), len(self._types))
            self._steps = np.concatenate([self._steps, steps])
            self._step_names += program.names
            self._step_notes += program.notes
            self._codes = np.concatenate([self._codes, np.array(program.symbols, dtype=np.int64)])
            self._constants += bytes(program.constants)
            self._types = np.concatenate([self._types, program.placed_types(len(self._types))])
        signed = number.number - (1 << 64) if number.number >= 1 << 63 else number.number
        row = np.array([[int(number.kind == "registry"), signed, first, last]], dtype=np.int64)
        self._known = np.concatenate([self._known, row])
        self._ids.append(number)

    def _rejection(self, row: int, code: int, where: int, found: int, value: bytes | None) -> Rejection:
        if code == faults.UNKNOWN:
            return rejection_of(row, code, value, unknown=_schema_id(value, where))
        if code == faults.INCOMPATIBLE:
            return rejection_of(row, code, value, refused=self._refused[self._ids[where]])
        if code in {faults.NULL_VALUE, faults.OVERSIZE, faults.FRAMING, faults.TRAILING}:
            return rejection_of(row, code, value)
        name = self._step_names[where]
        private = name in self.reader.names and self.reader[name].attributes.get("pii", "none") != "none"
        return rejection_of(row, code, value, name, self._step_notes[where], "a value" if private else str(found))


def _schema_id(value: bytes | None, number: int) -> SchemaId:
    return SchemaId("registry", number) if value and value[0] == 0 else SchemaId("fingerprint", number & _U64)


def _symbol_table(symbols: tuple[str, ...]) -> Array:
    table = np.empty(len(symbols), dtype=object)
    table[:] = symbols
    return table
