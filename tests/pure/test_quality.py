"""Quality against batch recomputation: whatever came, went and came again, equal knowledge gives equal figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from millstream.adapters.files.contracts import load_contract
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.ledger.label_history import encode_history
from millstream.core.metrics import DAY_MS, card_precision_top_k
from millstream.core.quality.board import Board, Examples, Scores, predictions
from millstream.core.quality.cohort import Cohort, RatedExamples
from millstream.core.quality.figures import figures, wilson
from millstream.core.quality.part import Part, PredictionCounts
from millstream.core.quality.report import Reporter, SlotFigures
from millstream.core.quality.score_cells import TOP, cells, representatives
from millstream.core.quality.snapshot import changed_rows, is_forgotten, load, rows
from millstream.core.quality.topic import as_batch, with_gaps
from millstream.settings import load_settings


@dataclass(frozen=True)
class Event:
    """What two models said of an event; no revision changes it."""

    at_ms: int
    card: int
    group: str
    scores: tuple[float, float]
    versions: tuple[int, int]


@dataclass(frozen=True)
class Example:
    event: int
    revision: int
    label: int
    delay_ms: int


probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 0.25, 0.9]))
events = st.lists(
    st.builds(
        Event,
        st.integers(0, 3 * DAY_MS),
        st.integers(0, 2),
        st.sampled_from(["a", "b"]),
        st.tuples(probabilities, st.one_of(probabilities, st.just(math.nan))),
        st.tuples(st.integers(1, 2), st.just(7)),
    ),
    min_size=1,
    max_size=7,
)


def columns(known: list[Event], examples: list[Example]) -> Examples:
    about = [known[each.event] for each in examples]
    n = len(examples)

    def of(model: int) -> Scores:
        score = np.array([event.scores[model] for event in about], dtype=np.float64)
        return Scores(
            np.full(n, ("champion", "online")[model], dtype=object),
            np.array([event.versions[model] for event in about], dtype=np.int64),
            np.full(n, ("champion", "shadow")[model], dtype=object),
            score,
            score >= 0.5,
        )

    at_ms = np.array([event.at_ms for event in about], dtype=np.int64)
    return Examples(
        np.array([each.event * 7919 for each in examples], dtype=np.int64),
        np.array([each.revision for each in examples], dtype=np.int64),
        np.array([each.label for each in examples], dtype=np.int64),
        at_ms,
        at_ms + np.array([each.delay_ms for each in examples], dtype=np.int64),
        np.array([event.card for event in about], dtype=np.int64),
        np.array([event.group for event in about], dtype=object),
        [of(0), of(1)],
    )


def restored(stored: dict[bytes, bytes]) -> Board:
    board = Board((7, 10))
    load(board, stored)
    return board


MATURITIES = (7, 10)


@settings(max_examples=40, deadline=None)
@given(events, st.booleans(), st.data())
def test_any_permutation_of_examples_counts_what_was_believed_at_each_maturity(
    known: list[Event], carried: bool, data: st.DataObject
) -> None:
    # Around the maturities, and in any order: a correction may become known before what it corrects.
    delays = st.sampled_from([0, 6, 7, 8, 10, 11, 12]).map(lambda days: days * DAY_MS)
    history = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), delays), max_size=3)
    stream: list[Example] = []
    for event in range(len(known)):
        predicted = data.draw(history)
        if carried:
            predicted.sort(key=lambda said: said[1])
        stream += [Example(event, 10 + 3 * i, *said) for i, said in enumerate(predicted)]

    def told_by(examples: list[Example]) -> Examples:
        found = columns(known, examples)
        if not carried:
            return found
        texts: list[str | None] = []
        for each in examples:
            earlier = [other for other in stream if other.event == each.event and other.revision <= each.revision]
            at_ms = known[each.event].at_ms
            texts.append(encode_history(tuple((at_ms + other.delay_ms, other.label) for other in earlier)))
        return replace(found, histories=texts)

    repeated = stream + data.draw(st.lists(st.sampled_from(stream), max_size=5) if stream else st.just([]))
    shuffled = data.draw(st.permutations(repeated))
    every = columns(known, [Example(event, 1, 0, 0) for event in range(len(known))])
    predicted = predictions(every.event_time_ms, every.groups, every.scores)
    board, batch = Board(MATURITIES), Board(MATURITIES)
    reporter, stored, said = Reporter(board), dict[bytes, bytes](), dict[object, str]()
    for day in {seen.day for seen in predicted}:
        for each in (board, batch):
            each.set_predicted(0, day, {seen: count for seen, count in predicted.items() if seen.day == day})
    as_of_ms = 0

    def report() -> None:
        said.update({(each.slot, each.day): repr(each) for each in reporter.report(as_of_ms)})
        for key, value in changed_rows(board).items():
            stored.pop(key, None)
            if value is not None:
                stored[key] = value
        board.mark_clean()

    while shuffled:
        size = data.draw(st.integers(1, 6))
        board.update(told_by(shuffled[:size]))
        shuffled = shuffled[size:]
        as_of_ms = data.draw(st.integers(0, 20)) * DAY_MS  # it may even be put back
        if data.draw(st.booleans()):
            report()
            if data.draw(st.booleans()):
                board = restored(stored)
                reporter = Reporter(board)
                reporter.resume(as_of_ms)
    as_of_ms = data.draw(st.integers(0, 20)) * DAY_MS
    report()
    batch.update(told_by(stream))
    recomputed: dict[object, str] = {(each.slot, each.day): repr(each) for each in Reporter(batch).report(as_of_ms)}
    # What was reported once and is empty now is told to be empty; the recomputation does not know of it.
    assert _full(said) == _full(recomputed)
    assert stored == rows(board) == rows(batch)
    for place, maturity_days in enumerate(MATURITIES):
        counted = _counted(stream, maturity_days)
        for model, arm in enumerate(("champion", "shadow")):
            cohorts = [
                each
                for key, each in board.cohorts.items()
                if key.series.protocol == "delayed" and key.maturity <= place and key.series.arm == arm
            ]
            there = {event: label for event, label in counted.items() if not math.isnan(known[event].scores[model])}
            assert sum(each.examples for each in cohorts) == len(there)
            assert sum(each.counts[1] for each in cohorts) == sum(there.values())
    final = [each for each in board.cohorts if each.series.protocol == "prequential" and each.series.arm == "champion"]
    present = {each.event: each for each in sorted(stream, key=lambda each: each.revision)}
    days = [(known[e].at_ms + each.delay_ms) // DAY_MS for e, each in present.items() if each.label >= 0]
    assert {key.day for key in final} == set(days)


def _counted(stream: list[Example], maturity_days: int) -> dict[int, int]:
    """Return the label of each event at a maturity, in plain words: the last one said by then; at the last, of all."""
    found: dict[int, int] = {}
    for each in sorted(stream, key=lambda each: each.revision):
        if each.delay_ms <= maturity_days * DAY_MS or maturity_days == MATURITIES[-1]:
            found[each.event] = each.label
    return {event: label for event, label in found.items() if label >= 0}


def _full(said: dict[object, str]) -> dict[object, str]:
    return {place: text for place, text in said.items() if "examples=0," not in text}


def _rated(seed: int, n: int) -> RatedExamples:
    draw = np.random.default_rng(seed)
    scores = draw.beta(0.3, 2, n)
    labels = draw.random(n) < scores
    return RatedExamples(labels, scores, scores >= 0.4, draw.integers(0, 60, n))


def _part(rated: RatedExamples, predicted: PredictionCounts | None = None, k: int = 100) -> Part:
    return Part.of_day(Cohort.of(rated, np.ones(len(rated.labels), dtype=np.int64)), predicted, k)


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    rated = _rated(seed, 700)
    found = figures(_part(rated, k=10), k=10)
    rounded = representatives(cells(rated.scores))
    labels = rated.labels
    assert found["auc"].value == pytest.approx(roc_auc_score(labels, rounded), abs=1e-12)
    assert found["average_precision"].value == pytest.approx(average_precision_score(labels, rounded), abs=1e-12)
    unrounded = roc_auc_score(labels, rated.scores)
    assert abs(found["auc"].value - unrounded) <= found["auc_resolution"].value + 1e-12
    assert found["log_loss"].value == pytest.approx(log_loss(labels, rated.scores), abs=1e-11)
    assert found["brier"].value == pytest.approx(brier_score_loss(labels, rated.scores), abs=1e-11)
    assert found["f1"].value == pytest.approx(f1_score(labels, rated.called), abs=1e-12)
    assert found["precision"].value == pytest.approx(labels[rated.called].mean(), abs=1e-12)
    assert found["recall"].value == pytest.approx(rated.called[labels].mean(), abs=1e-12)
    assert found["selection_rate"].value == pytest.approx(rated.called.mean(), abs=1e-12)
    place = np.minimum((rated.scores * 20).astype(int), 19)
    gap = sum(abs(rated.scores[place == b].sum() - labels[place == b].sum()) for b in range(20))
    assert found["calibration_error"].value == pytest.approx(gap / 700, abs=1e-11)
    (daily,) = card_precision_top_k(labels, rounded, rated.investigated, np.zeros(700, dtype=np.int64), 10)
    assert found["card_precision_at_10"].value == pytest.approx(daily.precision, abs=1e-12)
    for name, figure in found.items():
        if not math.isnan(figure.lower):
            assert figure.lower <= figure.value <= figure.upper, name


close_together = st.builds(
    lambda base, step: min(1.0, base * (1 + step * 2.0**-13)), st.floats(0, 1), st.integers(0, 9)
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(close_together, st.sampled_from([0.25, 0.25 + 1e-9, 0.9, 1.0])), st.booleans(), st.integers(0, 9)
        ),
        min_size=2,
        max_size=60,
    ),
    st.lists(st.floats(0.2, 0.2003), max_size=12),
    st.integers(1, 4),
)
def test_no_figure_is_farther_than_its_resolution_from_that_of_the_scores_as_served(
    drawn: list[tuple[float, bool, int]], crowd: list[float], k: int
) -> None:
    drawn = drawn + [(score, place % 3 == 0, place) for place, score in enumerate(crowd)]
    scores, labels = np.array([each[0] for each in drawn]), np.array([each[1] for each in drawn])
    cards = np.array([each[2] for each in drawn])
    found = figures(_part(RatedExamples(labels, scores, scores >= 0.4, cards), k=k), k=k)
    wanted = {
        "log_loss": log_loss(labels, scores, labels=[False, True]),
        "brier": brier_score_loss(labels, scores),
        f"card_precision_at_{k}": card_precision_top_k(labels, scores, cards, np.zeros(len(cards), np.int64), k)[
            0
        ].precision,
    }
    if labels.any() and not labels.all():
        wanted["auc"], wanted["average_precision"] = (
            roc_auc_score(labels, scores),
            average_precision_score(labels, scores),
        )
    for name, exact in wanted.items():
        assert abs(found[name].value - exact) <= found[name].resolution + 1e-12, name
    exact_ones = ("precision", "recall", "f1", "selection_rate", "base_rate")
    assert not any(found[name].resolution for name in exact_ones)


def test_scores_that_are_alone_in_their_cells_are_ranked_exactly() -> None:
    scores = np.arange(1, 200) / 200
    found = figures(_part(RatedExamples(scores * 7 % 1 > 0.5, scores, scores >= 0.4, np.arange(199)), k=10), k=10)
    for name in ("auc", "average_precision", "card_precision_at_10"):
        assert found[name].resolution == 0.0


@given(st.lists(probabilities, min_size=2))
def test_cells_keep_the_order_of_scores(drawn: list[float]) -> None:
    scores = np.sort(np.array(drawn))
    place = cells(scores)
    assert (np.diff(place) >= 0).all()
    assert 0 <= place[0] <= place[-1] <= TOP
    assert (cells(representatives(place)) == place).all()


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 2**32))
def test_taking_away_what_was_added_leaves_nothing(n: int, seed: int) -> None:
    rated, weights = _rated(seed, n), np.ones(n, dtype=np.int64)
    first, second = np.arange(n // 2), np.arange(n // 2, n)
    whole = Cohort.of(rated, weights)
    assert Cohort.total([whole, Cohort.of(rated, -weights)]).nothing
    assert Cohort.total([whole, whole.negative()]).nothing
    parts = [Cohort.of(rated.take(rows), weights[rows]) for rows in (second, first)]
    assert repr(figures(Part.of_day(Cohort.total(parts), None, 5))) == repr(figures(Part.of_day(whole, None, 5)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_the_interval_of_an_immature_share_holds_what_the_missing_labels_make_of_it(seed: int, known: int) -> None:
    rated = _rated(seed, 60)
    called = int(rated.called.sum())
    early = figures(_part(rated.take(np.arange(known)), PredictionCounts(called, 60 - called)))
    for labels in (rated.labels, np.zeros(60, dtype=np.bool_), np.ones(60, dtype=np.bool_), rated.called):
        late = np.where(np.arange(60) < known, rated.labels, labels)
        final = figures(_part(replace(rated, labels=late)))
        for name in ("precision", "recall", "f1", "base_rate"):
            if not math.isnan(early[name].value) and not math.isnan(final[name].value):
                assert early[name].lower - 1e-12 <= final[name].value <= early[name].upper + 1e-12, name


def _champions(reported: list[SlotFigures]) -> list[SlotFigures]:
    """Return what is about the champion's scores by event day on labels of a week."""
    return [
        each
        for each in reported
        if each.slot.series[0] == "delayed" and each.slot.series.arm == "champion" and each.slot.maturity_days == 7
    ]


