"""What the views of one entity ask of its windows, compiled to arrays for the kernels.

A *cell* is a distinct pair of window and column over which something is counted, summed or averaged: those keep a
running count and sum per key. All other functions look through the window's entries.
"""

from __future__ import annotations

import json
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from services.core.declaration import Function, View

FUNCTIONS: tuple[str, ...] = get_args(Function)
COUNT, SUM, MEAN, MIN, MAX, STD, VAR, FIRST, LAST, COUNT_DISTINCT = range(len(FUNCTIONS))
RUNNING = {"count", "sum", "mean", "std", "var"}
FUNCTION, WINDOW, COLUMN, CELL = range(4)
_ROW_VERSION = 1


class Plan(NamedTuple):
    """Arrays that tell the kernels what to compute.

    Parameters
    ----------
    windows_ms : int64 ndarray of shape (windows,)
        Distinct lengths, ascending.
    cells : int64 ndarray of shape (cells, 2)
        Window and column, positions; ascending.
    first_cell : int64 ndarray of shape (windows + 1,)
        Cells of window w are ``first_cell[w]`` to before ``first_cell[w + 1]``.
    features : int64 ndarray of shape (f, 4)
        ``FUNCTION, WINDOW, COLUMN, CELL`` of each feature; a cell of -1 is none.
    lateness_ms : int
        Largest of the views.
    longest_ms : int
        Longest window.
    """

    windows_ms: NDArray[np.int64]
    cells: NDArray[np.int64]
    first_cell: NDArray[np.int64]
    features: NDArray[np.int64]
    lateness_ms: int
    longest_ms: int


def input_columns(views: tuple[View, ...]) -> tuple[str, ...]:
    """Return the distinct aggregated columns, in alphabetical order (so that stored rows outlive a reordering)."""
    return tuple(sorted({aggregate.column for view in views for aggregate in view.aggregates}))


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
    columns = input_columns(views)
    windows_ms = sorted({aggregate.window_ms for aggregate in aggregates})
    places = [(windows_ms.index(a.window_ms), columns.index(a.column)) for a in aggregates]
    cells = sorted({place for place, a in zip(places, aggregates, strict=True) if a.function in RUNNING})
    features = [
        (FUNCTIONS.index(a.function), *place, cells.index(place) if a.function in RUNNING else -1)
        for place, a in zip(places, aggregates, strict=True)
    ]
    of_window = np.array([cell[0] for cell in cells], dtype=np.int64)
    return Plan(
        np.array(windows_ms, dtype=np.int64),
        np.array(cells, dtype=np.int64).reshape(-1, 2),
        np.searchsorted(of_window, np.arange(len(windows_ms) + 1)).astype(np.int64),
        np.array(features, dtype=np.int64),
        max(view.lateness_ms for view in views),
        windows_ms[-1],
    )


def fingerprint(views: tuple[View, ...]) -> str:
    """Return a text that changes when rows stored under it would no longer serve.

    Entries hold every aggregated column over the retention, so only the key, the columns and the two durations that
    decide what is kept and what is late matter: functions, and windows shorter than the longest, may come and go.
    """
    plan = compile_plan(views)
    view = views[0]
    parts = [_ROW_VERSION, view.key_type, plan.longest_ms, plan.lateness_ms, *input_columns(views)]
    return json.dumps(parts, separators=(",", ":"))
