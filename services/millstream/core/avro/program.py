"""A writer's schema compiled to the steps that read its records into a reader's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro import decode_kernel as kernel
from millstream.core.avro import skip_kernel
from millstream.core.avro.logical_type import Scale, type_name
from millstream.core.avro.resolution import PER_RECORD, branches, mismatches, pair, reads_as
from millstream.core.avro.schema import Field, Schema, SchemaError
from millstream.core.avro.schema_type import described
from millstream.core.avro.skip_table import SkipTable

_READ: Final = {
    "int": kernel.READ_INT,
    "long": kernel.READ_LONG,
    "float": kernel.READ_FLOAT,
    "double": kernel.READ_DOUBLE,
    "boolean": kernel.READ_BOOLEAN,
    "string": kernel.READ_STRING,
    "bytes": kernel.READ_BYTES,
    "enum": kernel.READ_ENUM,
    "fixed": kernel.READ_FIXED,
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
    "fixed": kernel.TO_BYTES,
}
_BITS: Final = {"float": 24, "double": 53}


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
            words += 2 if item.kind in {"string", "bytes", "fixed"} else 1
            null_slots.append(nulls if item.nullable else -1)
            nulls += item.nullable
        return Layout(tuple(slots), tuple(null_slots), words, nulls)


@dataclass
class Program:
    """A compiled writer.

    Parameters
    ----------
    steps : list of rows
        Of the kernel; the first ``main`` read a record, the others are the branches of wide unions.
    main : int
        How many steps read a record.
    names, notes : list
        Per step the field's name, and the writer's and the reader's type for messages.
    symbols : list of int
        Enum codes.
    constants : bytearray
        Texts and bytes of defaults.
    types : list of rows
        Of `SkipTable`.
    """

    steps: list[list[int]] = field(default_factory=list)
    main: int = 0
    names: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    symbols: list[int] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    types: list[list[int]] = field(default_factory=list)

    def placed(self, steps: int, symbols: int, constants: int, types: int) -> NDArray[np.int64]:
        """Return the steps for a place after that many steps, symbols, constants and types of other programs."""
        made = np.array(self.steps, dtype=np.int64).reshape(len(self.steps), kernel.WIDTH)
        read, aux = made[:, kernel.READ], made[:, kernel.AUX]
        wide = made[:, kernel.NULL_BRANCH] == kernel.WIDE_UNION
        aux[wide] += steps
        aux[(read == kernel.READ_ENUM) & ~wide] += symbols
        aux[(read == kernel.READ_SKIP) & ~wide] += types
        aux[(read == kernel.READ_DEFAULT) & ~wide & (made[:, kernel.TARGET] >= kernel.TO_TEXT)] += constants
        return made

    def placed_types(self, types: int) -> NDArray[np.int64]:
        """Return the rows of types for a place after that many rows of other programs."""
        made = np.array(self.types, dtype=np.int64).reshape(len(self.types), skip_kernel.WIDTH)
        refers = np.isin(made[:, skip_kernel.KIND], skip_kernel.REFERRING)
        made[refers, skip_kernel.FIRST] += types
        return made


def compile_program(writer: Schema, reader: Schema, layout: Layout) -> Program:
    """Compile the steps that read one record of ``writer`` into the columns of ``reader``.

    Raises
    ------
    SchemaError
        If no record of the writer can be read, with all reasons and the first field at fault.
    """
    faults = [(name, text) for rule, name, text in mismatches(writer, reader) if rule not in PER_RECORD]
    if faults:
        reasons = "; ".join(f"field {name!r}: {text}" if name else text for name, text in faults)
        raise SchemaError(f"{writer.name} cannot be read as {reader.name}: {reasons}", faults[0][0])
    pairs, missing = pair(writer, reader)
    place = {item.name: (layout.slots[i], layout.null_slots[i]) for i, item in enumerate(reader.fields)}
    program, table = Program(), SkipTable(writer.definitions)
    unions: list[tuple[int, list[Field | None], Field]] = []
    for source in writer.fields:
        target = pairs.get(source.name)
        null_branch = (0 if source.null_first else 1) if source.nullable else kernel.NO_UNION
        if target is None:
            _add(program, source, null_branch, (0, -1), table)
            continue
        alternatives = branches(source, writer.definitions)
        simple = source.kind != "other" and reads_as(source, target) is not None
        if alternatives is not None and not simple and source.shape != "null":
            unions.append((len(program.steps), alternatives, target))
            step = [kernel.READ_SKIP, kernel.WIDE_UNION, kernel.TO_NOTHING, *place[target.name], 0, len(alternatives)]
            _append(program, step, target.name, "", type_name(target))
        elif source.kind == "other":
            _add_null(program, target, place[target.name])
        else:
            _add(program, source, null_branch, place[target.name], table, target)
    for item in missing:
        aux, count = _constant(item, program.constants)
        step = [kernel.READ_DEFAULT, kernel.NO_UNION, _TARGET[item.kind], *place[item.name], aux, count]
        _append(program, step, item.name, "", type_name(item))
    program.main = len(program.steps)
    for union, alternatives, target in unions:
        program.steps[union][kernel.AUX] = len(program.steps)
        for each in alternatives:
            if each is None:
                _add_null(program, target, place[target.name])
            elif reads_as(each, target) is not None:
                _add(program, each, kernel.NO_UNION, place[target.name], table, target)
            else:
                what = described(each.shape) if each.kind == "other" else type_name(each)
                step = [kernel.READ_MISFIT, kernel.NO_UNION, kernel.TO_NOTHING, 0, -1, 0, 0]
                _append(program, step, target.name, what, type_name(target))
    program.types = table.rows
    return program


def _append(program: Program, step: list[int], name: str, wrote: str, reads: str) -> None:
    program.steps.append(step)
    program.names.append(name)
    program.notes.append((wrote, reads))


def _add_null(program: Program, target: Field, place: tuple[int, int]) -> None:
    step = [kernel.READ_DEFAULT, kernel.NO_UNION, _TARGET[target.kind], *place, 0, -1]
    _append(program, step, target.name, "null", type_name(target))


def _add(
    program: Program,
    source: Field,
    null_branch: int,
    place: tuple[int, int],
    table: SkipTable,
    target: Field | None = None,
) -> None:
    """Add the step that reads a field, or skips it where there is no target."""
    if source.kind == "other":
        step = [kernel.READ_SKIP, kernel.NO_UNION, kernel.TO_NOTHING, *place, table.place(source.shape), 0]
        return _append(program, step, source.name, described(source.shape), "")
    aux, count, to = 0, source.size, kernel.TO_NOTHING
    if source.kind == "enum":
        aux, count = len(program.symbols), len(source.symbols)
    if target is not None:
        to = _TARGET[target.kind]
        how = reads_as(source, target) or Scale()
        if source.kind == "enum":
            program.symbols += _symbol_codes(source, target)
        elif how.factor > 1:
            to = kernel.TO_DIVIDED if how.divide else kernel.TO_MULTIPLIED
            aux, count = how.factor, int(target.kind == "int")
        elif source.kind in {"int", "long"}:
            aux = _BITS.get(target.kind, 0)
    step = [_READ[source.kind], null_branch, to, *place, aux, count]
    name = source.name if target is None else target.name
    return _append(program, step, name, type_name(source), type_name(target) if target is not None else "")


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
        real = np.float64(np.float32(value)) if item.kind == "float" else np.float64(value)
        return int(real.view(np.int64)), 0
    assert isinstance(value, int)
    return value, 0
