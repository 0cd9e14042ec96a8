"""Every logical type of Avro 1.12: between writer and reader, in a contract, and on to the engine's topics."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avro_strategies import record, write
from millstream.core.avro.decode import DecodeResult, RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.logical_type import UNDERLYING
from millstream.core.avro.resolution import indistinguishable
from millstream.core.avro.schema import Schema, SchemaError
from millstream.core.contracts import Contract
from millstream.core.declaration import Aggregate, Declaration, Service, View
from millstream.derivation import derive
from millstream.stages.join.contract import examples_schema

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
TYPES: dict[str, Any] = {
    **{name: {"type": kinds[0], "logicalType": name} for name, kinds in UNDERLYING.items()},
    "decimal": DECIMAL,
    "decimal in fixed": {
        "type": "fixed",
        "name": "D",
        "size": 6,
        "logicalType": "decimal",
        "precision": 12,
        "scale": 2,
    },
    "uuid in fixed": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
    "duration": {"type": "fixed", "name": "L", "size": 12, "logicalType": "duration"},
}
PER_SECOND = {"millis": 10**3, "micros": 10**6, "nanos": 10**9}
FAMILIES = ("time", "timestamp", "local-timestamp")
SCALED = {
    (f"{family}-{a}", f"{family}-{b}"): Fraction(PER_SECOND[b], PER_SECOND[a])
    for family in FAMILIES
    for a, b in itertools.product(PER_SECOND, repeat=2)
}


def read(wrote: Any, reads: Any, value: Any, **attributes: Any) -> DecodeResult:
    """Write one value with fastavro, without logical types, and read it as the other type."""
    plain = {k: v for k, v in wrote.items() if k != "logicalType"} if isinstance(wrote, dict) else wrote
    body = write(record([{"name": "x", "type": plain}]), {"x": value})
    writer = Schema.parse(record([{"name": "x", "type": wrote}]))
    reader = Schema.parse(record([{"name": "x", "type": reads, **attributes}]))
    # By a registry's id: Avro's fingerprints are the same whatever the logical types.
    return RecordReader(reader, lambda _id: writer).decode([b"\0\0\0\0\7" + body], 1000)


@pytest.mark.parametrize(("wrote", "reads"), [*itertools.product(TYPES, repeat=2)])
def test_each_pair_of_logical_types_is_read_exactly_or_refused_by_field_and_both_types(wrote: str, reads: str) -> None:
    kind = TYPES[wrote]["type"]
    value: Any = {"int": 7, "long": 7_000_000, "string": "a" * 36, "bytes": b"\1"}.get(kind) or b"\1" * TYPES[wrote][
        "size"
    ]
    decoded = read(TYPES[wrote], TYPES[reads], value)
    if wrote == reads:
        assert decoded.batch.columns["x"].tolist() == [value]
    elif (wrote, reads) in SCALED:
        assert decoded.batch.columns["x"].tolist() == [value * SCALED[wrote, reads]]
    else:
        (rejection,) = decoded.rejections
        assert (rejection.reason, rejection.field) == ("incompatible-schema", "x")
        for name in (wrote, reads):
            assert name.removesuffix(" in fixed") in rejection.detail, rejection.detail


def test_the_guide_has_a_row_for_each() -> None:
    guide = (Path(__file__).parents[2] / "infra" / "docs" / "contracts.md").read_text()
    rows = {line.split("|")[1].strip(" `") for line in guide.splitlines() if line.startswith("| `")}
    assert set(UNDERLYING) <= rows


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(pair for pair in SCALED if set(pair) <= set(UNDERLYING))),
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(-(10**9), 10**9).map(lambda n: n * 10**6)
    | st.integers(-(10**7), 10**7),
)
def test_units_are_scaled_exactly_or_the_record_is_refused_with_its_value(pair: tuple[str, str], value: int) -> None:
    wrote, reads = (TYPES[name] for name in pair)
    value = value if wrote["type"] == "long" else value % 86_400_000
    exact = value * SCALED[pair]
    limit = 2**63 if reads["type"] == "long" else 2**31
    decoded = read(wrote, reads, value)
    if exact.denominator == 1 and -limit <= exact < limit:
        assert decoded.batch.columns["x"].tolist() == [exact]
    else:
        (rejection,) = decoded.rejections
        assert (rejection.reason, rejection.field) == ("incompatible-schema", "x")
        assert f"holds {value} as {pair[0]}" in rejection.detail
        assert pair[1] in rejection.detail


@settings(max_examples=300)
@given(
    st.sampled_from(["int", "long"]),
    st.sampled_from(["float", "double"]),
    st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([2**24, 2**24 + 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1]),
)
def test_whole_numbers_become_reals_only_where_the_real_holds_them(wrote: str, reads: str, value: int) -> None:
    value = value if wrote == "long" else (value + 2**31) % 2**32 - 2**31
    bits = 53 if reads == "double" else 24
    odd = abs(value)
    while odd and odd % 2 == 0:
        odd //= 2
    decoded = read(wrote, reads, value)
    if odd < 2**bits:
        assert [int(each) for each in decoded.batch.columns["x"]] == [value]
    else:
        assert decoded.rejections[0].detail == f"field 'x' holds {value} as {wrote}, which {reads} cannot hold exactly"


def test_personal_data_stays_out_of_the_sentence() -> None:
    decoded = read("long", "double", 2**53 + 1, pii="pseudonym")
    assert decoded.rejections[0].detail == "field 'x' holds a value as long, which double cannot hold exactly"


@pytest.mark.parametrize(
    ("wrote", "reads"),
    [
        ("long", TYPES["timestamp-millis"]),
        (TYPES["timestamp-micros"], "long"),
        ({"type": "long", "logicalType": "money"}, TYPES["timestamp-millis"]),
        ({"type": "int", "logicalType": "timestamp-micros"}, TYPES["timestamp-millis"]),
    ],
)
def test_a_side_that_means_nothing_by_it_gives_and_takes_the_number_as_it_is(wrote: Any, reads: Any) -> None:
    assert read(wrote, reads, 1_500).batch.columns["x"].tolist() == [1_500]


def test_a_plain_field_with_another_unit_is_refused() -> None:
    assert read(TYPES["timestamp-micros"], "long", 1500, unit="us").batch.columns["x"].tolist() == [1500]
    (rejection,) = read(TYPES["timestamp-micros"], "long", 1500, unit="ms").rejections
    assert "timestamp-micros cannot be read as long in ms" in rejection.detail


@pytest.mark.parametrize(
    ("precision", "scale", "good"), [(12, 2, True), (20, 2, True), (11, 2, False), (12, 3, False), (12, 0, False)]
)
def test_decimals_match_by_scale_and_by_a_precision_that_holds_them(precision: int, scale: int, good: bool) -> None:
    decoded = read(DECIMAL, {**DECIMAL, "precision": precision, "scale": scale}, b"\4\xd2")
    assert (decoded.rejections == []) == good
    if not good:
        assert f"decimal(12,2) cannot be read as decimal({precision},{scale})" in decoded.rejections[0].detail


def test_a_decimal_is_no_text() -> None:
    assert "decimal(12,2) cannot be read as string" in read(DECIMAL, "string", b"12").rejections[0].detail


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"type": "string", "logicalType": "timestamp-millis"}, "timestamp-millis needs long, found string"),
        ({"type": "int", "logicalType": "timestamp-millis"}, "needs long, found int"),
        ({"type": "bytes", "logicalType": "decimal"}, "needs a precision"),
        ({**DECIMAL, "scale": 13}, "needs a scale from 0 to its precision 12"),
        ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 5}, "precision 4, found 5"),
        ({"type": "fixed", "name": "F", "size": 8, "logicalType": "uuid"}, "size 16, found 8"),
        ({"type": "fixed", "name": "F", "size": 16, "logicalType": "duration"}, "size 12, found 16"),
    ],
)
def test_a_contract_with_an_ill_used_logical_type_is_refused(kind: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=rf"field 'x': .*{told}"):
        Contract.parse(record([{"name": "x", "type": kind}]))


UTC = dt.UTC
MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))  # noqa: DTZ001 - of no time zone
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "decimal": st.decimals(Decimal("-9999999999.99"), Decimal("9999999999.99"), places=2),
    "decimal in fixed": st.decimals(Decimal("-9999999999.99"), Decimal("9999999999.99"), places=2),
    "big-decimal": st.binary(max_size=5),
    "uuid": st.uuids(),
    "uuid in fixed": st.binary(min_size=16, max_size=16),
    "duration": st.binary(min_size=12, max_size=12),
    "date": st.dates(),
    "time-millis": st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    "time-micros": st.times(),
    "timestamp-millis": MOMENTS.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000, tzinfo=UTC)),
    "timestamp-micros": MOMENTS.map(lambda t: t.replace(tzinfo=UTC)),
    "timestamp-nanos": st.integers(-(2**63), 2**63 - 1),
    "local-timestamp-millis": MOMENTS.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    "local-timestamp-micros": MOMENTS,
    "local-timestamp-nanos": st.integers(-(2**63), 2**63 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
    "enum": st.sampled_from(["a", "b"]),
    "fixed": st.binary(min_size=3, max_size=3),
}
KINDS: dict[str, Any] = {
    **{name: name for name in VALUES},
    **TYPES,
    "enum": {"type": "enum", "name": "E", "symbols": ["a", "b"], "default": "b", "doc": "kept"},
    "fixed": {"type": "fixed", "name": "F", "size": 3},
}
DEFAULTS: dict[str, Any] = {"long": 5, "double": 0.5, "string": "né", "bytes": "\u00ff", "enum": "a", "fixed": "abc"}


@st.composite
def contracts(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """Draw an event contract over every type, and the drawn type of each of its own fields."""
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6, unique=True))
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    for i, name in enumerate(names):
        union = draw(st.sampled_from([None, "first", "last"]))
        kind = {"first": ["null", KINDS[name]], "last": [KINDS[name], "null"]}.get(union or "", KINDS[name])
        default = {"default": None} if union == "first" else {}
        if union is None and name in DEFAULTS and draw(st.booleans()):
            default = {"default": DEFAULTS[name]}
        fields.append({"name": f"f{i}", "type": kind, **default})
    roles = {"key": "id", "event_id": "id", "event_time": "at"}
    return {**record(fields, "Sale"), "millstream": roles}, names


ENVELOPE = Contract.parse(record([{"name": "score", "type": "double"}], "Scored"))
LABELS = Contract.parse(record([{"name": "label", "type": ["null", "double"], "default": None}], "Example"))
VIEW = View("v", "thing", "id", "int64", "sales", "at", 0, (Aggregate("n", "int64", "id", "count", 1000),))
DECLARATION = Declaration("shop-1", "sales", (VIEW,), (), (), Service("s", (("v__n", "int64"),), "0.0", 0.5, {}))


@settings(max_examples=150)
@given(contracts(), st.data())
def test_what_a_producer_writes_is_what_fastavro_reads_of_scored_and_examples(
    drawn: tuple[dict[str, Any], list[str]], data: st.DataObject
) -> None:
    spec, names = drawn
    contract = Contract.parse(spec)
    stage = derive(DECLARATION, contract, ENVELOPE, LABELS).stages[-1]
    sent = {"id": 1, "at": dt.datetime(2018, 11, 1, tzinfo=UTC)}
    for i, name in enumerate(names):
        nullable = isinstance(spec["fields"][2 + i]["type"], list)
        sent[f"f{i}"] = data.draw(st.none() | VALUES[name] if nullable else VALUES[name])
    body = contract.schema.single_object_prefix + write(spec, sent)
    batch = RecordReader(contract.schema, lambda _id: None).decode([body], 10**6).batch
    for schema in (stage.output_schema, examples_schema(stage.output_schema, LABELS)):
        filled = _with_engine_fields(schema, batch)
        published = fastavro.parse_schema(json.loads(schema.to_json()))
        (value,) = RecordWriter(schema, b"").encode(filled)
        found = fastavro.schemaless_reader(io.BytesIO(value), published, None)
        assert isinstance(found, dict)
        assert {name: found[name] for name in sent} == sent
        _assert_published_alike(spec, json.loads(schema.to_json()))


def _with_engine_fields(schema: Schema, batch: Any) -> Any:
    made: dict[str, Any] = {
        item.name: np.zeros(1, dtype=np.float64 if item.kind == "double" else np.int64)
        for item in schema.fields
        if item.name not in batch.columns
    }
    return batch.with_columns(made)


def _assert_published_alike(spec: dict[str, Any], published: dict[str, Any]) -> None:
    """Each field of the contract is published as it was declared: types, their attributes and defaults."""
    fields = {each["name"]: each for each in published["fields"]}
    for each in spec["fields"]:
        assert _with_full_names(each["type"]) == _with_full_names(fields[each["name"]]["type"])
        assert each.get("default", ...) == fields[each["name"]].get("default", ...)


def _with_full_names(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_with_full_names(each) for each in kind]
    if isinstance(kind, dict) and "name" in kind:
        return {**kind, "name": kind["name"].removeprefix("test.")}
    return kind


def test_fields_that_one_fingerprint_cannot_tell_apart_are_found() -> None:
    def schema(kind: Any) -> Schema:
        return Schema.parse(record([{"name": "x", "type": kind}]))

    micros, millis = schema(TYPES["timestamp-micros"]), schema(TYPES["timestamp-millis"])
    assert micros.fingerprint == millis.fingerprint
    assert indistinguishable(micros, millis) == ["x"]
    assert indistinguishable(schema(DECIMAL), schema({**DECIMAL, "scale": 3})) == ["x"]
    for before in ("long", TYPES["timestamp-millis"]):  # of a plain long nothing was said before
        assert indistinguishable(schema(before), millis) == []
    # As the engine published decimals once: without precision and scale, so ill used.
    assert indistinguishable(schema({"type": "bytes", "logicalType": "decimal"}), schema(DECIMAL)) == []
