"""Every function over every column type and declared type, against Python's integers and fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.core.batch import Batch
from millstream.core.declaration import Aggregate, ColumnType, FeatureType, Function, View
from millstream.core.windows.state import Results
from millstream.core.windows.store import WindowStore
from millstream.stages.featurize.columns import FeatureColumns

FUNCTIONS = get_args(Function)
COUNTS, REALS = {"count", "count_distinct"}, {"mean", "std", "var"}
WINDOW_MS = 50
LIMITS = {"int32": 2**31, "int64": 2**63}


def declared(function: Function, column_type: ColumnType) -> list[FeatureType]:
    """Return the types that a feature may be declared as."""
    if function in COUNTS:
        return ["int64", "int32"]
    if column_type == "text":
        return []
    whole: list[FeatureType] = ["int64", "int32"] if column_type != "real" and function not in REALS else []
    return [*whole, "float64", "float32"]


def view_of(column_type: ColumnType) -> View:
    made = [
        Aggregate(f"{function}_{dtype}", dtype, "x", function, WINDOW_MS, column_type)
        for function in FUNCTIONS
        for dtype in declared(function, column_type)
    ]
    return View("v", "thing", "thing_id", "int64", "events", "at_ms", 10**6, tuple(made))


VIEWS = {column_type: view_of(column_type) for column_type in get_args(ColumnType)}


def wanted(aggregate: Aggregate, values: list[Any]) -> int | float | None:
    """Return a feature by its definition: exact, and rounded once; None for null."""
    function, n = aggregate.function, len(values)
    if function in COUNTS:
        return n if function == "count" else len(set(values))
    if n == 0 or (n == 1 and function in {"std", "var"}):
        return 0 if function == "sum" else None
    numbers = [Fraction(value) for value in values]
    exact = {
        "sum": sum(numbers),
        "mean": sum(numbers) / n,
        "min": min(numbers),
        "max": max(numbers),
        "first": numbers[0],
        "last": numbers[-1],
    }
    if function in exact:
        found = exact[function]
        if aggregate.dtype in LIMITS:
            limit = LIMITS[aggregate.dtype]
            return int(found) if -limit <= found < limit else None
        if aggregate.dtype == "float64" and function not in {"sum", "mean"} and Fraction(float(found)) != found:
            return None
        return float(found)
    center = sum(numbers) / n
    variance = float(sum((number - center) ** 2 for number in numbers) / (n - 1))
    return math.sqrt(variance) if function == "std" else variance


def column(column_type: ColumnType, values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    if column_type == "text":
        cells = np.empty(len(values), dtype=object)
        cells[:] = ["" if value is None else value for value in values]
        return cells, nulls
    kind = np.float64 if column_type == "real" else np.int64
    return np.array([0 if value is None else value for value in values], dtype=kind), nulls


def value(results: Results, row: int, position: int, dtype: FeatureType) -> int | float | None:
    if math.isnan(results.reals[row, position]):
        return None
    if dtype in LIMITS:
        whole = int(results.wholes[row, position]) if results.wholes.shape[1] else int(results.reals[row, position])
        assert float(whole) == results.reals[row, position]
        return whole
    return float(results.reals[row, position])


_NEAR = [2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), -(2**53) - 1, 2**31 - 1, 2**31, -(2**31) - 1, 0, 1]
_SMALL = [0, 1, -1, 2**31 - 1, -(2**31), 7]


def numbers(column_type: ColumnType) -> st.SearchStrategy[Any]:
    if column_type == "long":
        return st.one_of(st.none(), st.sampled_from(_NEAR), st.integers(-(2**63), 2**63 - 1))
    if column_type == "integer":
        return st.one_of(st.none(), st.sampled_from(_SMALL), st.integers(-(2**31), 2**31 - 1))
    if column_type == "text":
        return st.one_of(st.none(), st.sampled_from(["", "a", "é", "a "]), st.text(max_size=3))
    return st.one_of(st.none(), st.integers(-(2**30), 2**30).map(lambda n: n / 1024))


@pytest.mark.parametrize("column_type", get_args(ColumnType))
def test_every_function_and_type_equals_python(column_type: ColumnType) -> None:
    view = VIEWS[column_type]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 80), numbers(column_type)), max_size=25), st.integers(0, 25))
    def check(events: list[tuple[int, Any]], cut: int) -> None:
        store = WindowStore((view,))
        cells, nulls = column(column_type, [x for _, x in events])
        words = store.layout.words(Batch(len(events), {"x": cells}, {"x": nulls}))
        times_ms, ids = np.array([t for t, _ in events], dtype=np.int64), np.arange(len(events))
        rows: list[tuple[Results, int]] = []
        unheld = 0
        for low, high in ((0, cut), (cut, len(events))):
            part = slice(low, high)
            got = store.update(np.zeros(len(ids[part]), dtype=np.int64), times_ms[part], ids[part], words[part])
            assert not got.status.any()
            rows += [(got.results, row) for row in range(len(got.status))]
            unheld += int(got.results.beyond.sum())
            changelog = [(key, row) for key, row in store.dirty_rows() if row is not None]
            store = WindowStore((view,))
            store.load_rows(changelog)
        nulls_of_type = 0
        for i, (results, row) in enumerate(rows):
            t = events[i][0]
            inside = [(at, x) for at, x in events[: i + 1] if t - WINDOW_MS < at <= t]
            given_values = [x for _, x in sorted(inside, key=lambda event: event[0]) if x is not None]
            for position, each in enumerate(view.aggregates):
                found, right = value(results, row, position, each.dtype), wanted(each, given_values)
                if column_type == "real" and each.function in {"std", "var"} and right is not None:
                    assert found == pytest.approx(right, rel=1e-9), each
                else:
                    assert found == right, (each, given_values)
                nulls_of_type += right is None and len(given_values) > (each.function in {"std", "var"})
        assert unheld == nulls_of_type

    check()


def test_ids_that_differ_beyond_doubles_are_told_apart() -> None:
    store = WindowStore((VIEWS["long"],))
    ids = np.array([2**53, 2**53 + 1, 2**53 + 1])
    got = store.update(
        np.zeros(3, dtype=np.int64), np.arange(3), np.arange(3), store.layout.words(Batch(3, {"x": ids}))
    )
    at = {each.feature: position for position, each in enumerate(VIEWS["long"].aggregates)}
    assert got.results.wholes[:, at["count_distinct_int64"]].tolist() == [1, 2, 2]
    assert got.results.wholes[:, at["last_int64"]].tolist() == ids.tolist()
    assert got.results.wholes[:, at["max_int64"]].tolist() == ids.tolist()
    assert np.isnan(got.results.reals[1, at["last_float64"]]), "no double is this id"
    assert got.results.beyond[at["last_float64"]] == 2


def test_a_sum_that_left_its_type_comes_back_when_the_window_moves_on() -> None:
    store = WindowStore((VIEWS["long"],))
    cents = np.array([9 * 10**18, 9 * 10**18, 5])
    words = store.layout.words(Batch(3, {"x": cents}))
    got = store.update(np.zeros(3, dtype=np.int64), np.array([0, 1, WINDOW_MS]), np.arange(3), words)
    at = [each.feature for each in VIEWS["long"].aggregates].index("sum_int64")
    assert np.isnan(got.results.reals[:, at]).tolist() == [False, True, False]
    assert got.results.wholes[[0, 2], at].tolist() == [9 * 10**18, 9 * 10**18 + 5]
    assert got.results.beyond[at] == 1
    _, newest, _ = store.online(store.all_slots())
    assert newest.wholes[0, at] == 9 * 10**18 + 5


def test_a_variance_beyond_float32_is_null() -> None:
    store = WindowStore((VIEWS["real"],))
    got = store.update(np.zeros(2, dtype=np.int64), np.arange(2), np.arange(2), np.array([[1e25], [-1e25]]))
    at = {each.feature: position for position, each in enumerate(VIEWS["real"].aggregates)}
    assert np.isnan(got.results.reals[1, at["var_float32"]])
    assert got.results.reals[1, at["var_float64"]] == pytest.approx(2e50)
    assert got.results.reals[1, at["std_float32"]] == pytest.approx(1.4142e25, rel=1e-4)
    assert got.results.beyond[at["var_float32"]] == 1


def test_columns_of_doubles_are_stored_as_ever_and_whole_ones_under_a_name_of_their_own() -> None:
    def of(column_type: ColumnType) -> str:
        made = (Aggregate("f", "int64", "x", "count", 10, column_type),)
        return WindowStore((View("v", "e", "e_id", "int64", "t", "at", 5, made),)).fingerprint

    assert of("real") == of("integer") == '[1,"int64",10,5,"x"]'
    assert len({of("real"), of("long"), of("text")}) == 3


def test_more_whole_columns_than_a_word_has_bits() -> None:
    names = [f"c{i:02}" for i in range(70)]
    made = tuple(Aggregate(name, "int64", name, "last", 10, "long") for name in names)
    store = WindowStore((View("v", "e", "e_id", "int64", "t", "at", 5, made),))
    rng = random.Random(3)
    nulls = {name: np.array([rng.random() < 0.5, True]) for name in names}
    batch = Batch(2, {name: np.array([2**60 + i, -1]) for i, name in enumerate(names)}, nulls)
    got = store.update(np.zeros(2, dtype=np.int64), np.arange(2), np.arange(2), store.layout.words(batch))
    for i, name in enumerate(names):
        assert np.isnan(got.results.reals[1, i]) == nulls[name][0]
        assert nulls[name][0] or got.results.wholes[1, i] == 2**60 + i


def test_a_float32_feature_is_rounded_before_the_model_reads_it() -> None:
    view = View(
        "v", "thing", "thing_id", "int64", "events", "at_ms", 10, (Aggregate("m", "float32", "x", "max", WINDOW_MS),)
    )
    store = WindowStore((view,))
    batch = Batch(1, {"x": np.array([0.1])})
    updated = store.update(np.array([1]), np.array([5]), np.array([7]), store.layout.words(batch, np.array([0])))
    columns, _ = FeatureColumns((view,)).columns(updated.results)
    assert columns["v__m"].tolist() == [float(np.float32(0.1))]
