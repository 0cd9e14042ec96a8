"""Label windows against their definition: of each event the newest statement, seen by who asks once it is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.declaration import KeyType
from millstream.core.windows.label_store import LabelStore, Statements
from millstream.core.windows.store import DUPLICATE, LATE, OK
from window_oracle import aggregate
from window_streams import EXAMPLES, FUNCTIONS, NUMBERS, view

LATENESS_MS = 8
LONGEST_MS = 25
FAR_BACK_MS = -(10**6)
VIEWS = {
    key_type: (
        view("every", [(function, "x", 10) for function in FUNCTIONS], 0, key_type),
        view("risk", [("count", "label", 1), ("mean", "label", LONGEST_MS), ("sum", "x", LONGEST_MS)], 0, key_type),
    )
    for key_type in ("int64", "string")
}
COLUMNS = ("label", "x")
KEYS: dict[str, list[Any]] = {"int64": [-1, 0, 2], "string": ["", "a/0", "é/1"]}


class Said(NamedTuple):
    key: Any
    known_ms: int
    id: int
    revision: int
    values: tuple[float, float]


class Asks(NamedTuple):
    key: Any
    t: int


Step = Said | Asks


def steps_of(seed: int, key_type: KeyType) -> list[Step]:
    """Return a stream of questions within the lateness, and of statements: out of order, repeated, corrected."""
    rng = random.Random(seed)
    now, pace, made = 0, rng.choice([0, 1, 3]), list[Step]()
    newest: dict[Any, int] = {}
    said: dict[int, Said] = {}
    for number in range(rng.randint(10, 90)):
        now += rng.randint(0, pace) + (rng.randint(0, 40) if rng.random() < 0.04 else 0)
        if rng.random() < 0.4:
            key = rng.choice(KEYS[key_type])
            t = now - rng.choice([0, 0, rng.randint(0, LATENESS_MS)])
            t = max(t, newest.get(key, t) - LATENESS_MS)
            newest[key] = max(t, newest.get(key, t))
            made.append(Asks(key, t))
            continue
        known_ms = now + rng.choice([0, 0, -rng.randint(0, 30), rng.randint(0, 12)])
        if said and rng.random() < 0.5:
            known = rng.choice(list(said.values()))
            # What comes when the newer one is out of reach would be taken for news.
            revision = known.revision + rng.choice([-1, 0, 1, 2] if known.known_ms > now - LONGEST_MS else [1])
        else:
            known = Said(rng.choice(KEYS[key_type]), 0, rng.choice([number, -number]), 0, (0.0, 0.0))
            revision = rng.randint(1, 3)
        if known.id in said and revision == known.revision:
            made.append(said[known.id])
            continue
        taken_back = rng.random() < 0.2
        values = (math.nan, math.nan) if taken_back else (float(rng.random() < 0.4), rng.choice(NUMBERS))
        statement = Said(said.get(known.id, known).key, known_ms, known.id, revision, values)
        if revision > said.get(known.id, known).revision or known.id not in said:
            said[known.id] = statement
        made.append(statement)
    return made


def streams(key_type: KeyType = "int64") -> st.SearchStrategy[list[Step]]:
    return st.builds(steps_of, st.integers(0, 2**32), st.just(key_type))


class Oracle:
    """What was said, in a list; everything else anew for every question."""

    def __init__(self, key_type: KeyType = "int64") -> None:
        self.said: list[Said] = []
        self.views = VIEWS[key_type]

    def answer(self, key: Any, t: int) -> list[float]:
        newest: dict[int, Said] = {}
        for each in self.said:
            if each.id not in newest or each.revision > newest[each.id].revision:
                newest.pop(each.id, None)  # a correction arrives now, not when the label did
                newest[each.id] = each
        mine = sorted((s for s in newest.values() if s.key == key), key=lambda s: s.known_ms)
        found = []
        for a in (a for each in self.views for a in each.aggregates):
            inside = [s.values[COLUMNS.index(a.column)] for s in mine if t - a.window_ms < s.known_ms <= t]
            found.append(aggregate(a.function, [value for value in inside if not math.isnan(value)]))
        return found


def keys_of(keys: Sequence[Any], key_type: KeyType) -> np.ndarray:
    return np.array(keys, dtype=np.int64 if key_type == "int64" else object)


def fold(
    store: LabelStore, steps: Sequence[Step], key_type: KeyType = "int64", reach_ms: int = FAR_BACK_MS
) -> tuple[list[int], list[list[float]]]:
    """Hand over steps as one micro-batch."""
    said = [step for step in steps if isinstance(step, Said)]
    asked = [step for step in steps if isinstance(step, Asks)]
    before = np.cumsum([isinstance(step, Said) for step in steps], dtype=np.int64)
    ahead = before[[isinstance(step, Asks) for step in steps]] if steps else before
    statements = Statements(
        keys_of([s.key for s in said], key_type),
        np.array([s.known_ms for s in said], dtype=np.int64),
        np.array([s.id for s in said], dtype=np.int64),
        np.array([s.revision for s in said], dtype=np.int64),
        np.array([s.values for s in said], dtype=np.float64).reshape(-1, 2),
        np.zeros(len(said), dtype=np.int64),
    )
    times_ms = np.array([a.t for a in asked], dtype=np.int64)
    keys = keys_of([a.key for a in asked], key_type)
    status, results = store.follow(statements, keys, times_ms, times_ms - LATENESS_MS, ahead, reach_ms)
    return status.tolist(), results.reals.tolist()


def same(got: Sequence[float], wanted: Sequence[float]) -> None:
    names = [name for each in VIEWS["int64"] for name in each.columns]
    for name, one, other in zip(names, got, wanted, strict=True):
        if "std" in name or "var" in name:
            assert one == pytest.approx(other, rel=1e-12, abs=1e-300, nan_ok=True), name
        else:
            assert one == other or (math.isnan(one) and math.isnan(other)), (name, one, other)


@pytest.mark.parametrize("key_type", ["int64", "string"])
def test_every_question_gets_what_the_definition_says(key_type: KeyType) -> None:
    @EXAMPLES
    @given(streams(key_type), st.lists(st.integers(0, 90), max_size=5), st.booleans())
    def check(steps: list[Step], cuts: list[int], restarts: bool) -> None:
        store, oracle = LabelStore(VIEWS[key_type], LATENESS_MS), Oracle(key_type)
        changelog: dict[bytes, bytes] = {}
        edges = [0, *sorted(min(cut, len(steps)) for cut in cuts), len(steps)]
        for start, end in pairwise(edges):
            _, answers = fold(store, steps[start:end], key_type)
            given_back = iter(answers)
            for step in steps[start:end]:
                if isinstance(step, Said):
                    oracle.said.append(step)
                else:
                    same(next(given_back), oracle.answer(step.key, step.t))
            if restarts:
                store.expire(FAR_BACK_MS)
                for key, value in store.dirty_rows():
                    changelog.pop(key, None)
                    if value is not None:
                        changelog[key] = value
                store.mark_clean()
                store = LabelStore(VIEWS[key_type], LATENESS_MS)
                store.load_rows(list(changelog.items()))
        keys = KEYS[key_type]
        times = [max((s.known_ms for s in steps if isinstance(s, Said)), default=0)] * len(keys)
        times = [max([t, *(s.t for s in steps if isinstance(s, Asks))]) for t in times]
        answers = store.answer(keys_of(keys, key_type), np.array(times)).reals
        for key, t, row in zip(keys, times, answers, strict=True):
            same(row.tolist(), oracle.answer(key, t))

    check()


@EXAMPLES
@given(streams(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_statements_shows(steps: list[Step], rng: random.Random) -> None:
    # Of one event's revisions each is one statement.
    said = list({(s.id, s.revision): s for s in steps if isinstance(s, Said)}.values())
    one, other = LabelStore(VIEWS["int64"], LATENESS_MS), LabelStore(VIEWS["int64"], LATENESS_MS)
    fold(one, said)
    shuffled = said + [each for each in said if rng.random() < 0.5]
    rng.shuffle(shuffled)
    fold(other, shuffled)
    assert one.entries == other.entries
    assert _entries(one) == _entries(other)


def _entries(store: LabelStore) -> dict[bytes, list[list[int]]]:
    """Return the entries of each key without regard to order of arrival, which shows among equal times only."""
    bodies = {key: value[24:] for key, value in store.dirty_rows() if value}
    width = 2 + len(COLUMNS) + 1
    found = {key: np.frombuffer(body, dtype=np.int64).reshape(-1, width) for key, body in bodies.items()}
    assert all((np.diff(entries[:, 0]) >= 0).all() for entries in found.values())
    return {key: sorted(entries.tolist()) for key, entries in found.items()}


@EXAMPLES
@given(streams(), st.integers(1, 5))
def test_what_nobody_can_ask_about_goes_without_a_trace(steps: list[Step], every: int) -> None:
    """Statements are late, and keys expire, only past the reach of any event that is not itself late."""
    kept, expired = LabelStore(VIEWS["int64"], LATENESS_MS), LabelStore(VIEWS["int64"], LATENESS_MS)
    stream_ms, revisions = FAR_BACK_MS, dict[int, int]()
    for number, step in enumerate(steps):
        if isinstance(step, Said):
            if step.revision <= revisions.get(step.id, 0):
                continue  # as in a log: of one event in order
            revisions[step.id] = step.revision
        if isinstance(step, Asks):
            if step.t < stream_ms - 2 * LATENESS_MS:
                continue
            stream_ms = max(stream_ms, step.t)
        reach_ms = stream_ms - 2 * LATENESS_MS - LONGEST_MS
        if isinstance(step, Said) and step.known_ms <= reach_ms:
            # A newer revision of what is kept still takes its place; older than all that is asked about, it is nothing.
            fold(expired, [step], reach_ms=reach_ms)
            fold(kept, [step])
            continue
        (_, one), (_, other) = fold(kept, [step]), fold(expired, [step], reach_ms=reach_ms)
        for row, wanted in zip(other, one, strict=True):
            same(row, wanted)
        if number % every == 0:
            expired.expire(reach_ms)


def test_status_tells_what_became_of_a_statement() -> None:
    store = LabelStore(VIEWS["int64"], LATENESS_MS)
    first = Said(1, 10, 7, 2, (1.0, 5.0))
    status, _ = fold(store, [first, first, first._replace(revision=1), first._replace(revision=3, known_ms=12)])
    assert status == [OK, DUPLICATE, DUPLICATE, OK]
    late = [Said(1, 3, 8, 1, (1.0, 1.0)), first._replace(revision=4, known_ms=3)]
    assert fold(store, late, reach_ms=3)[0] == [LATE, OK]
    assert store.entries == 1
    assert fold(store, [Said(2, 10, 7, 9, (0.0, 0.0))])[0] == [DUPLICATE], "an event has one key"


def test_idle_keys_go_with_their_rows() -> None:
    store = LabelStore(VIEWS["int64"], LATENESS_MS)
    fold(store, [Said(1, 10, 1, 1, (1.0, 1.0)), Said(2, 20, 2, 1, (1.0, 1.0))])
    assert [key for key, _ in store.dirty_rows()] == [b"1/0", b"2/0"]
    store.mark_clean()
    assert store.expire(9) == 0
    assert store.expire(10) == 1
    assert store.dirty_rows() == [(b"1/0", None)]
    assert fold(store, [Asks(1, 11), Asks(2, 20)])[1][0][-1] == 0.0
    assert fold(store, [Said(1, 10, 1, 1, (1.0, 1.0)), Asks(1, 11)])[1][0][-1] == 1.0


def test_a_heavy_key_grows_and_is_let_go_of_as_time_passes() -> None:
    store = LabelStore(VIEWS["int64"], LATENESS_MS)
    for day in range(50):
        steps: list[Step] = [Said(0, 10 * day + k % 10, 1000 * day + k, 1, (k // 10 % 2, 1.0)) for k in range(1000)]
        (answer,) = fold(store, [*steps, Asks(0, 10 * day + 9)])[1]
        assert answer[-2:] == [0.5, 1000.0 * min(day + 1, 2) + 500.0 * (day > 1)]
        assert store.entries <= 4300
        assert store.memory_bytes < 2_000_000


def test_damaged_rows_are_refused() -> None:
    store = LabelStore(VIEWS["int64"], LATENESS_MS)
    fold(store, [Said(1, 10, 1, 1, (1.0, 1.0))])
    ((key, value),) = store.dirty_rows()
    assert value is not None
    with pytest.raises(ValueError, match="state of key '1'"):
        LabelStore(VIEWS["int64"], LATENESS_MS).load_rows([(key, value[:-1])])
