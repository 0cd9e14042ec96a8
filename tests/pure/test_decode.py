"""The columnar decoder against fastavro, record by record, on whole and on damaged bytes."""

import io
import itertools
import struct
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avro_strategies import ENUM, record, records, rows_of, same, specs, write
from millstream.core.avro.decode import DecodeResult, RecordReader
from millstream.core.avro.schema import Schema, SchemaId

LIMIT = 1_000_000
WRITER_OF_OLD = record(
    [
        {"name": "l", "type": "int"},
        {"name": "d", "type": ["null", "long"]},
        {"name": "gone", "type": "string"},
        {"name": "t", "type": "bytes"},
        {"name": "b", "type": "string"},
        {"name": "before", "type": ["float", "null"]},
        {"name": "c", "type": ENUM},
        {"name": "lost", "type": ["null", {"type": "enum", "name": "Lost", "symbols": ["x", "y"]}]},
        {"name": "strict", "type": ["null", "boolean"]},
    ]
)
READER_OF_NEW = record(
    [
        {"name": "text", "type": "string", "default": "née"},
        {"name": "after", "type": ["null", "double"], "aliases": ["before"]},
        {"name": "l", "type": "double"},
        {"name": "d", "type": ["null", "float"]},
        {"name": "t", "type": "string"},
        {"name": "b", "type": "bytes"},
        {"name": "strict", "type": "boolean"},
        {"name": "c", "type": {"type": "enum", "name": "Colour", "symbols": ["blue", "red"]}},
        {"name": "count", "type": ["null", "long"], "default": None},
        {"name": "rate", "type": "double", "default": 0.5},
        {"name": "flag", "type": "boolean", "default": True},
        {"name": "raw", "type": "bytes", "default": ""},
    ]
)


def truth(body: bytes, writer: dict[str, Any], reader: dict[str, Any] | None) -> dict[str, Any] | None:
    """What fastavro reads, or None where it fails, leaves bytes over, or is laxer than the specification."""
    source = io.BytesIO(body)
    try:
        value = fastavro.schemaless_reader(source, fastavro.parse_schema(writer), reader)
    except (EOFError, IndexError, UnicodeDecodeError, fastavro.read.SchemaResolutionError, OverflowError, MemoryError):
        return None
    if source.tell() != len(body) or not well_formed(body, writer):
        return None
    assert isinstance(value, dict)
    return value


