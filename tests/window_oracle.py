"""Windows by brute force: a list of everything accepted, fractions for sums, nothing incremental."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from millstream.core.declaration import Aggregate, Function, View
from millstream.core.windows.store import Upstream

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


CONFIRMING_EVENTS = 64


@dataclass
class Entry:
    key: object
    t: int
    id: int
    values: tuple[float, ...]
    source: tuple[int, object]
    kept: bool = True


@dataclass
class Oracle:
    """The same fold as the store, with all accepted events in one list."""

    views: tuple[View, ...]
    upstream: Upstream | None = None
    accepted: list[Entry] = field(default_factory=list)
    stamps: dict[object, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        aggregates = [a for view in self.views for a in view.aggregates]
        self.columns = sorted({a.column for a in aggregates})
        self.longest_ms = max(a.window_ms for a in aggregates)
        self.lateness_ms = max(view.lateness_ms for view in self.views)

    def update(
        self, key: object, t: int, event_id: int, values: Sequence[float], source: tuple[int, object] = (0, None)
    ) -> tuple[int, list[float], int]:
        newest, watermark, judged = self.newest(key), self.watermark(), self.upstream is None
        if judged and t < watermark:
            return LATE, [], 0
        if any(e.id == event_id and e.kept and e.t >= watermark - self.longest_ms for e in self.accepted):
            return DUPLICATE, [], 0
        if judged and t < newest - self.lateness_ms:
            return LATE, [], 0
        self.accepted.append(Entry(key, t, event_id, tuple(values), source))
        self.stamps[key] = max(t * 1000, self.stamps[key] + 1) if key in self.stamps else t * 1000
        if t >= newest:
            until = self.oldest(key) - self.longest_ms
            for entry in self.accepted:
                entry.kept = entry.kept and (entry.key != key or entry.t > until)
        return OK, self.features(key, t, kept_only=not judged and t < watermark), self.stamps[key]

    def newest(self, key: object) -> float:
        return max((entry.t for entry in self.accepted if entry.key == key), default=-math.inf)

    def watermark(self) -> float:
        """Return the time that no event accepted from now on lies before."""
        if self.upstream is None:
            return second([(e.key, e.t) for e in self.accepted]) - self.lateness_ms - self.longest_ms
        up, sources = self.upstream, [(e.source, e.t) for e in self.accepted]
        reached = second(sources)
        if reached == -math.inf:
            return max((t for _, t in sources), default=-math.inf) - up.lag_ms - up.horizon_ms
        behind = [second([(s, t) for s, t in sources if s[0] == p]) for p in range(up.partitions)]
        return max(min([reached, *behind]) if behind else -math.inf, reached - up.lag_ms) - up.horizon_ms

    def oldest(self, key: object) -> float:
        times = sorted((e.t for e in self.accepted if e.key == key), reverse=True)
        confirmed = times[CONFIRMING_EVENTS - 1] if len(times) >= CONFIRMING_EVENTS else -math.inf
        if self.upstream is None:
            return min(times[0], max(second([(e.key, e.t) for e in self.accepted]), confirmed)) - self.lateness_ms
        lowest = confirmed - self.upstream.lag_ms - self.upstream.horizon_ms
        return min(times[0], max(self.watermark(), lowest))

    def features(self, key: object, t: int, kept_only: bool = False) -> list[float]:
        entries = [e for e in self.accepted if e.key == key and (e.kept or not kept_only)]
        return [self._feature(a, entries, t) for view in self.views for a in view.aggregates]

    def _feature(self, a: Aggregate, entries: list[Entry], t: int) -> float:
        column = self.columns.index(a.column)
        inside = sorted((e for e in entries if t - a.window_ms < e.t <= t), key=lambda e: e.t)
        values = [e.values[column] for e in inside]
        return aggregate(a.function, [value for value in values if not math.isnan(value)])


def second(events: list[tuple[object, int]]) -> float:
    """Return the newest time that two keys have reached."""
    newest: dict[object, int] = {}
    for key, t in events:
        newest[key] = max(t, newest.get(key, t))
    return sorted(newest.values())[-2] if len(newest) > 1 else -math.inf
