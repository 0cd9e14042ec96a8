"""Views, streams of events and how to feed them to a window store, for its tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from millstream.core.declaration import Aggregate, Function, KeyType, View
from millstream.core.windows.state import Results
from millstream.core.windows.store import UpdateResult, WindowStore

FUNCTIONS = get_args(Function)
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Event(NamedTuple):
    key: Any
    t: int
    id: int
    values: tuple[float, float]


def view(name: str, aggregates: Sequence[tuple[Function, str, int]], lateness_ms: int, key_type: KeyType) -> View:
    made = tuple(Aggregate(f"{f}_{c}_{w}", "float64", c, f, w) for f, c, w in aggregates)
    return View(name, "thing", "thing_id", key_type, "events", "at_ms", lateness_ms, made)


def two_views(key_type: KeyType = "int64", lateness_ms: int = 20) -> tuple[View, ...]:
    every: list[tuple[Function, str, int]] = [(f, "x", 10) for f in FUNCTIONS]
    some: list[tuple[Function, str, int]] = [("sum", "y", 25), ("mean", "x", 25), ("count", "x", 1), ("last", "y", 10)]
    return view("every", every, lateness_ms, key_type), view("some", [*some, ("var", "y", 25)], 0, key_type)


NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.1, 1e-30, -3e-40, 5e-324, 1e15, 1e26, -1e26, 0.1 + 0.2, -7.25, math.nan, math.nan]
KEYS: dict[KeyType, list[Any]] = {"int64": [-1, 0, 2], "string": ["", "a/0", "é/1"]}


def busy_stream(seed: int, keys: list[Any]) -> list[Event]:
    """Return a long stream with disorder about the lateness, ties, windows meeting at edges, gaps and repeats."""
    rng = random.Random(seed)
    now, pace, events = 0, rng.choice([0, 1, 3, 8]), list[Event]()
    for i in range(rng.randint(20, 70)):
        now += rng.randint(0, pace) + (rng.randint(0, 120) if rng.random() < 0.04 else 0)
        lag = rng.choice([0, 0, rng.randint(0, 24), rng.choice([1, 5, 9, 10, 11, 20, 21])])
        values = [rng.choice(NUMBERS) if rng.random() < 0.4 else round(rng.gauss(0, 100), 2) for _ in range(2)]
        events.append(Event(rng.choice(keys), now - lag, rng.choice([i, -i]), (values[0], values[1])))
        if rng.random() < 0.15:
            again = rng.choice(events)
            events.append(again._replace(t=again.t + rng.choice([0, 0, 30])))
    return events


def streams(key_type: KeyType = "int64") -> st.SearchStrategy[list[Event]]:
    """Mostly long and busy, some short, free and easy to shrink."""
    number = st.one_of(st.sampled_from(NUMBERS), st.floats(min_value=-1e9, max_value=1e9))
    events = st.builds(
        Event, st.sampled_from(KEYS[key_type]), st.integers(0, 200), st.integers(-5, 60), st.tuples(number, number)
    )
    busy = st.builds(busy_stream, st.integers(0, 2**32), st.just(KEYS[key_type]))
    return st.one_of(busy, busy, busy, st.lists(events, max_size=30))


def columns(events: Sequence[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    text = bool(events) and isinstance(events[0].key, str)
    keys = np.array([e.key for e in events], dtype=object if text else np.int64)
    times, ids = (np.array([e[k] for e in events], dtype=np.int64) for k in (1, 2))
    return keys, times, ids, np.array([e.values for e in events], dtype=np.float64).reshape(-1, 2)


def feed(store: WindowStore, events: Sequence[Event], cuts: Sequence[int] = ()) -> UpdateResult:
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    parts = [store.update(*columns(events[a:b])) for a, b in pairwise(edges)]
    results = [part.results for part in parts]
    return UpdateResult(
        np.concatenate([part.status for part in parts]),
        Results(
            np.concatenate([each.reals for each in results]),
            np.concatenate([each.wholes for each in results]),
            np.sum([each.beyond for each in results], axis=0),
        ),
        np.concatenate([part.feature_time_us for part in parts]),
        np.concatenate([part.oldest_ms for part in parts]),
    )


def bits(updated: UpdateResult) -> tuple[bytes, bytes, bytes]:
    return (
        updated.status.tobytes(),
        np.where(np.isnan(updated.features), np.nan, updated.features).tobytes(),
        updated.feature_time_us.tobytes(),
    )


def online(store: WindowStore) -> dict[Any, tuple[bytes, int]]:
    keys, results, stamps = store.online(store.all_slots())
    features = np.where(np.isnan(results.reals), np.nan, results.reals)
    rows = zip(keys.tolist(), features, stamps.tolist(), strict=True)
    return {key: (row.tobytes(), stamp) for key, row, stamp in rows}
