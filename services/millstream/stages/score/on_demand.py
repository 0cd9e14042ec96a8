"""On-demand feature views, run on a micro-batch's columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from millstream.core.batch import Array, Batch, Mask, Rejection
from millstream.core.declaration import FeatureType, OnDemandView
from millstream.core.feast_cast import FEAST_NAMES, cast_column

REASON = "on-demand"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def as_lists(batch: Batch, names: Sequence[str], types: Sequence[FeatureType | None] = ()) -> dict[str, list[Any]]:
    """Return columns as lists of Python values with None at nulls, as Feast hands them to ``mode="python"``.

    Parameters
    ----------
    types : sequence of str or None, optional
        Declared type of each column that is a feature: a float32 is rounded to it, a time becomes a datetime.
    """
    lists = {}
    for position, name in enumerate(names):
        column, dtype = batch.columns[name], types[position] if types else None
        if dtype == "float32":
            with np.errstate(over="ignore"):
                column = column.astype(np.float32).astype(np.float64)
        values: list[Any] = column.tolist()
        if dtype == "unix_timestamp":
            values = [_EPOCH + dt.timedelta(seconds=value) for value in values]
        mask = batch.nulls.get(name)
        if mask is not None:
            values = [None if null else value for value, null in zip(values, mask.tolist(), strict=True)]
        lists[name] = values
    return lists


def compute(view: OnDemandView, batch: Batch) -> tuple[dict[str, Array], dict[str, Mask], list[Rejection]]:
    """Return the view's output columns, their nulls, and a rejection for each row it cannot be computed on.

    The function is called once for the whole batch. If it raises, or what it returns does not have one value of each
    output per row, halves of the batch are tried, down to the rows at fault; the others are not affected.
    """
    inputs = as_lists(batch, view.inputs, view.input_types)
    returned: dict[str, list[Any]] = {name: [] for name, _ in view.outputs}
    problems: dict[int, Rejection] = {}
    for first, part in _parts(view, inputs, 0, batch.length):
        if isinstance(part, str):
            problems[first] = Rejection(first, REASON, view.name, part)
        for name, column in returned.items():
            column.extend([None] if isinstance(part, str) else part[name])
    columns: dict[str, Array] = {}
    nulls: dict[str, Mask] = {}
    for name, dtype in view.outputs:
        feature = f"{view.name}__{name}"
        columns[feature], missing, unfit = cast_column(returned[name], dtype)
        if missing is not None:
            nulls[feature] = missing
        for row, found in unfit.items():
            detail = (
                f"on-demand view {view.name!r}: {name!r} is declared {FEAST_NAMES[dtype]}, its function gave {found}"
            )
            problems.setdefault(row, Rejection(row, REASON, feature, detail))
    return columns, nulls, [problems[row] for row in sorted(problems)]


def _parts(
    view: OnDemandView, inputs: dict[str, list[Any]], first: int, length: int
) -> Iterator[tuple[int, dict[str, list[Any]] | str]]:
    """Yield, in order, each part of the rows with what the function returned, or one row and what is wrong with it."""
    if not length:
        return
    # Lists of its own for each call: a function may change what it is given.
    given = {name: values[first : first + length] for name, values in inputs.items()}
    try:
        yield first, _per_row(view, view.compute(given), length)
    except (Exception, SystemExit) as error:  # noqa: BLE001 the function is the team's own: it may raise anything
        if length == 1:
            yield first, f"on-demand view {view.name!r} raised {type(error).__name__}: {error}"
            return
    else:
        return
    half = length // 2
    yield from _parts(view, inputs, first, half)
    yield from _parts(view, inputs, first + half, length - half)


def _per_row(view: OnDemandView, returned: dict[str, Any], length: int) -> dict[str, list[Any]]:
    """Return the declared outputs as lists.

    Raises
    ------
    TypeError, ValueError
        One is missing, is no list, or has another number of values than there are rows.
    """
    found = {}
    for name, _ in view.outputs:
        if name not in returned:
            raise ValueError(f"its function returned no {name!r}")
        values = returned[name]
        if not isinstance(values, list):
            if hasattr(values, "__len__") and not isinstance(values, str | bytes):
                raise TypeError(f"its function returned {name!r} as {type(values).__name__}, Feast takes lists")
            values = [values]
        if len(values) != length:
            raise ValueError(f"its function returned {len(values)} values of {name!r} for {length} rows")
        found[name] = values
    return found