def test_a_day_is_immature_until_its_last_label_could_have_come_and_groups_show_their_gap() -> None:
    known = [Event(day * DAY_MS, 1, f"sex={group}", (0.9, 0.2), (1, 7)) for day in (0, 1) for group in "ab"]
    board = Board((7, 30))
    every = columns(known, [Example(event, 1, event % 2, 5 * DAY_MS) for event in range(4)])
    predicted = predictions(every.event_time_ms, every.groups, every.scores)
    for day in (0, 1):
        board.set_predicted(3, day, {seen: count for seen, count in predicted.items() if seen.day == day})
    board.update(columns(known, [Example(event, 1, event % 2, 5 * DAY_MS) for event in range(3)]))
    reporter = Reporter(board)
    first = with_gaps(reporter.report(8 * DAY_MS))
    predicted = [each for each in _champions(first) if not each.slot.group]
    assert [(each.day, each.mature, each.coverage) for each in predicted] == [
        (0, True, 1.0),
        (1, False, 0.5),
        (None, True, 1.0),
    ]
    assert predicted[1].figures["precision"].lower < predicted[1].figures["precision"].upper
    assert [each.examples for each in predicted] == [2, 1, 2], "what is immature does not count for all days together"
    contract = load_contract(load_settings({}), "quality")
    published = as_batch(first, 8 * DAY_MS)
    records = RecordWriter(contract.schema).encode(published)
    read = RecordReader(contract.schema, lambda _: None).decode(records, 10_000)
    keys = [key.encode() for key in read.batch.columns["key"].tolist()]
    assert b"delayed|champion|1|champion|0|7||precision" in keys
    assert b"delayed|champion|1|champion||7|sex=a|recall" in keys
    assert b"delayed|champion|1|champion|0|7|sex=*|base_rate_gap" in keys
    assert len(set(keys)) == len(keys) == sum(len(each.figures) for each in first)
    assert contract.validate(read.batch, np.full(len(keys), 8 * DAY_MS), keys)[1] == []
    (gap,) = [each for each in _champions(first) if each.slot.group == "sex=*" and each.day == 0]
    assert gap.figures["base_rate_gap"].value == 1.0
    board.mark_clean()
    assert reporter.report(8 * DAY_MS) == []
    ripe = _champions(reporter.report(9 * DAY_MS))
    assert {(each.day, each.slot.group, each.mature) for each in ripe} == {
        (day, group, True) for day in (1, None) for group in ("", "sex=a")
    } | {(None, "sex=b", True)}


def test_what_is_forgotten_is_ignored_and_no_longer_counts() -> None:
    known = [Event(day * DAY_MS, 1, "", (0.9, 0.2), (1, 7)) for day in (0, 5)]
    board = Board((7, 30))
    board.update(columns(known, [Example(0, 1, 1, 0), Example(1, 1, 1, 0)]))
    board.set_predicted(0, 0, {})
    reporter = Reporter(board)
    assert [each.examples for each in _champions(reporter.report(30 * DAY_MS)) if each.day is None] == [2]
    stored = rows(board)
    board.mark_clean()
    board.forget(1)
    assert len(board.remembered) == 1
    assert {key: value for key, value in stored.items() if not is_forgotten(key, 1)} == rows(board)
    board.update(columns(known, [Example(0, 2, 0, 0), Example(1, 1, 1, 0)]))
    board.set_predicted(0, 0, {})
    assert [(each.day, each.examples) for each in _champions(reporter.report(30 * DAY_MS))] == [(None, 1)]
    assert {key.day for key in board.cohorts} == {5}
    assert not board.predicted
    assert not board.changed
    assert wilson(0, 0) == (0.0, 1.0)
