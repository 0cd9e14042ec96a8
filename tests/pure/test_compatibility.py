"""Which changes of a contract are refused, by rule; and that what is allowed really reads."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avro_strategies import record, records, rows_of, specs, write
from millstream.core.avro.compatibility import breaking_changes
from millstream.core.avro.decode import RecordReader
from millstream.core.contracts import Contract

BASE: dict[str, Any] = {
    **record(
        [
            {"name": "id", "type": "long"},
            {"name": "who", "type": "string", "max_length": 9, "pattern": "[a-z]+"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "not_after_ms": 5},
            {"name": "amount", "type": "double", "unit": "EUR", "minimum": 0, "maximum": 10},
            {"name": "grade", "type": "int", "allowed": [1, 2]},
            {"name": "raw", "type": "float", "allow_non_finite": True},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["a", "b"]}, "default": "a"},
        ]
    ),
    "millstream": {"key": "who", "event_id": "id", "event_time": "at"},
}


def changed(name: str, /, **attributes: Any) -> dict[str, Any]:
    spec = copy.deepcopy(BASE)
    field = next(item for item in spec["fields"] if item["name"] == name)
    for key, value in attributes.items():
        if value is ...:
            del field[key]
        else:
            field[key] = value
    return spec


def added(field: dict[str, Any]) -> dict[str, Any]:
    return {**copy.deepcopy(BASE), "fields": [*copy.deepcopy(BASE["fields"]), field]}


def without(name: str) -> dict[str, Any]:
    return {**copy.deepcopy(BASE), "fields": [item for item in BASE["fields"] if item["name"] != name]}


def rules(old: dict[str, Any], new: dict[str, Any], mode: Any = "BACKWARD") -> set[tuple[str, str]]:
    return {(b.rule, b.field) for b in breaking_changes(Contract.parse(old), Contract.parse(new), mode)}


ENUM = {"type": "enum", "name": "K", "symbols": ["a"]}
TIME_US = {"type": "long", "logicalType": "timestamp-micros"}


@pytest.mark.parametrize(
    ("new", "broken"),
    [
        (added({"name": "x", "type": "long"}), ("missing-default", "x")),
        (changed("id", type="int"), ("type", "id")),
        (changed("amount", type="string", minimum=..., maximum=...), ("type", "amount")),
        (changed("note", type="string", default=...), ("null", "note")),
        (changed("kind", type=ENUM), ("enum-symbols", "kind")),
        (changed("amount", minimum=1), ("range", "amount")),
        (changed("amount", exclusive_minimum=0), ("range", "amount")),
        (changed("amount", maximum=9.5), ("range", "amount")),
        (changed("id", maximum=5), ("range", "id")),
        (changed("who", max_length=8), ("max-length", "who")),
        (changed("who", pattern="[a-y]+"), ("pattern", "who")),
        (changed("grade", allowed=[1]), ("allowed", "grade")),
        (changed("id", allowed=[1]), ("allowed", "id")),
        (changed("at", not_after_ms=4), ("age", "at")),
        (changed("at", not_older_than_ms=4), ("age", "at")),
        (changed("raw", allow_non_finite=...), ("finite", "raw")),
        (changed("amount", unit="cent"), ("unit", "amount")),
        ({**BASE, "name": "Other"}, ("record-name", "")),
        ({**BASE, "millstream": {**BASE["millstream"], "key": "id"}}, ("key", "id")),
        ({**BASE, "millstream": {"key": "who", "event_time": "at"}}, ("event-id", "")),
        ({**changed("at", type=TIME_US, not_after_ms=...), "millstream": {}}, ("logical-type", "at")),
    ],
)
def test_breaking_changes_are_refused_by_rule(new: dict[str, Any], broken: tuple[str, str]) -> None:
    assert broken in rules(BASE, new)
    assert rules(BASE, {**new, "millstream": {**new["millstream"], "generation": 2}}) == set()


@pytest.mark.parametrize(
    "new",
    [
        BASE,
        added({"name": "x", "type": "long", "default": 0}),
        without("note"),
        changed("grade", type="double", allowed=[1, 2, 3]),
        changed("id", type=["null", "long"]) | {"millstream": {**BASE["millstream"], "event_id": "who"}},
        changed("amount", minimum=-1, maximum=...),
        changed("who", max_length=10, pattern=...),
        changed("at", not_after_ms=6),
        changed("amount", doc="better words", pii="none"),
        changed("who", name="whom", aliases=["who"]) | {"millstream": {**BASE["millstream"], "key": "whom"}},
    ],
)
def test_widening_changes_pass(new: dict[str, Any]) -> None:
    assert {rule for rule, _ in rules(BASE, new)} <= {"event-id"}


@pytest.mark.parametrize(
    ("whole", "real", "most"), [("int", "float", 1 << 24), ("long", "float", 1 << 24), ("long", "double", 1 << 53)]
)
def test_integers_that_a_real_cannot_hold_are_a_break_unless_bounded(whole: str, real: str, most: int) -> None:
    def both(low: Any, high: Any) -> set[tuple[str, str]]:
        return rules(*(changed("amount", type=each, minimum=low, maximum=high) for each in (whole, real)))

    assert both(..., ...) == {("type", "amount")}
    assert both(-most, ...) == {("type", "amount")}
    assert both(-most, most + 1) == {("type", "amount")}
    assert both(-most, most) == set()


def test_direction_follows_the_mode() -> None:
    wider = changed("amount", maximum=20)
    assert rules(BASE, wider, "BACKWARD") == set()
    assert rules(BASE, wider, "FORWARD") == {("range", "amount")}
    assert rules(BASE, wider, "FULL_TRANSITIVE") == {("range", "amount")}
    assert rules(wider, BASE, "FORWARD_TRANSITIVE") == set()
    assert rules(BASE, without("amount"), "FORWARD") == {("missing-default", "amount")}
    assert rules(BASE, without("note"), "FULL") == set()


def test_a_generation_never_goes_back() -> None:
    newer = {**BASE, "millstream": {**BASE["millstream"], "generation": 2}}
    assert ("generation", "") in rules(newer, BASE)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_the_check_allows_decodes(data: st.DataObject) -> None:
    old, new = data.draw(specs(max_fields=3)), data.draw(specs(max_fields=3))
    writer, reader = Contract.parse(old), Contract.parse(new)
    values = data.draw(records(writer.schema))
    encoded = [writer.schema.single_object_prefix + write(old, value) for value in values]
    decoded = RecordReader(reader.schema, {writer.schema.id: writer.schema}.get).decode(encoded, 10**6)
    if not [b for b in breaking_changes(writer, reader, "BACKWARD") if b.rule != "finite"]:
        assert decoded.rejections == [] or any(r.detail.endswith("not UTF-8") for r in decoded.rejections)
        assert len(rows_of(decoded.batch)) == len(values) - len(decoded.rejections)
