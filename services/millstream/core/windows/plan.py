"""The windows and aggregations of one entity's views, compiled to arrays for the kernels.

A *cell* is a distinct pair of window and column over which something is counted, summed or averaged: those keep a
running count and sum per key. All other functions look through the window's entries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from millstream.core.declaration import ColumnType, FeatureType, Function, View
from millstream.core.windows.values import Layout

FUNCTIONS: tuple[str, ...] = get_args(Function)
COUNT, SUM, MEAN, MIN, MAX, STD, VAR, FIRST, LAST, COUNT_DISTINCT = range(len(FUNCTIONS))
RUNNING = {"count", "sum", "mean", "std", "var"}
FUNCTION, WINDOW, COLUMN, CELL, BIT, WHOLE, TYPE = range(7)
TYPES: tuple[FeatureType, ...] = ("float64", "float32", "int64", "int32")
FLOAT64, FLOAT32, INT64, INT32 = range(len(TYPES))
_WHOLE_COLUMNS: frozenset[ColumnType] = frozenset({"integer", "long", "text"})
_CHOSEN = {"sum", "min", "max", "first", "last"}
_ROW_VERSION = 1


class Plan(NamedTuple):
    """Arrays from which the kernels compute.

    Parameters
    ----------
    windows_ms : int64 ndarray of shape (windows,)
        Distinct lengths, ascending.
    cells : int64 ndarray of shape (cells, 3)
        Window and column, positions; ascending. Then the column's null bit, -1 for one kept as doubles.
    first_cell : int64 ndarray of shape (windows + 1,)
        Cells of window w are ``first_cell[w]`` to before ``first_cell[w + 1]``.
    features : int64 ndarray of shape (f, 7)
        ``FUNCTION, WINDOW, COLUMN, CELL, BIT, WHOLE, TYPE`` of each feature; a cell of -1 is none. ``BIT`` is the
        column's null bit, -1 for one kept as doubles; ``WHOLE`` is 1 if its values are whole numbers; ``TYPE`` is the
        position of the declared type in `TYPES`.
    columns : int
        Words of an entry before its null words.
    wholes, exact : tuple
        Empty, or not, where no feature is over whole numbers, and where no feature may be a whole number that no double
        holds: by their types, which are compiled in, kernels leave out what nothing asks for.
    lateness_ms : int
        Largest of the views.
    longest_ms : int
        Longest window.
    later : bool
        Whether another stage has accepted the events already; then none is late here.
    horizon_ms : int
        No event is accepted that is older than the stream time of its first partition by more than this.
    lag_ms : int
        How far behind the newest an upstream partition is waited for.
    """

    windows_ms: NDArray[np.int64]
    cells: NDArray[np.int64]
    first_cell: NDArray[np.int64]
    features: NDArray[np.int64]
    columns: int
    wholes: tuple[int, ...]
    exact: tuple[int, ...]
    lateness_ms: int
    longest_ms: int
    later: bool = False
    horizon_ms: int = 0
    lag_ms: int = 0


def exact_wholes(views: tuple[View, ...]) -> bool:
    """Return whether features may be whole numbers that no double holds; counts never are."""
    aggregates = [aggregate for view in views for aggregate in view.aggregates]
    return any(each.function in _CHOSEN and TYPES.index(each.dtype) in {INT64, INT32} for each in aggregates)


def compile_plan(views: tuple[View, ...]) -> Plan:
    """Compile the views of one entity.

    Raises
    ------
    ValueError
        If there is nothing to aggregate, the views differ in entity key, or a function or duration is out of range.
    """
    aggregates = [aggregate for view in views for aggregate in view.aggregates]
    if not aggregates:
        raise ValueError("views without aggregates need no windows")
    if len({(view.entity, view.join_key, view.key_type) for view in views}) > 1:
        raise ValueError(f"views of one entity are expected, got {sorted({view.entity for view in views})}")
    if any(not 0 < aggregate.window_ms < 2**50 for aggregate in aggregates):
        raise ValueError("window_ms must be positive and below 2**50")
    if any(not 0 <= view.lateness_ms < 2**50 for view in views):
        raise ValueError("lateness_ms must be zero or more and below 2**50")
    layout = Layout(views)
    columns, null_bits = layout.columns, layout.null_bits.tolist()
    windows_ms = sorted({aggregate.window_ms for aggregate in aggregates})
    places = [(windows_ms.index(a.window_ms), columns.index(a.column)) for a in aggregates]
    cells = sorted({place for place, a in zip(places, aggregates, strict=True) if a.function in RUNNING})
    features = [
        (
            FUNCTIONS.index(a.function),
            *place,
            cells.index(place) if a.function in RUNNING else -1,
            null_bits[place[1]],
            int(a.column_type in _WHOLE_COLUMNS),
            TYPES.index(a.dtype),
        )
        for place, a in zip(places, aggregates, strict=True)
    ]
    of_window = np.array([cell[0] for cell in cells], dtype=np.int64)
    lateness_ms = max(view.lateness_ms for view in views)
    return Plan(
        np.array(windows_ms, dtype=np.int64),
        np.array([(*cell, null_bits[cell[1]]) for cell in cells], dtype=np.int64).reshape(-1, 3),
        np.searchsorted(of_window, np.arange(len(windows_ms) + 1)).astype(np.int64),
        np.array(features, dtype=np.int64),
        len(columns),
        (1,) if any(a.column_type in _WHOLE_COLUMNS for a in aggregates) else (),
        (1,) if exact_wholes(views) else (),
        lateness_ms,
        windows_ms[-1],
        horizon_ms=lateness_ms + windows_ms[-1],
    )


def fingerprint(views: tuple[View, ...], columns: Sequence[str | list[str]]) -> str:
    """Return a text that changes when rows stored under it would no longer serve.

    Entries hold every aggregated column over the retention, so only the key, the columns and the two durations that
    decide what is kept and what is late matter: functions, and windows shorter than the longest, may come and go.

    Parameters
    ----------
    columns : sequence
        `Layout.names`.
    """
    plan = compile_plan(views)
    view = views[0]
    parts = [_ROW_VERSION, view.key_type, plan.longest_ms, plan.lateness_ms, *columns]
    return json.dumps(parts, separators=(",", ":"))
