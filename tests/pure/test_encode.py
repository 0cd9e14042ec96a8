"""The columnar encoder against fastavro, byte for byte."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avro_strategies import ENUM, batch_of, record, records, specs, write
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_bytes_are_fastavros(data: st.DataObject) -> None:
    spec = data.draw(specs())
    schema = Schema.parse(spec)
    values = data.draw(records(schema))
    for prefix in (None, b"", b"\0\0\0\0\7"):
        head = schema.single_object_prefix if prefix is None else prefix
        expected = [head + write(spec, value) for value in values]
        assert RecordWriter(schema, prefix).encode(batch_of(schema, values)) == expected


@pytest.mark.parametrize("texts", [["né", "", "a" * 200], ["né", "né", "né"], ["né", "x", "né"], []])
def test_a_string_may_be_given_as_its_bytes(texts: list[str]) -> None:
    spec = record([{"name": "a", "type": "string"}])
    columns = [np.empty(len(texts), dtype=object) for _ in range(2)]
    columns[0][:] = texts
    columns[1][:] = [text.encode() for text in texts]
    one = "né"
    same = np.array([one] * len(texts), dtype=object)
    writer = RecordWriter(Schema.parse(spec), b"")
    expected = [write(spec, {"a": text}) for text in texts]
    assert [writer.encode(Batch(len(texts), {"a": column})) for column in columns] == [expected, expected]
    assert writer.encode(Batch(len(texts), {"a": same})) == [write(spec, {"a": one})] * len(texts)


def test_absent_columns_take_their_defaults() -> None:
    spec = record(
        [
            {"name": "a", "type": "long", "default": -3},
            {"name": "b", "type": ["null", "double"], "default": None},
            {"name": "c", "type": ["string", "null"], "default": "né"},
            {"name": "here", "type": "long"},
            {"name": "d", "type": ["null", "float"], "default": 1.5},
            {"name": "e", "type": ENUM, "default": "blue"},
            {"name": "f", "type": "boolean", "default": True},
            {"name": "g", "type": "bytes", "default": "\u0001"},
        ]
    )
    values = {"a": -3, "b": None, "c": "né", "here": 5, "d": 1.5, "e": "blue", "f": True, "g": b"\1"}
    writer = RecordWriter(Schema.parse(spec), b"")
    assert writer.encode(Batch(2, {"here": np.array([5, 5])})) == [write(spec, values)] * 2


def test_integers_feed_reals_and_nan_is_no_null() -> None:
    spec = record([{"name": "x", "type": ["null", "double"]}, {"name": "y", "type": "float"}])
    batch = Batch(
        3, {"x": np.array([1.0, np.nan, 2.0]), "y": np.array([1, 2, 3])}, {"x": np.array([False, False, True])}
    )
    assert RecordWriter(Schema.parse(spec), b"").encode(batch) == [
        write(spec, {"x": x, "y": y}) for x, y in ((1.0, 1.0), (np.nan, 2.0), (None, 3.0))
    ]


def test_what_lies_under_a_null_is_not_written() -> None:
    spec = record([{"name": "x", "type": ["null", "string"]}])
    batch = Batch(3, {"x": np.array(["a", "junk", "b"], dtype=object)}, {"x": np.array([False, True, False])})
    expected = [write(spec, {"x": x}) for x in ("a", None, "b")]
    assert RecordWriter(Schema.parse(spec), b"").encode(batch) == expected


@pytest.mark.parametrize(
    ("kind", "column", "nulls", "told"),
    [
        ("int", np.array([1, 2**31]), None, "row 1 holds"),
        ("long", np.array([1.0, 2.0]), None, "float64 cannot be written as long"),
        ("string", np.array([1, 2]), None, "int64 cannot be written as string"),
        (ENUM, np.array(["red", "pink"], dtype=object), None, "row 1 holds 'pink'"),
        ("long", np.array([1, 2]), np.array([False, True]), "the field allows none"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(kind: Any, column: Any, nulls: Any, told: str) -> None:
    writer = RecordWriter(Schema.parse(record([{"name": "x", "type": kind}])))
    with pytest.raises(ValueError, match=rf"test\.Thing\.x: .*{told}"):
        writer.encode(Batch(2, {"x": column}, {} if nulls is None else {"x": nulls}))


def test_an_absent_column_without_default_is_refused() -> None:
    with pytest.raises(ValueError, match="no such column"):
        RecordWriter(Schema.parse(record([{"name": "x", "type": "long"}]))).encode(Batch(1, {}))