def well_formed(body: bytes, writer: dict[str, Any]) -> bool:  # noqa: PLR0912 - one branch per Avro type
    """Check what fastavro lets pass, on a body it could read.

    It takes varints of any length and drops what is past 64 bits, ints past 32 bits, booleans past 1, negative enum and
    union indices (as Python's from the end); and it does not look at enums it skips.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if shift > 70 or value >= 1 << 64:
            raise ValueError("varint")
        return (value >> 1) ^ -(value & 1)

    try:
        for item in Schema.parse(writer).fields:
            if item.nullable:
                branch = varint()
                if branch not in (0, 1):
                    return False
                if branch == (0 if item.null_first else 1):
                    continue
            if item.kind in ("int", "long", "enum"):
                value = varint()
                if item.kind == "int" and not -(2**31) <= value < 2**31:
                    return False
                if item.kind == "enum" and not 0 <= value < len(item.symbols):
                    return False
            elif item.kind in ("string", "bytes"):
                size = varint()
                if item.kind == "string":
                    body[at : at + size].decode()
                at += size
            elif item.kind == "boolean":
                if body[at] > 1:
                    return False
                at += 1
            else:
                at += 8 if item.kind == "double" else 4
    except (ValueError, IndexError):
        return False
    return at == len(body)


def agree(decoded: DecodeResult, truths: list[dict[str, Any] | None]) -> None:
    accepted = [i for i, value in enumerate(truths) if value is not None]
    assert decoded.rows.tolist() == accepted
    assert [rejection.row for rejection in decoded.rejections] == [i for i, v in enumerate(truths) if v is None]
    assert {rejection.reason for rejection in decoded.rejections} <= {"undecodable", "incompatible-schema"}
    rows = rows_of(decoded.batch)
    assert len(rows) == len(accepted)
    for row, i in zip(rows, accepted, strict=True):
        value = truths[i]
        assert value is not None
        assert row.keys() == value.keys()
        for name in row:
            assert same(row[name], value[name]), (name, row[name], value[name])


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Cut, flip, insert, delete, append, or replace outright."""
    how = draw(st.sampled_from(["whole", "cut", "flip", "insert", "delete", "append", "random", "varint"]))
    at = draw(st.integers(0, max(len(body) - 1, 0)))
    few = draw(st.binary(min_size=1, max_size=3))
    if how == "varint":
        return body[:at] + draw(st.sampled_from([b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\x01"]))
    return {
        "whole": body,
        "cut": body[:at],
        "flip": body[:at] + bytes([body[at] ^ few[0]]) + body[at + 1 :] if body else few,
        "insert": body[:at] + few + body[at:],
        "delete": body[:at] + body[at + 1 :],
        "append": body + few,
        "random": draw(st.binary(max_size=30)),
    }[how]


@st.composite
def streams(draw: st.DrawFn, damage: bool) -> tuple[dict[str, Any], list[bytes]]:
    spec = draw(specs())
    bodies = [write(spec, value) for value in draw(records(Schema.parse(spec)))]
    return spec, [draw(damaged(body)) for body in bodies] if damage else bodies


@settings(deadline=None)
@given(streams(damage=False))
def test_whole_records_read_as_fastavro_reads_them(stream: tuple[dict[str, Any], list[bytes]]) -> None:
    spec, bodies = stream
    schema = Schema.parse(spec)
    decoded = RecordReader(schema, lambda _: None).decode([schema.single_object_prefix + b for b in bodies], LIMIT)
    assert decoded.rejections == []
    agree(decoded, [truth(body, spec, None) for body in bodies])


@settings(deadline=None, max_examples=300)
@given(streams(damage=True))
def test_damaged_records_fall_alone_and_as_with_fastavro(stream: tuple[dict[str, Any], list[bytes]]) -> None:
    spec, bodies = stream
    schema = Schema.parse(spec)
    decoded = RecordReader(schema, lambda _: None).decode([schema.single_object_prefix + b for b in bodies], LIMIT)
    agree(decoded, [truth(body, spec, None) for body in bodies])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_resolution_agrees_with_fastavro_on_whole_and_damaged_records(data: st.DataObject) -> None:
    writer, reader = Schema.parse(WRITER_OF_OLD), Schema.parse(READER_OF_NEW)
    lost = st.sampled_from([None, "x", "y"])
    values = [{**value, "lost": data.draw(lost)} for value in data.draw(records(_without(writer, "lost")))]
    bodies = [data.draw(damaged(write(WRITER_OF_OLD, value))) for value in values]
    decoded = RecordReader(reader, {writer.id: writer}.get).decode(
        [writer.single_object_prefix + body for body in bodies], LIMIT
    )
    truths = [truth(body, WRITER_OF_OLD, READER_OF_NEW) for body in bodies]
    for value in truths:
        if value is not None:
            value["raw"] = b""  # fastavro hands out a bytes default as it stands in the JSON, a str
    # fastavro hands out the long that was written, or the nearest double; what no float holds is refused here.
    written = [truth(body, WRITER_OF_OLD, None) for body in bodies]
    exact = [value is not None and is_float(value["d"]) for value in written]
    agree(decoded, [value if held else None for value, held in zip(truths, exact, strict=True)])


def is_float(value: float | None) -> bool:
    return value is None or struct.unpack("<f", struct.pack("<f", value))[0] == value


def _without(schema: Schema, name: str) -> Schema:
    return Schema(schema.name, tuple(item for item in schema.fields if item.name != name))


def test_strings_are_accepted_exactly_where_they_are_utf_8() -> None:
    edges = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")
    texts = [bytes(t) for size in range(4) for t in itertools.product(edges, repeat=size)]
    texts += [bytes(t) for t in itertools.product(edges[18:], edges, edges[1:9], edges[1:9])]
    schema = Schema.parse(record([{"name": "x", "type": "string"}]))
    values = [schema.single_object_prefix + bytes([2 * len(text)]) + text for text in texts]
    decoded = RecordReader(schema, lambda _: None).decode(values, LIMIT)
    found = dict(zip(decoded.rows.tolist(), decoded.batch.columns["x"].tolist(), strict=True))
    for i, text in enumerate(texts):
        try:
            expected = text.decode()
        except UnicodeDecodeError:
            assert i not in found
        else:
            assert found[i] == expected
    assert 0 < len(found) < len(texts)


def test_varints_are_accepted_exactly_where_they_fit() -> None:
    longest = [b"\xff" * k + bytes([last]) for k in range(12) for last in (0, 1, 2, 3, 15, 16, 63, 64, 127)]
    for kind, bits in (("long", 64), ("int", 32)):
        spec = record([{"name": "x", "type": kind}])
        schema = Schema.parse(spec)
        decoded = RecordReader(schema, lambda _: None).decode([schema.single_object_prefix + b for b in longest], LIMIT)
        raw = [sum((byte & 127) << (7 * i) for i, byte in enumerate(b)) if len(b) <= 10 else 1 << 70 for b in longest]
        assert decoded.rows.tolist() == [i for i, value in enumerate(raw) if value < 1 << bits]
        agree(decoded, [truth(b, spec, None) for b in longest])


@settings(deadline=None)
@given(st.lists(st.none() | st.binary(max_size=40) | st.binary(max_size=20).map(lambda b: b"\xc3\x01" + b)))
def test_no_bytes_whatever_raise(values: list[bytes | None]) -> None:
    schema = Schema.parse(WRITER_OF_OLD)
    decoded = RecordReader(schema, lambda _: schema).decode(values, 35)
    assert len(decoded.rows) + len(decoded.rejections) == len(values)
    assert sorted([*decoded.rows.tolist(), *(r.row for r in decoded.rejections)]) == list(range(len(values)))


def test_an_old_writers_record_is_read_by_todays_reader() -> None:
    old = record([{"name": "id", "type": "int"}, {"name": "amount", "type": "float"}])
    new = Schema.parse(
        record(
            [
                {"name": "id", "type": "long"},
                {"name": "currency", "type": "string", "default": "EUR"},
                {"name": "amount", "type": "double"},
            ]
        )
    )
    writer = Schema.parse(old)
    values = [writer.single_object_prefix + write(old, {"id": 7, "amount": 2.5})]
    assert rows_of(RecordReader(new, {writer.id: writer}.get).decode(values, LIMIT).batch) == [
        {"id": 7, "currency": "EUR", "amount": 2.5}
    ]


def test_framings_and_writers_mix_in_one_batch_and_keep_their_order() -> None:
    old = record([{"name": "id", "type": "int"}])
    new = record([{"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None}])
    writer, reader = Schema.parse(old), Schema.parse(new)
    known = {writer.id: writer, SchemaId("registry", 0xFFFFFFFE): reader, SchemaId("registry", 3): writer}
    asked: list[SchemaId] = []

    def resolve(number: SchemaId) -> Schema | None:
        asked.append(number)
        return known.get(number)

    values = [
        reader.single_object_prefix + write(new, {"id": 0, "note": "a"}),
        writer.single_object_prefix + write(old, {"id": 1}),
        b"\0" + struct.pack(">I", 3) + write(old, {"id": 2}),
        b"\0" + struct.pack(">I", 9) + write(old, {"id": 3}),
        b"\0" + struct.pack(">I", 0xFFFFFFFE) + write(new, {"id": 4, "note": "ß"}),
        None,
        b"{}",
        b"",
        b"\xc3\x01abc",
        b"\xc3\x01" + bytes(8) + b"\2",
        reader.single_object_prefix + write(new, {"id": 10, "note": "long" * 10}),
        reader.single_object_prefix + write(new, {"id": 11, "note": None}) + b"\0",
        reader.single_object_prefix + write(new, {"id": 12, "note": None}),
    ]
    codec = RecordReader(reader, resolve)
    for _ in range(2):
        decoded = codec.decode(values, 45)
        assert decoded.rows.tolist() == [0, 1, 2, 4, 12]
        assert decoded.rows.dtype == np.int64
        assert decoded.batch.columns["id"].tolist() == [0, 1, 2, 4, 12]
        assert [row["note"] for row in rows_of(decoded.batch)] == ["a", None, None, "ß", None]
        assert [(r.row, r.reason) for r in decoded.rejections] == [
            (3, "unknown-schema"),
            (5, "null-value"),
            (6, "unknown-framing"),
            (7, "unknown-framing"),
            (8, "unknown-framing"),
            (9, "unknown-schema"),
            (10, "oversize"),
            (11, "undecodable"),
        ]
    assert sorted(asked) == sorted([*known, *[SchemaId("registry", 9), SchemaId("fingerprint", 0)] * 2])


def test_faults_name_the_field() -> None:
    spec = record([{"name": "a", "type": "long"}, {"name": "b", "type": ["null", "string"]}])
    schema = Schema.parse(spec)
    bodies = [b"", b"\2\4", b"\2\2\4\xff\xff", b"\2\2\x01", b"\xff" * 10]
    decoded = RecordReader(schema, lambda _: None).decode([schema.single_object_prefix + b for b in bodies], LIMIT)
    assert [(r.field, r.detail.partition("' ")[2]) for r in decoded.rejections] == [
        ("a", "ends in the middle of this field"),
        ("b", "holds a union branch that does not exist"),
        ("b", "is not UTF-8"),
        ("b", "holds a negative length"),
        ("a", "holds a varint that does not fit 64 bits"),
    ]


@pytest.mark.parametrize(
    ("writer", "told"),
    [
        (record([{"name": "x", "type": "string"}]), "string cannot be read as long"),
        (record([{"name": "y", "type": "long"}]), "no field 'x' and the reader no default"),
        (record([{"name": "x", "type": "long"}], name="Other"), "named test.Other"),
    ],
)
def test_writers_that_cannot_be_read_are_rejections_with_the_reason(writer: dict[str, Any], told: str) -> None:
    reader = Schema.parse(record([{"name": "x", "type": "long"}]))
    schema = Schema.parse(writer)
    decoded = RecordReader(reader, {schema.id: schema}.get).decode([schema.single_object_prefix + b"\2"], LIMIT)
    assert [r.reason for r in decoded.rejections] == ["incompatible-schema"]
    assert told in decoded.rejections[0].detail


def test_an_unknown_enum_symbol_becomes_the_readers_default_or_is_rejected() -> None:
    old = record([{"name": "c", "type": ENUM}])
    writer = Schema.parse(old)
    values = [writer.single_object_prefix + write(old, {"c": symbol}) for symbol in ("red", "green")]
    narrow = {"type": "enum", "name": "Colour", "symbols": ["other", "red"]}
    strict = RecordReader(Schema.parse(record([{"name": "c", "type": narrow}])), {writer.id: writer}.get)
    lenient = RecordReader(
        Schema.parse(record([{"name": "c", "type": {**narrow, "default": "other"}}])), {writer.id: writer}.get
    )
    assert strict.decode(values, LIMIT).batch.columns["c"].tolist() == ["red"]
    assert strict.decode(values, LIMIT).rejections[0].field == "c"
    assert lenient.decode(values, LIMIT).batch.columns["c"].tolist() == ["red", "other"]


def test_columns_have_the_documented_dtypes_even_when_empty() -> None:
    schema = Schema.parse(READER_OF_NEW)
    for column, item in zip(
        RecordReader(schema, lambda _: None).decode([], LIMIT).batch.columns.values(), schema.fields, strict=True
    ):
        expected = {"long": "int64", "int": "int64", "float": "float64", "double": "float64", "boolean": "bool"}
        assert column.dtype == expected.get(item.kind, "object")


def test_a_resolver_that_cannot_answer_now_is_heard() -> None:
    def away(_: SchemaId) -> Schema | None:
        raise ConnectionError("registry is away")

    with pytest.raises(ConnectionError):
        RecordReader(Schema.parse(record([])), away).decode([b"\0\0\0\0\1"], LIMIT)
