"""Windows by brute force: a list of everything accepted, fractions for sums, nothing incremental."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from services.core.declaration import Aggregate, Function, View

OK, DUPLICATE, LATE = 0, 1, 2
_UNIT = 2**128  # values are rounded to multiples of 1 / _UNIT


def exact(value: float) -> Fraction:
    return Fraction(round(Fraction(value) * _UNIT), _UNIT)


def aggregate(function: Function, values: Sequence[float]) -> float:
    """Return what a function says about the non-null values of a window, in order of time and arrival."""
    n = len(values)
    if function == "count":
        return float(n)
    if function == "count_distinct":
        return float(len(set(values)))
    total = float(sum(map(exact, values)))
    if n == 0 or (n == 1 and function in {"std", "var"}):
        return total if function == "sum" else math.nan
    if function in {"sum", "mean"}:
        return total if function == "sum" else total / n
    if function in {"std", "var"}:
        center = sum(map(Fraction, values)) / n
        variance = float(sum((Fraction(value) - center) ** 2 for value in values) / (n - 1))
        return math.sqrt(variance) if function == "std" else variance
    return {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}[function]


@dataclass
class Oracle:
    """The same fold as the store, with all accepted events in one list of (key, time, id, values)."""

    views: tuple[View, ...]
    accepted: list[tuple[object, int, int, tuple[float, ...]]] = field(default_factory=list)
    stamps: dict[object, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        aggregates = [a for view in self.views for a in view.aggregates]
        self.columns = sorted({a.column for a in aggregates})
        self.longest_ms = max(a.window_ms for a in aggregates)
        self.lateness_ms = max(view.lateness_ms for view in self.views)

    def update(self, key: object, t: int, event_id: int, values: Sequence[float]) -> tuple[int, list[float], int]:
        stream = max((entry[1] for entry in self.accepted), default=-math.inf)
        newest = self.newest(key)
        if t < stream - self.lateness_ms - self.longest_ms:
            return LATE, [], 0
        for other, at, known, _ in self.accepted:
            kept = at > self.newest(other) - self.longest_ms - self.lateness_ms
            if known == event_id and kept and at >= stream - self.lateness_ms - 2 * self.longest_ms:
                return DUPLICATE, [], 0
        if t < newest - self.lateness_ms:
            return LATE, [], 0
        self.accepted.append((key, t, event_id, tuple(values)))
        self.stamps[key] = max(t * 1000, self.stamps[key] + 1) if key in self.stamps else t * 1000
        return OK, self.features(key, t), self.stamps[key]

    def newest(self, key: object) -> float:
        return max((entry[1] for entry in self.accepted if entry[0] == key), default=-math.inf)

    def features(self, key: object, t: int) -> list[float]:
        return [self._feature(a, key, t) for view in self.views for a in view.aggregates]

    def _feature(self, a: Aggregate, key: object, t: int) -> float:
        column = self.columns.index(a.column)
        inside = [entry[1:] for entry in self.accepted if entry[0] == key and t - a.window_ms < entry[1] <= t]
        values = [entry[2][column] for entry in sorted(inside, key=lambda entry: entry[0])]
        return aggregate(a.function, [value for value in values if not math.isnan(value)])
