"""Columns, single records and fastavro agree on every input, whole or damaged: what are records, and of what."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
import fastavro.read
import fastavro.schema
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from avro_evolved import evolved, values
from avro_strategies import ENUM, record, records, rows_of, same, specs, write
from millstream.core.avro.decode import DecodeResult, RecordReader
from millstream.core.avro.schema import Schema, SchemaError, SchemaId
from millstream_lab.chaos.poison_oracle import STRICTER, UNREADABLE, Fault, read_fields

LIMIT = 400
HOW = st.sampled_from(
    ["whole", "whole", "cut", "flip", "insert", "delete", "append", "random", "varint", "long", "none"]
)
VARINTS = st.sampled_from(
    [b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\x01", b"\x80\x00", b"\x01", b"\x03", b"\x04"]
)


@st.composite
def damaged(draw: st.DrawFn, message: bytes) -> bytes | None:
    """Leave whole, cut, change, add to, or replace a framed message, its framing included."""
    how = draw(HOW)
    at = draw(st.integers(0, len(message) - 1))
    few = draw(st.binary(min_size=1, max_size=3))
    return {
        "whole": message,
        "cut": message[:at],
        "flip": message[:at] + bytes([message[at] ^ few[0]]) + message[at + 1 :],
        "insert": message[:at] + few + message[at:],
        "delete": message[:at] + message[at + 1 :],
        "append": message + few,
        "random": message[:10] + few * 4,
        "varint": message[: max(at, 10)] + draw(VARINTS) + message[max(at, 10) + draw(st.integers(0, 1)) :],
        "long": message + bytes(LIMIT),
        "none": None,
    }[how]


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], list[bytes | None]]:
    """Draw a reader's schema, its writers' (itself and one with more fields), and messages of both, many damaged."""
    reader = draw(specs(max_fields=5))
    more = [
        {"name": "more_text", "type": draw(st.sampled_from(["string", ["null", "string"]]))},
        {"name": "more_kind", "type": {"type": "enum", "name": "More", "symbols": ["a", "b"]}},
        {"name": "more_flag", "type": ["boolean", "null"]},
    ]
    writers = [reader, record([*reader["fields"], *draw(st.permutations(more))])]
    messages: list[bytes | None] = []
    for spec in writers:
        schema = Schema.parse(spec)
        plain = Schema(schema.name, tuple(item for item in schema.fields if item.name != "more_kind"))
        for value in draw(records(plain, max_size=6)):
            kind = {"more_kind": draw(st.sampled_from("ab"))} if spec is not reader else {}
            messages.append(draw(damaged(schema.single_object_prefix + write(spec, {**value, **kind}))))
    return reader, writers, draw(st.permutations(messages))


def expected(reader: dict[str, Any], writers: list[dict[str, Any]], value: bytes | None) -> dict[str, Any] | Fault:
    """What the slow reader makes of a message."""
    if value is None:
        return Fault("null-value")
    if len(value) > LIMIT:
        return Fault("oversize")
    if value[:2] == b"\xc3\x01" and len(value) >= 10:
        for spec in writers:
            if value.startswith(Schema.parse(spec).single_object_prefix):
                read = read_fields(spec["fields"], value[10:])
                if isinstance(read, Fault):
                    return read
                return {field["name"]: read[field["name"]] for field in reader["fields"]}
        return Fault("unknown-schema")
    return Fault("unknown-schema" if value[:1] == b"\0" and len(value) >= 5 else "unknown-framing")


def outcomes(decoded: DecodeResult, count: int) -> list[dict[str, Any] | Fault]:
    """Lay a decoded batch out by record."""
    found: dict[int, dict[str, Any] | Fault] = dict(zip(decoded.rows.tolist(), rows_of(decoded.batch), strict=True))
    for rejection in decoded.rejections:
        assert rejection.row not in found
        found[rejection.row] = Fault(rejection.reason, rejection.field, rejection.detail)
    assert sorted(found) == list(range(count))
    return [found[row] for row in range(count)]


def alike(left: dict[str, Any] | Fault, right: dict[str, Any] | Fault) -> bool:
    if isinstance(left, Fault) or isinstance(right, Fault):
        return left == right
    return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)


@settings(deadline=None, max_examples=600)
@given(streams())
def test_batches_single_records_and_fastavro_agree_on_every_input(
    stream: tuple[dict[str, Any], list[dict[str, Any]], list[bytes | None]],
) -> None:
    reader, writers, values = stream
    known = {Schema.parse(spec).id: Schema.parse(spec) for spec in writers}
    together = outcomes(RecordReader(Schema.parse(reader), known.get).decode(values, LIMIT), len(values))
    one_by_one = RecordReader(Schema.parse(reader), known.get)
    for value, columnar in zip(values, together, strict=True):
        (alone,) = outcomes(one_by_one.decode([value], LIMIT), 1)
        assert alike(alone, columnar), (value, alone, columnar)
        assert getattr(alone, "detail", "") == getattr(columnar, "detail", "")
        slow = expected(reader, writers, value)
        assert alike(slow, columnar), (value, slow, columnar)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_what_fastavro_reads_is_refused_for_a_reason_with_a_name_only(data: st.DataObject) -> None:
    spec = data.draw(specs())
    schema = Schema.parse(spec)
    for value in data.draw(records(schema, max_size=3)):
        message = data.draw(damaged(schema.single_object_prefix + write(spec, value)))
        if message is None or not message.startswith(schema.single_object_prefix) or len(message) > LIMIT:
            continue
        (found,) = outcomes(RecordReader(schema, lambda _: None).decode([message], LIMIT), 1)
        plain = plainly(spec, message[10:])
        if isinstance(found, Fault) and plain is not None:
            slow = read_fields(spec["fields"], message[10:])
            assert isinstance(slow, Fault)
            assert slow.detail in STRICTER
        if not isinstance(found, Fault):
            assert plain is not None
            assert alike(found, plain)


def plainly(spec: dict[str, Any], body: bytes, reader: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What fastavro reads, just as it comes; None where it fails."""
    try:
        value = fastavro.schemaless_reader(io.BytesIO(body), fastavro.parse_schema(spec), reader)
    except UNREADABLE:
        return None
    assert isinstance(value, dict)
    return value


