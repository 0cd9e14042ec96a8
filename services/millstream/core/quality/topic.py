"""Quality figures as records of the quality topic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from millstream.core.batch import Array, Batch, Mask
from millstream.core.metrics import DAY_MS
from millstream.core.quality.figures import Figure
from millstream.core.quality.report import SlotFigures, gaps

GAP = "_gap"


def with_gaps(reported: Sequence[SlotFigures]) -> list[SlotFigures]:
    """Return what was reported and, where there are groups, how far apart they are.

    A gap is a metric of its own, e.g. ``recall_gap``, of the group ``*``.
    """
    groups: dict[tuple[object, ...], list[SlotFigures]] = {}
    for each in reported:
        if each.slot.group:
            groups.setdefault((each.slot._replace(group=""), each.day), []).append(each)
    found = list(reported)
    for members in groups.values():
        first, apart = members[0], gaps(members)
        # Of a difference both ends may be off.
        named = {
            f"{name}{GAP}": Figure(
                apart.get(name, math.nan), resolution=2 * max(each.figures[name].resolution for each in members)
            )
            for name in first.figures
        }
        column = first.slot.group.partition("=")[0]
        everybody = replace(
            first,
            slot=first.slot._replace(group=f"{column}=*"),
            coverage=math.nan,
            examples=sum(each.examples for each in members),
            positives=sum(each.positives for each in members),
            figures=named,
        )
        found.append(everybody)
    return found


def as_batch(reported: Sequence[SlotFigures], as_of_ms: int) -> Batch:
    """Return one row per figure, as ``schemas/quality.avsc`` has them; a figure that is not defined is null.

    Keys do not depend on ``as_of_ms``: on a compacted topic the newest figure of each kind remains.
    """
    rows = [(each, metric, figure) for each in reported for metric, figure in each.figures.items()]

    def texts(of: Callable[[SlotFigures, str], object]) -> Array:
        column = np.empty(len(rows), dtype=object)
        column[:] = [str(of(each, metric)) for each, metric, _ in rows]
        return column

    def integers(of: Callable[[SlotFigures], int]) -> Array:
        return np.array([of(each) for each, _, _ in rows], dtype=np.int64)

    def reals(of: Callable[[SlotFigures, Figure], float]) -> Array:
        return np.array([of(each, figure) for each, _, figure in rows], dtype=np.float64)

    def key(each: SlotFigures, metric: str) -> str:
        slot, day = each.slot, "" if each.day is None else each.day
        return "|".join(map(str, (*slot.series, day, slot.maturity_days, slot.group, metric)))

    columns: dict[str, Array] = {
        "key": texts(key),
        "protocol": texts(lambda each, metric: each.slot.series.protocol),
        "model": texts(lambda each, metric: each.slot.series.model),
        "model_version": integers(lambda each: each.slot.series.version),
        "arm": texts(lambda each, metric: each.slot.series.arm),
        "day_start_ms": integers(lambda each: (each.day or 0) * DAY_MS),
        "maturity_days": integers(lambda each: each.slot.maturity_days),
        "group_column": texts(lambda each, metric: each.slot.group.partition("=")[0]),
        "group": texts(lambda each, metric: each.slot.group.partition("=")[2]),
        "metric": texts(lambda each, metric: metric),
        "value": reals(lambda each, figure: figure.value),
        "lower": reals(lambda each, figure: figure.lower),
        "upper": reals(lambda each, figure: figure.upper),
        "resolution": reals(lambda each, figure: math.nan if math.isnan(figure.value) else figure.resolution),
        "mature": np.array([each.mature for each, _, _ in rows], dtype=np.bool_),
        "coverage": reals(lambda each, figure: each.coverage),
        "examples": integers(lambda each: each.examples),
        "positives": integers(lambda each: each.positives),
        "as_of_ms": np.full(len(rows), as_of_ms, dtype=np.int64),
    }
    nulls: dict[str, Mask] = {
        name: np.isnan(columns[name]) for name in ("value", "lower", "upper", "resolution", "coverage")
    }
    nulls["day_start_ms"] = np.array([each.day is None for each, _, _ in rows], dtype=np.bool_)
    return Batch(len(rows), columns, nulls)
