"""Explanations of bytes that did not decode, for the commands that show dead letters."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from decimal import Decimal

from millstream.core.avro.decode import RecordReader
from millstream.core.avro.logical_type import meant
from millstream.core.avro.schema import Field, Schema, SchemaError, SchemaId

_WIDTH = 16


def hexdump(data: bytes, most_bytes: int = 4096) -> str:
    """Return bytes as offset, hexadecimal and printable ASCII, sixteen a line.

    Examples
    --------
    >>> print(hexdump(b"\\xc3\\x01abc"))
    00000000  c3 01 61 62 63                                   |..abc|
    """
    return "\n".join(_dump_lines(data, most_bytes))


def _dump_lines(data: bytes, most_bytes: int) -> Iterator[str]:
    for start in range(0, min(len(data), most_bytes), _WIDTH):
        line = data[start : min(start + _WIDTH, most_bytes)]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        yield f"{start:08x}  {line.hex(' '):<47}  |{shown}|"
    if len(data) > most_bytes:
        yield f"... {len(data) - most_bytes} more bytes"


def explain_record(value: bytes | None, resolve: Callable[[SchemaId], Schema | None]) -> tuple[str, dict[str, object]]:
    """Decode a record as its own writer meant it, else as text.

    Parameters
    ----------
    value : bytes or None
        A framed Avro record, or anything.
    resolve : callable
        Finds a writer's schema.

    Returns
    -------
    what : str
        One sentence.
    fields : dict
        Field values, empty when it is no whole record.
    """
    if value is None:
        return "no value (a tombstone)", {}
    schema_id = _framing(value)
    if schema_id is None:
        return _as_text(value), {}
    shown = f"{schema_id.number:016x}" if schema_id.kind == "fingerprint" else str(schema_id.number)
    try:
        schema = resolve(schema_id)
    except SchemaError as error:
        return f"framed as Avro, but of a schema that cannot be used ({schema_id.kind} {shown}): {error}", {}
    if schema is None:
        return f"framed as Avro, but no schema is known for {schema_id.kind} {shown}", {}
    decoded = RecordReader(schema.flat, lambda _id: schema).decode([value], len(value))
    if decoded.rejections:
        return f"framed as {schema.name} ({schema_id.kind} {shown}), but {decoded.rejections[0].detail}", {}
    batch = decoded.batch
    nested = {} if len(schema.flat.names) == len(schema.names) else _nested(schema, value)
    fields: dict[str, object] = {
        name: nested[name]
        if name not in batch.columns
        else None
        if batch.is_null(name)[0]
        else _value(schema[name], batch.columns[name].tolist()[0])
        for name in schema.names
    }
    return f"{schema.name} ({schema_id.kind} {shown})", fields


def _value(item: Field, cell: object) -> object:
    """Return a cell; a decimal as the number it stands for."""
    if meant(item) != "decimal" or not isinstance(cell, bytes):
        return cell
    unscaled = int.from_bytes(cell, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -item.type_attributes.get("scale", 0)))


def _nested(schema: Schema, value: bytes) -> dict[str, object]:
    """Return the values of a record that no columns hold; its bytes are known to be sound."""
    import fastavro

    body = io.BytesIO(value[10 if value[:2] == b"\xc3\x01" else 5 :])
    found = fastavro.schemaless_reader(body, fastavro.parse_schema(json.loads(schema.to_json())), None)
    return dict(found) if isinstance(found, dict) else {}


def _framing(value: bytes) -> SchemaId | None:
    if value[:2] == b"\xc3\x01" and len(value) >= 10:
        return SchemaId("fingerprint", int.from_bytes(value[2:10], "little"))
    if value[:1] == b"\0" and len(value) >= 5:
        return SchemaId("registry", int.from_bytes(value[1:5], "big"))
    return None


def _as_text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "neither framed Avro nor UTF-8 text"
    try:
        json.loads(text)
    except ValueError:
        return (
            f"not framed; as UTF-8 text: {text!r}" if text.isprintable() else "neither framed Avro nor printable text"
        )
    return f"not framed; JSON: {text}"
