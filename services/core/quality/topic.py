"""What is reported, as records of the quality topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from services.core.batch import Array, Batch, Mask
from services.core.metrics import DAY_MS
from services.core.quality.board import Protocol
from services.core.quality.figures import Figure
from services.core.quality.report import Reported


def as_batch(reported: Sequence[Reported], protocol: Protocol, group_column: str, as_of_ms: int) -> Batch:
    """Return one row per figure, as ``schemas/quality.avsc`` has them.

    Keys do not depend on ``as_of_ms``: on a compacted topic the newest figure of each kind remains.

    Parameters
    ----------
    group_column : str
        What the groups are values of; "" where `Reported.group` is None.
    """
    rows = [(each, metric, figure) for each in reported for metric, figure in each.figures.items()]

    def texts(of: Callable[[Reported, str], object]) -> Array:
        column = np.empty(len(rows), dtype=object)
        column[:] = [str(of(each, metric)) for each, metric, _ in rows]
        return column

    def integers(of: Callable[[Reported], int]) -> Array:
        return np.array([of(each) for each, _, _ in rows], dtype=np.int64)

    def reals(of: Callable[[Reported, Figure], float]) -> Array:
        return np.array([of(each, figure) for each, _, figure in rows], dtype=np.float64)

    def key(each: Reported, metric: str) -> str:
        day = "" if each.day is None else each.day
        group = "" if each.group is None else f"{group_column}={each.group}"
        return f"{protocol}|{each.model}|{each.version}|{each.arm}|{day}|{each.maturity_days}|{group}|{metric}"

    columns: dict[str, Array] = {
        "key": texts(key),
        "protocol": texts(lambda each, metric: protocol),
        "model": texts(lambda each, metric: each.model),
        "model_version": integers(lambda each: each.version),
        "arm": texts(lambda each, metric: each.arm),
        "day_start_ms": integers(lambda each: (each.day or 0) * DAY_MS),
        "maturity_days": integers(lambda each: each.maturity_days),
        "group_column": texts(lambda each, metric: "" if each.group is None else group_column),
        "group": texts(lambda each, metric: each.group or ""),
        "metric": texts(lambda each, metric: metric),
        "value": reals(lambda each, figure: figure.value),
        "lower": reals(lambda each, figure: figure.lower),
        "upper": reals(lambda each, figure: figure.upper),
        "mature": np.array([each.mature for each, _, _ in rows], dtype=np.bool_),
        "coverage": reals(lambda each, figure: each.coverage),
        "examples": integers(lambda each: each.examples),
        "positives": integers(lambda each: each.positives),
        "as_of_ms": np.full(len(rows), as_of_ms, dtype=np.int64),
    }
    nulls: dict[str, Mask] = {name: np.isnan(columns[name]) for name in ("value", "lower", "upper", "coverage")}
    nulls["day_start_ms"] = np.array([each.day is None for each, _, _ in rows], dtype=np.bool_)
    return Batch(len(rows), columns, nulls)
