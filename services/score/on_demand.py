"""Row-level transforms a team declares as Feast on-demand views, run on a micro-batch's columns."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.core.batch import Array, Batch, Mask, Rejection
from services.core.declaration import FeatureType, OnDemandView

_NUMPY: dict[FeatureType, type[np.generic] | type[object]] = {
    "int64": np.int64,
    "int32": np.int64,
    "float64": np.float64,
    "float32": np.float64,
    "bool": np.bool_,
    "string": object,
    "unix_timestamp": np.int64,
}
_EMPTY: dict[FeatureType, Any] = {
    "int64": 0,
    "int32": 0,
    "float64": np.nan,
    "float32": np.nan,
    "bool": False,
    "string": "",
    "unix_timestamp": 0,
}


def as_lists(batch: Batch, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return columns as lists of Python values with None at nulls, as Feast hands them to ``mode="python"``."""
    lists = {}
    for name in names:
        values: list[Any] = batch.columns[name].tolist()
        mask = batch.nulls.get(name)
        if mask is not None:
            values = [None if null else value for value, null in zip(values, mask.tolist(), strict=True)]
        lists[name] = values
    return lists


def as_column(values: Sequence[Any], dtype: FeatureType) -> tuple[Array, Mask | None]:
    """Return Python values as a column and its null mask (None: no nulls).

    Raises
    ------
    TypeError, ValueError
        A value is not of the declared type.
    """
    missing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    if dtype == "unix_timestamp":
        values = [round(v.timestamp()) if isinstance(v, dt.datetime) else v for v in values]
    if any(missing):
        values = [_EMPTY[dtype] if null else value for value, null in zip(values, missing, strict=True)]
        return np.array(values, dtype=_NUMPY[dtype]), np.array(missing)
    return np.array(values, dtype=_NUMPY[dtype]), None


def compute(view: OnDemandView, batch: Batch) -> tuple[dict[str, Array], dict[str, Mask], list[Rejection]]:
    """Return the view's output columns, their nulls, and a rejection for each row it cannot be computed on.

    The team's function is run once on the whole batch; only if it raises is it run row by row, so that one
    unfortunate row does not take the others with it.
    """
    inputs = as_lists(batch, view.inputs)
    try:
        columns, nulls = _laid_out(view, view.compute(inputs), batch.length)
        return columns, nulls, []
    except Exception as whole:  # noqa: BLE001 the function is the team's own: anything may come out of it
        if batch.length == 1:
            problem = f"on-demand view {view.name!r} raised {type(whole).__name__}: {whole}"
            columns, nulls = _laid_out(view, {name: [None] for name, _ in view.outputs}, 1)
            return columns, nulls, [Rejection(0, "on-demand", view.name, problem)]
    rows = [compute(view, batch.take(np.array([row]))) for row in range(batch.length)]
    names = [f"{view.name}__{name}" for name, _ in view.outputs]
    merged = {name: np.concatenate([columns[name] for columns, _, _ in rows]) for name in names}
    masks = {
        name: np.array([bool(nulls[name][0]) if name in nulls else False for _, nulls, _ in rows]) for name in names
    }
    rejections = [
        Rejection(row, each.reason, each.field, each.detail)
        for row, (_, _, refused) in enumerate(rows)
        for each in refused
    ]
    return merged, {name: mask for name, mask in masks.items() if mask.any()}, rejections


def _laid_out(
    view: OnDemandView, outputs: dict[str, list[Any]], length: int
) -> tuple[dict[str, Array], dict[str, Mask]]:
    columns: dict[str, Array] = {}
    nulls: dict[str, Mask] = {}
    for name, dtype in view.outputs:
        values = outputs[name]
        if len(values) != length:
            raise ValueError(f"{name}: {len(values)} values for {length} rows")
        column, missing = as_column(values, dtype)
        columns[f"{view.name}__{name}"] = column
        if missing is not None:
            nulls[f"{view.name}__{name}"] = missing
    return columns, nulls