ONE: dict[str, tuple[Any, bytes]] = {
    "varint past 64 bits": ("long", b"\x80" * 10 + b"\x01"),
    "int past 32 bits": ("int", b"\x80\x80\x80\x80\x20"),
    "boolean past 1": ("boolean", b"\x02"),
    "negative union branch": (["null", "long"], b"\x01\x02"),
    "negative enum index": (ENUM, b"\x01"),
    "bytes left over": ("long", b"\x02\x02"),
    "nested too deeply": (
        {"type": "record", "name": "Tree", "fields": [{"name": "inner", "type": ["null", "Tree"]}]},
        b"\2" * 256 + b"\0",
    ),
    "unread text": ("string", b"\x02\xff"),
}


@pytest.mark.parametrize("name", STRICTER)
def test_each_refusal_on_purpose_is_one_that_fastavro_does_not_make(name: str) -> None:
    kind, body = ONE[name]
    spec = record([{"name": "x", "type": kind}])
    reader = record([]) if name in {"nested too deeply", "unread text"} else spec
    assert plainly(spec, body, reader) is not None, "no longer true: take it off the list"
    schema = Schema.parse(spec)
    decoded = RecordReader(Schema.parse(reader), {schema.id: schema}.get).decode(
        [schema.single_object_prefix + body], LIMIT
    )
    assert [rejection.reason for rejection in decoded.rejections] == ["undecodable"]


