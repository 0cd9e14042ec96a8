from typing import Any

import fastavro.schema
import pytest
from hypothesis import given

from avro_strategies import record, specs
from millstream.core.avro.schema import Schema, SchemaError
from millstream.core.contracts import Contract


@given(specs())
def test_canonical_form_and_fingerprint_are_avros(spec: dict[str, Any]) -> None:
    schema = Schema.parse(spec)
    assert schema.canonical == fastavro.schema.to_parsing_canonical_form(spec)
    assert schema.fingerprint.to_bytes(8, "little").hex() == fastavro.schema.fingerprint(
        schema.canonical, "CRC-64-AVRO"
    )
    assert schema.single_object_prefix == b"\xc3\x01" + schema.fingerprint.to_bytes(8, "little")


@given(specs())
def test_json_reads_back_to_the_same_value(spec: dict[str, Any]) -> None:
    schema = Schema.parse(spec)
    assert Schema.parse(schema.to_json()) == schema


def test_attributes_aliases_defaults_and_logical_types_survive() -> None:
    schema = Schema.parse(
        """{"type": "record", "name": "a.B", "aliases": ["Old"], "doc": "d", "owner": "o", "fields": [
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}, "unit": "ms"},
        {"name": "b", "type": "bytes", "default": "\\u00ff", "aliases": ["c"]},
        {"name": "n", "type": ["null", "double"], "default": null}]}"""
    )
    assert schema.aliases == ("a.Old",)
    assert schema.attributes["owner"] == "o"
    assert (schema["t"].logical_type, schema["t"].attributes["unit"]) == ("timestamp-millis", "ms")
    assert (schema["b"].default, schema["b"].aliases) == (b"\xff", ("c",))
    assert schema["n"].default is None
    assert Schema.parse(schema.to_json()) == schema
    assert '"name":"t","type":"long"' in schema.canonical


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ({"type": "array", "items": "long"}, "array"),
        ({"type": "map", "values": "long"}, "map"),
        ({"type": "record", "name": "R", "fields": []}, "record"),
        (["null", "long", "string"], "union"),
        (["long"], "union"),
        ("null", "null"),
        ("Unknown", "Unknown"),
    ],
)
def test_what_no_column_holds_is_refused_by_name_in_a_contract(kind: Any, named: str) -> None:
    with pytest.raises(SchemaError, match=rf"test\.Thing: field 'x' .*{named}"):
        Contract.parse(record([{"name": "x", "type": kind}]))


@pytest.mark.parametrize(
    "field",
    [
        {"name": "x", "type": "int", "default": 2**31},
        {"name": "x", "type": "long", "default": "1"},
        {"name": "x", "type": "long", "default": True},
        {"name": "x", "type": "double", "default": False},
        {"name": "x", "type": "string", "default": None},
        {"name": "x", "type": "boolean", "default": 0},
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["a"]}, "default": "b"},
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["a", "a"]}},
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["a"], "default": "b"}},
        {"name": "1x", "type": "int"},
    ],
)
def test_wrong_fields_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        Schema.parse(record([field]))


@pytest.mark.parametrize("text", ["", "[]", '"long"', '{"type": "record"}', '{"type": "record", "name": "A"}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        Schema.parse(text)


def test_extend_puts_fields_around_and_refuses_doubles() -> None:
    base = Schema.parse(record([{"name": "m", "type": "long"}]))
    other = Schema.parse(record([{"name": "a", "type": "int"}, {"name": "z", "type": ["null", "double"]}]))
    wide = base.extend([other["a"]], [other["z"]], name="test.Wide")
    assert wide.names == ("a", "m", "z")
    assert wide.canonical == (
        '{"name":"test.Wide","type":"record","fields":[{"name":"a","type":"int"},{"name":"m","type":"long"},'
        '{"name":"z","type":["null","double"]}]}'
    )
    with pytest.raises(SchemaError, match="twice"):
        base.extend([base["m"]])
