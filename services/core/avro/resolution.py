"""Avro schema resolution, writer to reader, compiled to a decode program.

Fields match by name, else by the reader's aliases; a field the writer lacks takes the reader's default; numbers widen
(int, long, float, double); string and bytes interchange; a writer's null meets a non-null reader as a fault of that
record only; enum symbols the reader lacks become the reader enum's default, else a fault of that record.

References
----------
.. [1] Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.core.avro import decode_kernel as kernel
from services.core.avro.schema import Field, Missing, Schema, SchemaError

_READ: Final = {
    "int": kernel.READ_INT,
    "long": kernel.READ_LONG,
    "float": kernel.READ_FLOAT,
    "double": kernel.READ_DOUBLE,
    "boolean": kernel.READ_BOOLEAN,
    "string": kernel.READ_STRING,
    "bytes": kernel.READ_BYTES,
    "enum": kernel.READ_ENUM,
}
_TARGET: Final = {
    "int": kernel.TO_INT,
    "long": kernel.TO_INT,
    "float": kernel.TO_REAL,
    "double": kernel.TO_REAL,
    "boolean": kernel.TO_INT,
    "string": kernel.TO_TEXT,
    "bytes": kernel.TO_BYTES,
    "enum": kernel.TO_INT,
}
READS: Final = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "double": {"double"},
    "boolean": {"boolean"},
    "string": {"string", "bytes"},
    "bytes": {"string", "bytes"},
    "enum": {"enum"},
}
"""For each writer's kind, the reader's kinds it may be read as."""


@dataclass(frozen=True)
class Layout:
    """Where each reader field lives in the kernel's output: word slots (text takes two) and null slots."""

    slots: tuple[int, ...]
    null_slots: tuple[int, ...]
    words: int
    nulls: int

    @staticmethod
    def of(schema: Schema) -> Layout:
        """Lay out the fields of a schema in order."""
        slots, null_slots, words, nulls = [], [], 0, 0
        for item in schema.fields:
            slots.append(words)
            words += 2 if item.kind in {"string", "bytes"} else 1
            null_slots.append(nulls if item.nullable else -1)
            nulls += item.nullable
        return Layout(tuple(slots), tuple(null_slots), words, nulls)


@dataclass(frozen=True)
class Program:
    """A compiled writer: kernel steps, the field name of each, enum codes and constants."""

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    symbols: tuple[int, ...]
    constants: bytes


def same_record(writer: Schema, reader: Schema) -> bool:
    """Tell whether the reader may read this writer's record by its name: equal unqualified names, or an alias."""
    return _short(writer.name) == _short(reader.name) or writer.name in reader.aliases


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def pair(writer: Schema, reader: Schema) -> tuple[dict[str, Field], list[Field]]:
    """Return the reader field of each writer field that has one, and the reader fields left to their defaults."""
    written = set(writer.names)
    pairs: dict[str, Field] = {item.name: item for item in reader.fields if item.name in written}
    missing: list[Field] = []
    for item in reader.fields:
        if item.name in written:
            continue
        source = next((alias for alias in item.aliases if alias in written and alias not in pairs), None)
        if source is None:
            missing.append(item)
        else:
            pairs[source] = item
    return pairs, missing


def mismatches(writer: Schema, reader: Schema) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, field, sentence) for everything that keeps ``reader`` from reading ``writer``'s records."""
    if not same_record(writer, reader):
        yield "record-name", "", f"the record is named {writer.name}, the reader's {reader.name} has no such alias"
    pairs, missing = pair(writer, reader)
    for item in missing:
        if isinstance(item.default, Missing):
            yield (
                "missing-default",
                item.name,
                f"the writer has no field {item.name!r} and the reader no default for it",
            )
    for source in writer.fields:
        target = pairs.get(source.name)
        if target is None:
            continue
        if target.kind not in READS[source.kind]:
            yield "type", target.name, f"{source.kind} cannot be read as {target.kind}"
        elif target.kind == "enum":
            if _short(source.enum_name) != _short(target.enum_name):
                yield "type", target.name, f"enum {source.enum_name} cannot be read as enum {target.enum_name}"
            lost = [symbol for symbol in source.symbols if symbol not in target.symbols]
            if lost and target.enum_default is None:
                yield "enum-symbols", target.name, f"symbols {lost} are unknown to the reader, which has no default"
        if source.nullable and not target.nullable:
            yield "null", target.name, "the writer may write null and the reader does not allow it"


PER_RECORD: Final = frozenset({"enum-symbols", "null"})
"""Rules of `mismatches` that only bite on records that hold such a value."""


def compile_program(writer: Schema, reader: Schema, layout: Layout) -> Program:
    """Compile the steps that read one record of ``writer`` into the columns of ``reader``.

    Raises
    ------
    SchemaError
        If no record of the writer can be read, with all reasons.
    """
    faults = [text for rule, _, text in mismatches(writer, reader) if rule not in PER_RECORD]
    if faults:
        raise SchemaError(f"{writer.name} cannot be read as {reader.name}: {'; '.join(faults)}")
    pairs, missing = pair(writer, reader)
    place = {item.name: (layout.slots[i], layout.null_slots[i]) for i, item in enumerate(reader.fields)}
    steps: list[list[int]] = []
    symbols: list[int] = []
    constants = bytearray()
    for source in writer.fields:
        target = pairs.get(source.name)
        step = [_READ[source.kind], (0 if source.null_first else 1) if source.nullable else -1, kernel.TO_NOTHING]
        slot, null_slot = (0, -1) if target is None else place[target.name]
        step[2] = kernel.TO_NOTHING if target is None else _TARGET[target.kind]
        steps.append([*step, slot, null_slot, len(symbols), len(source.symbols)])
        symbols += [] if target is None else _symbol_codes(source, target)
    for item in missing:
        aux, count = _constant(item, constants)
        slot, null_slot = place[item.name]
        steps.append([kernel.READ_DEFAULT, -1, _TARGET[item.kind], slot, null_slot, aux, count])
    names = (*writer.names, *(item.name for item in missing))
    matrix = np.array(steps, dtype=np.int64).reshape(len(steps), kernel.WIDTH)
    return Program(matrix, names, tuple(symbols), bytes(constants))


def _symbol_codes(source: Field, target: Field) -> list[int]:
    code = {symbol: i for i, symbol in enumerate(target.symbols)}
    fallback = -1 if target.enum_default is None else code.get(target.enum_default, -1)
    return [code.get(symbol, fallback) for symbol in source.symbols]


def _constant(item: Field, constants: bytearray) -> tuple[int, int]:
    """Return AUX and COUNT of a default: a word, or a place in the constants; COUNT -1 is null."""
    value = item.default
    if value is None:
        return 0, -1
    if isinstance(value, str) and item.kind == "enum":
        return item.symbols.index(value), 0
    if isinstance(value, str | bytes):
        raw = value.encode() if isinstance(value, str) else value
        constants += raw
        return len(constants) - len(raw), len(raw)
    if isinstance(value, float):
        return int(np.float64(value).view(np.int64)), 0
    assert isinstance(value, int)
    return value, 0
