"""Quality against batch recomputation: whatever came, went and came again, equal knowledge gives equal figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from services.adapters.contracts import load_contract
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.metrics import DAY_MS, card_precision_top_k
from services.core.quality.board import Board, Examples, Key, Scores, merged
from services.core.quality.cohort import Cohort, Rated
from services.core.quality.figures import Predicted, figures, wilson
from services.core.quality.report import gaps, report
from services.core.quality.score_cells import TOP, cells, representatives
from services.core.quality.snapshot import restore, snapshot
from services.core.quality.topic import as_batch
from services.settings import load_settings


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


@settings(max_examples=150, deadline=None)
@given(events, st.sampled_from(["delayed", "prequential"]), st.data())
def test_any_permutation_repetition_correction_and_retraction_is_a_batch_recomputation(
    known: list[Event], protocol: str, data: st.DataObject
) -> None:
    history = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 12 * DAY_MS)), max_size=3)
    stream, final = [], []
    for event in range(len(known)):
        told = [Example(event, 10 + 3 * i, *said) for i, said in enumerate(data.draw(history))]
        stream += told
        final += told[-1:]
    repeated = stream + data.draw(st.lists(st.sampled_from(stream), max_size=5) if stream else st.just([]))
    shuffled = data.draw(st.permutations(repeated))
    board, batch = Board((7, 10), protocol), Board((7, 10), protocol)
    while shuffled:
        size = data.draw(st.integers(1, 6))
        board.update(columns(known, shuffled[:size]))
        shuffled = shuffled[size:]
        if data.draw(st.booleans()):
            board = restore(snapshot(board))
    batch.update(columns(known, final))
    assert snapshot(board) == snapshot(batch)
    as_of_ms = 20 * DAY_MS
    for by_day, by_group in ((True, True), (True, False), (False, True), (False, False)):
        # NaN is not equal to itself, its text is.
        told = report(board, as_of_ms, 10, by_day, by_group)
        assert repr(told) == repr(report(batch, as_of_ms, 10, by_day, by_group))
    counted = [each for each in final if each.label >= 0]
    champion = sum(key_cohort.examples for key, key_cohort in board.cohorts.items() if key.arm == "champion")
    assert champion == len(counted)
    online = sum(key_cohort.examples for key, key_cohort in board.cohorts.items() if key.arm == "shadow")
    assert online == sum(not math.isnan(known[each.event].scores[1]) for each in counted)
    for key in board.cohorts:
        at = [each for each in counted if _key(known[each.event], each, key, protocol) == key]
        assert board.cohorts[key].counts[1] == sum(each.label for each in at)


def _key(event: Event, example: Example, key: Key, protocol: str) -> Key:
    known_ms = event.at_ms + example.delay_ms
    day = (event.at_ms if protocol == "delayed" else known_ms) // DAY_MS
    model = 0 if key.arm == "champion" else 1
    if math.isnan(event.scores[model]):
        return key._replace(model="none")
    return key._replace(
        version=event.versions[model], day=day, maturity=int(example.delay_ms > 7 * DAY_MS), group=event.group
    )


def _rated(seed: int, n: int, days: int = 3) -> Rated:
    draw = np.random.default_rng(seed)
    scores = draw.beta(0.3, 2, n)
    labels = draw.random(n) < scores
    return Rated(labels, scores, scores >= 0.4, draw.integers(0, 60, n), draw.integers(0, days, n))


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    rated = _rated(seed, 700)
    cohort = Cohort.of(rated, np.ones(700, dtype=np.int64))
    found = figures(cohort, k=10)
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
    daily = card_precision_top_k(labels, rounded, rated.groups, rated.days * DAY_MS, 10)
    wanted = np.mean([day.precision for day in daily])
    assert found["card_precision_at_10"].value == pytest.approx(wanted, abs=1e-12)
    for name, figure in found.items():
        if not math.isnan(figure.lower):
            assert figure.lower <= figure.value <= figure.upper, name


@given(st.lists(probabilities, min_size=2))
def test_cells_keep_the_order_of_scores(drawn: list[float]) -> None:
    scores = np.sort(np.array(drawn))
    place = cells(scores)
    assert (np.diff(place) >= 0).all()
    assert 0 <= place[0] <= place[-1] <= TOP
    assert (cells(representatives(place)) == place).all()


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_taking_away_what_was_added_leaves_nothing(n: int, seed: int) -> None:
    rated, weights = _rated(seed, n), np.ones(n, dtype=np.int64)
    first, second = np.arange(n // 2), np.arange(n // 2, n)
    whole = Cohort.of(rated, weights)
    assert whole.plus(Cohort.of(rated, -weights)).nothing
    parts = [Cohort.of(rated.take(rows), weights[rows]) for rows in (second, first)]
    assert repr(figures(parts[0].plus(parts[1]))) == repr(figures(whole))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_the_interval_of_an_immature_share_holds_what_the_missing_labels_make_of_it(seed: int, known: int) -> None:
    rated = _rated(seed, 60)
    ones = np.ones(60, dtype=np.int64)
    called = int(rated.called.sum())
    early = figures(Cohort.of(rated.take(np.arange(known)), ones[:known]), Predicted(called, 60 - called))
    for labels in (rated.labels, np.zeros(60, dtype=np.bool_), np.ones(60, dtype=np.bool_), rated.called):
        late = np.where(np.arange(60) < known, rated.labels, labels)
        final = figures(Cohort.of(replace(rated, labels=late), ones))
        for name in ("precision", "recall", "f1", "base_rate"):
            if name in early and name in final:
                assert early[name].lower - 1e-12 <= final[name].value <= early[name].upper + 1e-12, name


def test_a_day_is_immature_until_its_last_label_could_have_come_and_groups_show_their_gap() -> None:
    known = [Event(day * DAY_MS, 1, group, (0.9, 0.2), (1, 7)) for day in (0, 1) for group in "ab"]
    board = Board((7, 30))
    every = columns(known, [Example(event, 1, event % 2, 5 * DAY_MS) for event in range(4)])
    board.update_predictions(every.event_time_ms, every.groups, every.scores)
    board.update(columns(known, [Example(event, 1, event % 2, 5 * DAY_MS) for event in range(3)]))
    told = [each for each in report(board, 8 * DAY_MS, 7) if each.arm == "champion"]
    assert [(each.day, each.mature, each.coverage) for each in told] == [(0, True, 1.0), (1, False, 0.5)]
    assert told[1].figures["precision"].lower < told[1].figures["precision"].upper
    contract = load_contract(load_settings({}), "quality")
    published = as_batch(told, "delayed", "", 8 * DAY_MS)
    records = RecordWriter(contract.schema).encode(published)
    read = RecordReader(contract.schema, lambda _: None).decode(records, 10_000)
    keys = [key.encode() for key in read.batch.columns["key"].tolist()]
    assert b"delayed|champion|1|champion|0|7||precision" in keys
    assert len(set(keys)) == len(keys) == sum(len(each.figures) for each in told)
    assert contract.validate(read.batch, np.full(len(keys), 8 * DAY_MS), keys)[1] == []
    by_group = [each for each in report(board, 8 * DAY_MS, 7, False, True) if each.arm == "champion"]
    assert [(each.group, each.examples, each.mature) for each in by_group] == [("a", 2, False), ("b", 1, False)]
    assert gaps(by_group)["base_rate"] == 1.0
    assert merged(board.cohorts, list(board.cohorts)).examples == 6
    with pytest.raises(ValueError, match="at 7, 30 days, not at 8"):
        report(board, 0, 8)
    assert wilson(0, 0) == (0.0, 1.0)


def test_what_is_forgotten_is_no_longer_told_apart_and_a_snapshot_of_another_layout_is_refused() -> None:
    known = [Event(day * DAY_MS, 1, "a", (0.9, 0.2), (1, 7)) for day in (0, 5)]
    board = Board()
    board.update(columns(known, [Example(0, 1, 1, 0), Example(1, 1, 1, 0)]))
    board.forget(DAY_MS)
    assert len(board.remembered) == 1
    board.update(columns(known, [Example(1, 1, 1, 0)]))
    assert merged(board.cohorts, list(board.cohorts)).examples == 4
    with pytest.raises(ValueError, match="layout 9"):
        restore(snapshot(board).replace(b'"layout": 1', b'"layout": 9'))
