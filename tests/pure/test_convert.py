"""Columns of any table into columns of a contract."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from millstream.core.avro.convert import convert, to_batch
from millstream.core.avro.match_columns import match_columns
from millstream.core.avro.schema import Field

FAILED = object()
MILLIS = Field("t", "long", logical_type="timestamp-millis")
MOMENT = datetime(2018, 4, 1, 0, 0, 31, 5000, tzinfo=UTC).replace(tzinfo=None)  # without a zone: as files have it
MOMENT_MS = 1_522_540_831_005
CASES: list[tuple[Field, pl.Series, list[Any]]] = [
    (Field("a", "long"), pl.Series(["7", " -8 ", "1.5", "x", "9223372036854775808"]), [7, -8, FAILED, FAILED, FAILED]),
    (Field("a", "long"), pl.Series([1.0, 1.5, float("nan"), 1e19]), [1, FAILED, FAILED, FAILED]),
    (Field("a", "long"), pl.Series([2**64 - 1, 5], dtype=pl.UInt64), [FAILED, 5]),
    (Field("a", "int"), pl.Series([2**31, -(2**31)]), [FAILED, -(2**31)]),
    (Field("a", "long"), pl.Series([True]), [FAILED]),
    (Field("a", "long"), pl.Series([1, None]), [1, FAILED]),
    (Field("a", "long", default=4), pl.Series([1, None]), [1, 4]),
    (Field("a", "long", nullable=True), pl.Series(["", "3"]), [None, 3]),
    (MILLIS, pl.Series([MOMENT]), [MOMENT_MS]),
    (MILLIS, pl.Series([MOMENT.replace(tzinfo=UTC)]).dt.convert_time_zone("Asia/Tokyo"), [MOMENT_MS]),
    (MILLIS, pl.Series([MOMENT]).cast(pl.Datetime("ns")), [MOMENT_MS]),
    (MILLIS, pl.Series([MOMENT.date()]), [MOMENT_MS - 31_005]),
    (
        MILLIS,
        pl.Series(["2018-04-01 00:00:31.005", "2018-04-01T02:00:31.005+02:00", "2018-04-01", "12", "soon"]),
        [MOMENT_MS, MOMENT_MS, MOMENT_MS - 31_005, 12, FAILED],
    ),
    (Field("t", "long"), pl.Series([MOMENT]), [FAILED]),
    (Field("x", "double"), pl.Series(["1.5", "1e3", "one", "2"]), [1.5, 1000.0, FAILED, 2.0]),
    (Field("x", "double"), pl.Series([3]), [3.0]),
    (Field("x", "double"), pl.Series([True]), [FAILED]),
    (Field("b", "boolean"), pl.Series([0, 1, 2]), [False, True, FAILED]),
    (Field("b", "boolean"), pl.Series(["TRUE", "0", "no"]), [True, False, FAILED]),
    (Field("s", "string"), pl.Series(["", "é", None]), ["", "é", FAILED]),
    (Field("s", "string", nullable=True), pl.Series([7, None]), ["7", None]),
    (Field("s", "string"), pl.Series([1.5]), [FAILED]),
    (Field("s", "string"), pl.Series(["a"], dtype=pl.Categorical), ["a"]),
    (Field("e", "enum", enum_name="E", symbols=("A", "B")), pl.Series(["A", "C"]), ["A", FAILED]),
    (Field("y", "bytes"), pl.Series([b"\x00"]), [b"\x00"]),
    (Field("y", "bytes"), pl.Series(["text"]), [FAILED]),
]


@pytest.mark.parametrize(("field", "series", "expected"), CASES)
def test_each_kind(field: Field, series: pl.Series, expected: list[Any]) -> None:
    values, nulls, failed = convert(series, field)
    made = [
        FAILED if bad else None if null else value
        for value, null, bad in zip(values.tolist(), nulls, failed, strict=True)
    ]
    assert made == expected


def test_a_table_names_each_bad_value_and_keeps_the_rest() -> None:
    fields = [Field("id", "long"), Field("x", "double"), Field("note", "string", nullable=True, default=None)]
    frame = pl.DataFrame({"ID": ["1", "two", ""], "x": ["0.5", "?", "2"]})
    columns = match_columns(fields, frame.columns, {}).columns
    batch, rejections = to_batch(fields, columns, frame)
    assert [(each.row, each.field, each.reason) for each in rejections] == [
        (1, "id", "type"),
        (1, "x", "type"),
        (2, "id", "null-value"),
    ]
    assert "'two'" in rejections[0].detail
    assert batch.columns["x"][[0, 2]].tolist() == [0.5, 2.0]
    assert batch.is_null("note").all()


def test_an_explicit_mapping_wins_and_frees_the_name() -> None:
    fields = [Field("id", "long"), Field("amount", "double", aliases=("TX_AMOUNT",))]
    matched = match_columns(fields, ["id", "tx_amount", "price"], {"price": "amount"})
    assert matched.columns == {"id": "id", "amount": "price"}
    assert matched.problems == ()


@pytest.mark.parametrize(
    ("available", "mapping", "says"),
    [
        (["x"], {}, "no column for 'id'; the columns are x"),
        (["Id", "ID"], {}, "could be any of Id, ID"),
        (["x"], {"y": "id"}, "no column 'y'"),
        (["x"], {"x": "ident"}, "'ident'"),
    ],
)
def test_what_cannot_be_matched_is_said(available: list[str], mapping: dict[str, str], says: str) -> None:
    problems = match_columns([Field("id", "long")], available, mapping).problems
    assert any(says in problem for problem in problems)
