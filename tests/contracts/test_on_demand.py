"""On-demand views give what Feast gives for each row alone, whatever the rows beside it."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millstream.adapters.feast.on_demand_transform import Transform
from millstream.core.batch import Batch
from millstream.core.declaration import FeatureType, OnDemandView
from millstream.core.feast_cast import FEAST_NAMES, cast_column, cast_value
from millstream.stages.score.on_demand import compute

TYPES = list(FEAST_NAMES)
PLUS_2 = dt.timezone(dt.timedelta(hours=2))
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        2**31 - 1,
        2**31,
        -(2**31) - 1,
        2**53 + 1,
        2**63 - 1,
        2**63,
        -(2**63) - 1,
        10**400,
    ),
    *(0.0, 1.5, 2.7, -2.7, 1e39, 1e300, -1e-300, float("nan"), float("inf"), 1541030400.7),
    *("", "a", "12", " 12 ", "1.5", "False", "nan", "é", "\ud800", b"a", b"12", b"\xff"),
    *(np.int64(5), np.int64(0), np.int32(5), np.int8(0), np.uint64(2**63), np.float64(2.7), np.float32(1.5)),
    *(np.float32(0), np.float32("nan"), np.float16(1), np.bool_(True), np.bool_(False), np.str_("x"), np.bytes_(b"x")),
    *(decimal.Decimal("1.5"), decimal.Decimal(0), decimal.Decimal("NaN"), 1 + 2j),
    dt.datetime(2018, 11, 1, 0, 0, 0, 700_000),  # noqa: DTZ001 naive: UTC to Feast
    dt.datetime(2018, 11, 1, 0, 0, 0, 700_000, PLUS_2),
    dt.datetime(1969, 12, 31, 23, 59, 59, 300_000, dt.UTC),
    *(
        dt.datetime(1, 1, 1, tzinfo=PLUS_2),
        dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC),
        dt.date(2018, 11, 1),
        dt.timedelta(seconds=5),
    ),
    *(pd.Timestamp("2018-11-01 00:00:00.7"), pd.Timestamp("2018-11-01 00:00:00.7", tz="America/New_York")),
    *(pd.NaT, pd.NA, np.datetime64("2018-11-01T00:00:00.700"), np.datetime64("1969-12-31T23:59:59.300000000")),
    *(np.datetime64("2018-11-01"), np.datetime64("NaT"), np.timedelta64(5, "s"), np.timedelta64(5, "ns")),
    *([1], [], (1,), {"a": 1}, {1}, np.array([1.0]), np.array(1.0), range(2)),
    *(-62_135_596_801, 253_402_300_800, 10**15, -(2**63)),
]
MISSING = [value for value in VALUES if value is not None and not isinstance(value, str | list) and type(value) in {
    float, np.float32, decimal.Decimal, type(pd.NaT), type(pd.NA), np.datetime64} and pd.isnull(value)]  # fmt: skip


def by_feast(values: list[Any], dtype: FeatureType) -> list[Any]:
    """Return what a reader of Feast's own answer gets; times as seconds."""
    from feast import types
    from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

    kind = getattr(types, FEAST_NAMES[dtype]).to_value_type()
    found = [feast_value_type_to_python_type(each) for each in python_values_to_proto_values(values, kind)]
    return [int(each.timestamp()) if isinstance(each, dt.datetime) else each for each in found]


def outcome(function: Callable[[], Any]) -> Any:
    try:
        found = function()
    except Exception:  # noqa: BLE001 whatever it is, it is that value's error
        return "error"
    return None if isinstance(found, float) and np.isnan(found) else found


@pytest.mark.parametrize("dtype", TYPES)
def test_a_value_becomes_what_feast_makes_of_it_alone(dtype: FeatureType) -> None:
    differ = {}
    for value in VALUES:
        ours, theirs = outcome(lambda v=value: cast_value(v, dtype)), outcome(lambda v=value: by_feast([v], dtype)[0])
        if (ours, type(ours)) != (theirs, type(theirs)) and not any(value is each for each in MISSING):
            differ[repr(value)] = (ours, theirs)
    assert differ == {}


