"""Reasons and messages for records that cannot be read."""

from __future__ import annotations

from typing import Final

from millstream.core.avro import faults
from millstream.core.avro.schema import SchemaError, SchemaId
from millstream.core.avro.skip_kernel import MOST_NESTED
from millstream.core.batch import Rejection

_UNDECODABLE: Final = {
    faults.TRUNCATED: "ends in the middle of this field",
    faults.VARINT: "holds a varint that does not fit 64 bits",
    faults.INT_RANGE: "holds an int that does not fit 32 bits",
    faults.BRANCH: "holds a union branch that does not exist",
    faults.LENGTH: "holds a negative length",
    faults.UTF8: "is not UTF-8",
    faults.BOOLEAN: "holds a boolean that is neither 0 nor 1",
    faults.SYMBOL_INDEX: "holds an enum index that does not exist",
    faults.SYMBOL: "holds an enum symbol that the contract does not know",
    faults.NULL: "is null, which the contract does not allow",
    faults.BLOCK: "holds a block whose size differs from the declared one",
    faults.DEPTH: f"is nested more than {MOST_NESTED} levels deep",
}
_INCOMPATIBLE: Final = {
    faults.MISFIT: "holds {wrote}, which cannot be read as {reads}",
    faults.INEXACT: "holds {found} as {wrote}, which is no whole number of {reads}",
    faults.TOO_LARGE: "holds {found} as {wrote}, which does not fit {reads}",
    faults.NOT_HELD: "holds {found} as {wrote}, which {reads} cannot hold exactly",
}
_WHOLE: Final = {
    faults.NULL_VALUE: ("null-value", "the record has no value (a tombstone)"),
    faults.OVERSIZE: ("oversize", "the record has {size} bytes, more than the limit"),
    faults.TRAILING: ("undecodable", "bytes are left over after the last field"),
    faults.FRAMING: (
        "unknown-framing",
        "{size} bytes beginning with {head}: neither C3 01 + fingerprint nor 00 + schema id. Two framings of Avro are "
        "read: single-object encoding (C3 01, then the fingerprint of the writer's schema, 8 bytes little-endian) and "
        "a schema registry's (00, then the schema id, 4 bytes big-endian)",
    ),
}


def rejection_of(
    row: int,
    code: int,
    value: bytes | None,
    field: str = "",
    types: tuple[str, str] = ("", ""),
    found: str = "",
    unknown: SchemaId | None = None,
    refused: SchemaError | None = None,
) -> Rejection:
    """Return the rejection of a record.

    Parameters
    ----------
    row, code : int
        Position of the record and the kernel's fault.
    value : bytes or None
        The record.
    field : str
        The field at fault, if it is one.
    types : (str, str)
        The writer's and the reader's type of it.
    found : str
        Its value, where the fault is about it.
    unknown : SchemaId or None
        The id that no schema is known for.
    refused : SchemaError or None
        Why no record of this writer can be read.
    """
    size = 0 if value is None else len(value)
    if unknown is not None:
        shown = f"{unknown.number:016x}" if unknown.kind == "fingerprint" else str(unknown.number)
        return Rejection(row, "unknown-schema", "", f"no schema is known for {unknown.kind} {shown}")
    if refused is not None:
        return Rejection(row, "incompatible-schema", refused.field, str(refused))
    if code in _WHOLE:
        reason, text = _WHOLE[code]
        head = (value or b"")[:2].hex(" ") or "nothing"
        return Rejection(row, reason, "", text.format(size=size, head=head))
    if code in _INCOMPATIBLE:
        text = _INCOMPATIBLE[code].format(found=found, wrote=types[0], reads=types[1])
        return Rejection(row, "incompatible-schema", field, f"field {field!r} {text}")
    return Rejection(row, "undecodable", field, f"field {field!r} {_UNDECODABLE[code]}")