def test_a_writer_that_no_columns_can_hold_is_told_and_takes_nobody_along() -> None:
    reader = Schema.parse(record([{"name": "x", "type": "long"}]))
    nested = SchemaId("fingerprint", 7)

    def resolve(number: SchemaId) -> Schema | None:
        if number == nested:
            raise SchemaError("test.Tree: field 'left' has type record")
        return None

    good, bad = reader.single_object_prefix + b"\2", b"\xc3\x01" + (7).to_bytes(8, "little") + b"\2"
    codec = RecordReader(reader, resolve)
    for _ in range(2):
        decoded = codec.decode([bad, good, bad], LIMIT)
        assert decoded.rows.tolist() == [1]
        assert {rejection.reason for rejection in decoded.rejections} == {"incompatible-schema"}
        assert "field 'left' has type record" in decoded.rejections[0].detail


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["record", "type", "fields", "name", "long"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "name", "fields", "namespace", "aliases", "symbols", "default", "logicalType"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_published_schema_does_worse_than_be_refused(written: Any) -> None:
    outer = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]}
    odd_fields = [
        {"type": written},
        {"type": "long", "aliases": written},
        {"type": {"type": "enum", "name": "E", "symbols": written}},
        {"type": {"type": "long", "logicalType": written}},
    ]
    sources = [written, *({**outer, attribute: written} for attribute in ("namespace", "aliases", "fields"))]
    sources += [{**outer, "fields": [{"name": "y", **field}]} for field in odd_fields]
    for source in sources:
        try:
            schema = Schema.parse(source)
        except SchemaError:
            continue
        assert schema.fingerprint >= 0
        assert Schema.parse(schema.to_json()) == schema


REFUSED = (fastavro.read.SchemaResolutionError, *UNREADABLE)


def held(value: Any, kind: Any) -> bool:
    """Whether a reader's type can hold a number that was written."""
    kinds = kind if isinstance(kind, list) else [kind]
    if type(value) is not int or not {"float", "double"} & {each for each in kinds if isinstance(each, str)}:
        return True
    try:
        real = struct.unpack("<f", struct.pack("<f", value))[0] if "float" in kinds else float(value)
    except OverflowError:
        return False
    return int(real) == value


@settings(deadline=None, max_examples=250, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(evolved(), st.data())
def test_records_of_any_evolved_writer_read_as_with_fastavro_or_are_refused_by_name(
    schemas: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    wrote, reads = schemas
    writer = Schema.parse(wrote)
    assert writer.canonical == fastavro.schema.to_parsing_canonical_form(wrote)
    assert Schema.parse(writer.to_json()) == writer
    records_ = data.draw(st.lists(values(wrote), min_size=1, max_size=4))
    bodies = [write(wrote, value) for value in records_]
    messages: list[bytes | None] = [writer.single_object_prefix + body for body in bodies]
    found = outcomes(RecordReader(Schema.parse(reads), {writer.id: writer}.get).decode(messages, 10**6), len(messages))
    for body, got in zip(bodies, found, strict=True):
        raw = fastavro.schemaless_reader(io.BytesIO(body), fastavro.parse_schema(wrote), None)
        assert isinstance(raw, dict)
        lost = [each["name"] for each in reads["fields"] if not held(raw.get(each["name"]), each["type"])]
        try:
            value = fastavro.schemaless_reader(
                io.BytesIO(body), fastavro.parse_schema(wrote), fastavro.parse_schema(reads)
            )
        except REFUSED:
            assert isinstance(got, Fault), (raw, got)
            assert got.field in {*reads_names(reads), *writer.names}
            continue
        if lost:
            assert isinstance(got, Fault), (raw, got)
            assert (got.reason, got.field in lost) == ("incompatible-schema", True), got
        else:
            assert isinstance(value, dict)
            assert not isinstance(got, Fault), (raw, got, got.detail)
            assert alike(got, value), (raw, got, value)


def reads_names(spec: dict[str, Any]) -> list[str]:
    return [each["name"] for each in spec["fields"]]


@settings(deadline=None, max_examples=120, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(evolved(), st.data())
def test_damaged_records_of_an_evolved_writer_never_raise_and_are_read_only_where_fastavro_reads_them(
    schemas: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    wrote, reads = schemas
    writer = Schema.parse(wrote)
    bodies = [
        data.draw(damaged(b"\xc3\x01" + bytes(8) + write(wrote, v)))
        for v in data.draw(st.lists(values(wrote), max_size=4))
    ]
    messages = [None if each is None else writer.single_object_prefix + each[10:] for each in bodies]
    found = outcomes(RecordReader(Schema.parse(reads), {writer.id: writer}.get).decode(messages, LIMIT), len(messages))
    for message, got in zip(messages, found, strict=True):
        if isinstance(got, Fault):
            continue
        assert message is not None
        value = fastavro.schemaless_reader(
            io.BytesIO(message[10:]), fastavro.parse_schema(wrote), fastavro.parse_schema(reads)
        )
        assert isinstance(value, dict)
        assert alike(got, value)