SOUND: dict[FeatureType, Any] = {"bool": True, "string": "a", "unix_timestamp": 1}


@pytest.mark.parametrize("dtype", TYPES)
def test_a_missing_value_becomes_what_feast_makes_of_it_beside_others(dtype: FeatureType) -> None:
    for value in MISSING:
        theirs = outcome(lambda v=value: by_feast([SOUND.get(dtype, 1), v], dtype)[1])
        assert outcome(lambda v=value: cast_value(v, dtype)) == theirs, value


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(TYPES), st.lists(st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(), max_size=8))
@example("string", ["a", None, "b"])
@example("int64", [2**53 + 1, None])
@example("int64", [2.0**53, None, float("nan")])
@example("int32", [True, 2**31])
@example("float32", [0.1, 1e39, None])
@example("float64", [np.timedelta64(5, "s")])
def test_a_column_is_cast_value_by_value(dtype: FeatureType, values: list[Any]) -> None:
    column, nulls, problems = cast_column(values, dtype)
    for row, value in enumerate(values):
        alone = outcome(lambda v=value: cast_value(v, dtype))
        null = nulls is not None and bool(nulls[row])
        assert (row in problems) == (alone == "error")
        if row in problems:
            assert null
        else:
            found = None if null else column.tolist()[row]
            assert (found, type(found)) == (alone, type(alone))


# ---- the function, in both modes


NAMES = ("amount", "n", "flag", "word", "habits__spread", "habits__count")
KINDS: dict[str, FeatureType] = dict(
    zip(NAMES, ("float64", "int64", "bool", "string", "float64", "int64"), strict=True)
)


def a_view(
    function: Callable[[Any], Any],
    mode: str,
    outputs: dict[str, FeatureType],
    kinds: dict[str, FeatureType] = KINDS,
) -> OnDemandView:
    clear = {name.rpartition("__")[2]: name for name in kinds if "__" in name}
    transform = Transform("extra", function, mode == "pandas", clear, kinds)
    types = tuple(dtype if "__" in name else None for name, dtype in kinds.items())
    return OnDemandView("extra", tuple(kinds), tuple(outputs.items()), transform, types)


DTYPES: dict[FeatureType, Any] = {"bool": np.bool_, "string": object, "float64": np.float64, "float32": np.float64}
EMPTY: dict[FeatureType, Any] = {"bool": False, "string": "", "float64": np.nan, "float32": np.nan}


def a_batch(rows: list[dict[str, Any]], kinds: dict[str, FeatureType] = KINDS) -> Batch:
    columns, nulls = {}, {}
    for name, kind in kinds.items():
        values = [row[name] for row in rows]
        filled = [EMPTY.get(kind, 0) if value is None else value for value in values]
        columns[name] = np.array(filled, dtype=DTYPES.get(kind, np.int64))
        missing = np.array([value is None for value in values], dtype=np.bool_)
        if missing.any():
            nulls[name] = missing
    return Batch(len(rows), columns, nulls)


def answers(view: OnDemandView, rows: list[dict[str, Any]], kinds: dict[str, FeatureType] = KINDS) -> list[Any]:
    """Return, per row, its outputs, or the detail of its rejection."""
    columns, nulls, rejections = compute(view, a_batch(rows, kinds))
    refused = {each.row: f"{each.field}: {each.detail}" for each in rejections}
    assert len(refused) == len(rejections)
    assert all(each.reason == "on-demand" for each in rejections)
    return [
        refused.get(
            row,
            tuple(
                None if name in nulls and nulls[name][row] else values.tolist()[row] for name, values in columns.items()
            ),
        )
        for row in range(len(rows))
    ]


