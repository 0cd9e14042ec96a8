"""Segments watched by themselves, and the online model by what labels said before."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.core.drift.alert import ONLINE, Alert
from millstream.core.drift.concept_watch import ConceptWatch, LabelledScores
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.partition_counts import Counting, Events, PartitionCounts
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.slot_counts import ABSENT
from millstream.core.drift.slot_summary import SLOT_MS
from millstream.core.drift.watch import Watch

NAMES = ("x", "y", "kind")
MONITORS = Monitors(windows_ms=(24 * HOUR_MS,), segment_by="kind")
DAY_MS = 24 * HOUR_MS


@functools.cache
def drawn(days: int, seed: int, per_day: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return times, features, scores and labels; ``kind`` is 0, 2 or, of a hundredth, 5."""
    rng = np.random.default_rng(seed)
    count = days * per_day
    times_ms = np.sort(rng.integers(0, days * DAY_MS, count))
    kind = rng.choice([0.0, 2.0, 5.0], count, p=[0.79, 0.2, 0.01])
    matrix = np.column_stack([rng.normal(size=(count, 2)), kind])
    scores = 1 / (1 + np.exp(2.0 - matrix[:, 0]))
    return times_ms, matrix, scores, rng.random(count) < scores


@functools.cache
def reference() -> ModelReference:
    times_ms, matrix, scores, labels = drawn(28, 1)
    known = labels.astype(np.float64)
    return make_reference(NAMES, matrix, scores, times_ms, known, MONITORS, decision=0.5, importance={"x": 1.0})


def watched(matrix: np.ndarray, times_ms: np.ndarray, scores: np.ndarray) -> list[Alert]:
    times_ms, offsets = times_ms + 28 * DAY_MS, np.arange(len(times_ms))
    ones = np.ones(len(times_ms), dtype=np.int64)
    events = Events(
        times_ms, times_ms, times_ms, offsets, ones, scores, np.full(len(scores), ABSENT), lambda _names: matrix
    )
    watch = Watch("m", lambda _version: reference(), 1, MONITORS, "scored", Policy())
    counts = PartitionCounts(0, SLOT_MS)
    return [a for told in counts.update(events, {1: Counting.of(reference())}) for a in watch.update(told)]


def test_segments_are_the_frequent_values_and_survive_json() -> None:
    made = reference()
    assert made.segments == (0.0, 2.0)
    assert made.columns[:5] == ("x", "y", "kind", "score", "reconstruction_error")
    assert made.columns[5:7] == ("x|kind=0", "y|kind=0")
    assert ModelReference.of_json(made.to_json()) == made
    older = {name: each for name, each in made.to_json().items() if name != "levels"}
    assert ModelReference.of_json(older).levels == ()


def test_a_shift_of_one_segment_is_told_with_its_name() -> None:
    times_ms, matrix, scores, _ = drawn(4, 2)
    calm = watched(matrix, times_ms, scores)
    moved = matrix.copy()
    moved[(matrix[:, 2] == 2.0) & (times_ms >= 2 * DAY_MS), 1] += 0.7
    (opened,) = [each for each in watched(moved, times_ms, scores) if each.event == "open"]
    assert calm == []
    assert (opened.feature, opened.segment) == ("y", "kind=2")
    assert opened.opened_at_ms > 30 * DAY_MS


def test_a_value_between_those_there_were_is_unseen() -> None:
    times_ms, matrix, scores, _ = drawn(2, 3)
    strange = matrix.copy()
    strange[::10, 2] = 3.0
    told = watched(strange, times_ms, scores)
    assert ("quality", "kind") in {(each.kind, each.feature) for each in told}


@pytest.mark.parametrize(("by", "words"), [("z", "no feature of the model"), ("x", "has a twentieth")])
def test_what_tells_no_segments_apart_is_refused(by: str, words: str) -> None:
    times_ms, matrix, scores, labels = drawn(2, 3)
    with pytest.raises(ValueError, match=words):
        make_reference(
            NAMES, matrix, scores, times_ms, labels.astype(np.float64), replace(MONITORS, segment_by=by),
            decision=0.5, importance={},
        )  # fmt: skip


def labelled(days: int = 12, seed: int = 4) -> LabelledScores:
    times_ms, matrix, scores, labels = drawn(days, seed)
    online = np.clip(scores * 0.9, 0.001, 0.999)
    offsets = np.arange(len(times_ms))
    ones = np.ones(len(times_ms), dtype=np.int64)
    kind = matrix[:, 2]

    def column(name: str) -> np.ndarray:
        assert name == "kind"
        return kind

    return LabelledScores(offsets, times_ms, times_ms + DAY_MS, ones, scores, labels, online, column)


def told(known: LabelledScores, cuts: tuple[int, ...] = ()) -> list[Alert]:
    watch = ConceptWatch("m", lambda _version: reference(), Limits(), "examples", Policy())
    alerts: list[Alert] = []
    bounds = [0, *sorted(cuts), len(known.offsets)]
    for first, last in itertools.pairwise(bounds):
        state = watch.to_json()
        watch = ConceptWatch("m", lambda _version: reference(), Limits(), "examples", Policy())
        watch.load(state)
        alerts += watch.update(known.take(np.arange(first, last)))
    return alerts


def turned_segment() -> LabelledScores:
    known = labelled()
    rng = np.random.default_rng(9)
    late = (known.times_ms >= 6 * DAY_MS) & (known.column("kind") == 2.0)
    return replace(known, labels=np.where(late, rng.random(len(late)) < np.minimum(known.scores * 2, 1), known.labels))


def test_another_meaning_in_one_segment_names_it() -> None:
    assert told(labelled()) == []
    opened = next(each for each in told(turned_segment()) if each.event == "open")
    assert (opened.kind, opened.model, opened.segment) == ("concept", "m", "kind=2")
    assert opened.monitor == "more positives than scored"


def test_the_online_models_scores_mean_something_else_while_the_champions_do_not() -> None:
    known = labelled()
    wrong = replace(known, online=np.where(known.times_ms >= 8 * DAY_MS, known.online / 2, known.online))
    opened = [each for each in told(wrong) if each.event == "open"]
    assert [(each.model, each.model_version, each.segment) for each in opened] == [(ONLINE, 0, "")]
    assert opened[0].opened_at_ms > 9 * DAY_MS


@settings(max_examples=8)
@given(st.lists(st.integers(0, 48_000), max_size=4).map(tuple))
def test_batches_and_snapshots_change_nothing(cuts: tuple[int, ...]) -> None:
    assert told(turned_segment(), cuts) == told(turned_segment())