def over_lists(inputs: dict[str, Any]) -> dict[str, Any]:
    if any(amount is not None and amount < 0 for amount in inputs["amount"]):
        raise ValueError("no negative amounts")
    return {
        "ratio": [
            None if a is None or s is None else a + s for a, s in zip(inputs["amount"], inputs["spread"], strict=True)
        ],
        "shown": [f"{n} {c} {f}" for n, c, f in zip(inputs["n"], inputs["habits__count"], inputs["flag"], strict=True)],
        "whole": [w if w == "x" else n for w, n in zip(inputs["word"], inputs["n"], strict=True)],
        "more than declared": [],
    }


def over_frames(inputs: pd.DataFrame) -> pd.DataFrame:
    if (inputs["amount"] < 0).any():
        raise ValueError("no negative amounts")
    return pd.DataFrame(
        {
            "ratio": np.log1p(inputs["spread"].abs().round(1)) + inputs["amount"],
            "shown": inputs["n"].astype(str) + inputs["count"].astype(str) + inputs["flag"].astype(str),
            "whole": [w if w == "x" else n for w, n in zip(inputs["word"], inputs["n"], strict=True)],
        }
    )


OUTPUTS: dict[str, FeatureType] = {"ratio": "float64", "shown": "string", "whole": "int64"}
A_ROW = st.fixed_dictionaries(
    {
        "amount": st.none() | st.sampled_from([1.5, -1.0, 1e300, 0.0]),
        "n": st.none() | st.sampled_from([0, 1, 2**53 + 1]),
        "flag": st.none() | st.booleans(),
        "word": st.none() | st.sampled_from(["x", "y"]),
        "habits__spread": st.none() | st.sampled_from([0.25, 3.0]),
        "habits__count": st.none() | st.integers(1, 3),
    }
)


@pytest.mark.parametrize(("mode", "function"), [("python", over_lists), ("pandas", over_frames)])
def test_the_same_events_give_the_same_outputs_whatever_the_batches(mode: str, function: Any) -> None:
    view = a_view(function, mode, OUTPUTS)

    @settings(deadline=None, max_examples=30)
    @given(st.lists(A_ROW, min_size=1, max_size=7), st.lists(st.integers(0, 7), max_size=3))
    def check(rows: list[dict[str, Any]], cuts: list[int]) -> None:
        ends = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
        parts = [answers(view, rows[start:end]) for start, end in itertools.pairwise(ends)]
        together = [each for part in parts for each in part]
        assert together == answers(view, rows) == [each for row in rows for each in answers(view, [row])]

    check()


def test_the_rows_on_which_the_function_raises_are_turned_away_alone() -> None:
    row: dict[str, Any] = dict(zip(NAMES, (1.0, 1, True, "y", 0.0, 1), strict=True))
    calls = []

    def counted(inputs: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(inputs["amount"]))
        return over_lists(inputs)

    rows = [{**row, "amount": -1.0 if at in {3, 700} else 1.0} for at in range(1000)]
    found = answers(a_view(counted, "python", OUTPUTS), rows)
    assert [at for at, each in enumerate(found) if isinstance(each, str)] == [3, 700]
    assert found[3] == "extra: on-demand view 'extra' raised ValueError: no negative amounts"
    assert found[0] == found[999] == (1.0, "1 1 True", 1)
    assert len(calls) < 50  # halves, not rows


ONE: dict[str, FeatureType] = {"amount": "float64"}


@pytest.mark.parametrize(
    ("mode", "returned", "words"),
    [
        ("python", lambda i: {}, "returned no 'out'"),
        ("python", lambda i: None, "NoneType"),
        ("python", lambda i: {"out": []}, "0 values of 'out' for 1 rows"),
        ("python", lambda i: {"out": i["amount"] * 2}, "2 values of 'out' for 1 rows"),
        ("python", lambda i: {"out": np.array(i["amount"])}, "ndarray"),
        ("python", lambda i: {"out": tuple(i["amount"])}, "tuple"),
        ("python", lambda i: sys.exit(3), "SystemExit"),
        ("pandas", lambda i: i[["amount"]], "returned no 'out'"),
        ("pandas", lambda i: i["amount"], "Series"),
        ("pandas", lambda i: {"out": i["amount"]}, "dict"),
        ("pandas", lambda i: i.assign(out=1.0).iloc[:0], "0 rows for 1"),
        ("pandas", lambda i: pd.concat([i.assign(out=1.0)] * 2), "2 rows for 1"),
        ("pandas", lambda i: pd.concat([i.assign(out=1.0)] * 2, axis=1), "same name"),
    ],
)
def test_an_answer_of_another_shape_is_each_rows_dead_letter(mode: str, returned: Any, words: str) -> None:
    view = a_view(returned, mode, {"out": "float64"}, ONE)
    found = answers(view, [{"amount": 1.0}, {"amount": 2.0}], ONE)
    assert all("'extra'" in each and words in each for each in found), found


def test_no_rows_have_no_outcome_whatever_the_function_does_with_them() -> None:
    def mean_of_first(inputs: dict[str, Any]) -> dict[str, Any]:
        values = next(iter(inputs.values()))
        return {"out": [sum(values) / len(values)] * len(values)}

    columns, nulls, rejections = compute(a_view(mean_of_first, "python", {"out": "float64"}), a_batch([]))
    assert {name: len(values) for name, values in columns.items()} == {"extra__out": 0}
    assert not nulls
    assert rejections == []


def test_a_wrong_number_of_rows_for_some_is_no_error_of_the_others() -> None:
    view = a_view(lambda i: i.drop_duplicates().assign(out=i["amount"]), "pandas", {"out": "float64"}, ONE)
    assert answers(view, [{"amount": 1.0}, {"amount": 1.0}, {"amount": 2.0}], ONE) == [(1.0,), (1.0,), (2.0,)]


@pytest.mark.parametrize("mode", ["python", "pandas"])
def test_a_function_that_changes_what_it_is_given_changes_nothing_else(mode: str) -> None:
    def changing(inputs: Any) -> Any:
        if mode == "python":
            inputs["amount"].reverse()
            inputs["amount"].pop()
        else:
            inputs["amount"] = 0.0
        raise KeyError("amount")

    assert (
        answers(a_view(changing, mode, {"out": "float64"}, ONE), [{"amount": 1.0}] * 2, ONE)
        == ["extra: on-demand view 'extra' raised KeyError: 'amount'"] * 2
    )


# ---- against Feast's own transformation


def feast_alone(function: Any, mode: str, dtype: FeatureType, row: dict[str, Any]) -> Any:
    """Return what Feast answers for a row, as `feast.utils._augment_response_with_on_demand_transforms` does."""
    from feast import Field, RequestSource, types
    from feast.on_demand_feature_view import OnDemandFeatureView

    kinds = {"float64": types.Float64, "int64": types.Int64, "bool": types.Bool, "string": types.String}
    asked = RequestSource(name="asked", schema=[Field(name=name, dtype=kinds[KINDS[name]]) for name in row])
    out = Field(name="out", dtype=getattr(types, FEAST_NAMES[dtype]))
    view = OnDemandFeatureView(
        name="extra", sources=[asked], schema=[out], udf=function, udf_string=str(id(function)), mode=mode
    )
    columns = {name: [value] for name, value in row.items()}
    if mode == "python":
        return by_feast(view.transform_dict(columns)["out"], dtype)[0]
    arrow = {"float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
    typed = pa.table({name: pa.array(values, arrow[KINDS[name]]) for name, values in columns.items()})
    return by_feast(view.transform_arrow(typed)["out"].to_numpy(), dtype)[0]


ROWS = [
    {"amount": a, "n": n, "flag": f, "word": w}
    for a, n, f, w in [
        (1.5, 2**53 + 1, True, "12"),
        (-2.7, -1, False, ""),
        (1e300, 2**31, True, "False"),
        (None, None, None, None),
        (0.1, 0, None, "é"),
    ]
]
OF_FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "amount": lambda i: i["amount"],
    "n": lambda i: i["n"],
    "n of 32 bits": lambda i: (i["n"].fillna(0) % 1000).astype("int32"),
    "flag": lambda i: i["flag"],
    "word": lambda i: i["word"],
    "float32": lambda i: i["amount"].astype("float32"),
    "nullable": lambda i: i["n"].astype("Int64"),
    "category": lambda i: i["word"].astype("category"),
    "pandas' text": lambda i: i["word"].astype("string"),
    "time": lambda i: pd.to_datetime(i["n"].fillna(0) % 10**9 + 0.7, unit="s"),
    "time with zone": lambda i: pd.to_datetime(i["n"].fillna(0) % 10**9 + 0.7, unit="s", utc=True).dt.tz_convert(
        "Asia/Tokyo"
    ),
    "no time": lambda i: pd.to_datetime(i["amount"] * np.nan, unit="s"),
    "objects": lambda i: pd.Series([decimal.Decimal(1)] * len(i), dtype=object),
    "lists": lambda i: pd.Series([[1, 2]] * len(i), dtype=object),
    "dates": lambda i: pd.Series([dt.date(2018, 11, 1)] * len(i), dtype=object),
    "whole objects": lambda i: pd.Series([7] * len(i), dtype=object),
    "own objects": lambda i: pd.Series([object()] * len(i), dtype=object),
}


@pytest.mark.parametrize("dtype", TYPES)
def test_frames_give_what_feast_gives_for_the_row_alone(dtype: FeatureType) -> None:
    kinds = {name: KINDS[name] for name in ROWS[0]}
    differ = {}
    for what, column in OF_FRAMES.items():

        def function(inputs: pd.DataFrame, column: Any = column) -> pd.DataFrame:
            return pd.DataFrame({"out": column(inputs)})

        ours = [
            "error" if isinstance(each, str) else each[0]
            for each in answers(a_view(function, "pandas", {"out": dtype}, kinds), ROWS, kinds)
        ]
        theirs = [outcome(lambda row=row: feast_alone(function, "pandas", dtype, row)) for row in ROWS]
        # A missing value alone is no Bool, Float64 or time to Feast, and null beside others.
        for row, (mine, feasts) in enumerate(zip(ours, theirs, strict=True)):
            if mine != feasts and not (mine is None and feasts == "error"):
                differ[what, row] = (mine, feasts)
    assert differ == {}


@pytest.mark.parametrize("dtype", TYPES)
def test_lists_give_what_feast_gives_for_the_row_alone(dtype: FeatureType) -> None:
    kinds = {name: KINDS[name] for name in ROWS[0]}
    for name in kinds:

        def function(inputs: dict[str, Any], name: str = name) -> dict[str, Any]:
            return {"out": inputs[name]}

        ours = answers(a_view(function, "python", {"out": dtype}, kinds), ROWS, kinds)
        theirs = [outcome(lambda row=row: feast_alone(function, "python", dtype, row)) for row in ROWS]
        assert ["error" if isinstance(each, str) else each[0] for each in ours] == theirs


def test_a_float32_feature_and_a_time_are_given_as_feast_reads_them() -> None:
    kinds: dict[str, FeatureType] = {"heat__real": "float32", "heat__at": "unix_timestamp"}
    seen: list[Any] = []

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(inputs))
        return {"out": [1.0] * len(inputs["real"])}

    answers(a_view(function, "python", {"out": "float64"}, kinds), [{"heat__real": 0.1, "heat__at": 60}], kinds)
    assert seen[0]["heat__real"] == seen[0]["real"] == [float(np.float32(0.1))]
    assert seen[0]["at"] == [dt.datetime(1970, 1, 1, 0, 1, tzinfo=dt.UTC)]
    frames: list[pd.DataFrame] = []

    def framed(inputs: pd.DataFrame) -> pd.DataFrame:
        frames.append(inputs)
        return pd.DataFrame({"out": inputs["real"]})

    answers(a_view(framed, "pandas", {"out": "float64"}, kinds), [{"heat__real": None, "heat__at": None}] * 2, kinds)
    assert {name: str(dtype) for name, dtype in frames[0].dtypes.items()} == {
        "heat__real": "float64",
        "heat__at": "datetime64[us, UTC]",
        "real": "float64",
        "at": "datetime64[us, UTC]",
    }
