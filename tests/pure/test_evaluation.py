"""What a published protocol trains on and tests on, how growth is chosen before it, and metrics by day."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, declare
from millstream.core.metrics import DAY_MS, evaluate
from millstream.core.simulation.simulate import Simulation, simulate
from millstream.stages.learn.learner import Learner
from millstream.stages.retrain.fit import Growth, fit
from millstream_lab.evaluation.book import PROTOCOL, SIZES
from millstream_lab.evaluation.by_day import by_day, overall
from millstream_lab.evaluation.candidates import candidates
from millstream_lab.evaluation.champions import Events, Plan, moments, served
from millstream_lab.evaluation.choose import choose
from millstream_lab.evaluation.compare import serve_delayed
from millstream_lab.evaluation.plot import bars_png, daily_png
from millstream_lab.evaluation.protocol import Protocol, parts

PNG = b"\x89PNG"


def test_the_books_parts_have_the_books_sizes() -> None:
    """The published counts of the published stream; nothing else shows that the protocol is the same."""
    stream = simulate(Simulation())
    labels = stream.columns["is_fraud"].astype(bool)
    masks = parts(stream.columns["event_time_ms"], labels, stream.columns["customer_id"], PROTOCOL)
    assert {
        name: (int(mask.sum()), int(labels[mask].sum())) for name, mask in zip(("train", "test"), masks, strict=True)
    } == SIZES


def test_a_group_is_left_out_from_the_day_on_which_it_is_known() -> None:
    protocol = Protocol(0, train_days=2, delay_days=3, test_days=2)
    assert (protocol.test_from_ms, protocol.test_to_ms) == (5 * DAY_MS, 7 * DAY_MS)
    # positive on the last moment of day 1, the first of day 2, of day 3, and before the training part
    bad = np.array([2 * DAY_MS - 1, 2 * DAY_MS, 3 * DAY_MS, -1])
    cards = np.arange(4)
    tested = np.concatenate([np.full(4, 5 * DAY_MS), np.full(4, 7 * DAY_MS - 1), np.full(4, 7 * DAY_MS)])
    times_ms = np.concatenate([bad, tested])
    labels = np.concatenate([np.ones(4, bool), np.zeros(12, bool)])
    train, test = parts(times_ms, labels, np.concatenate([cards] * 4), protocol)
    assert train[:4].tolist() == [True, False, False, False]
    assert test.reshape(4, 4).tolist() == [
        [False] * 4,
        [False, True, True, True],
        [False, False, True, True],
        [False] * 4,
    ]


def test_folds_end_before_their_labels_would_be_known_too_late() -> None:
    folds = PROTOCOL.known_before_training(3)
    known_ms = [fold.test_to_ms + fold.delay_days * DAY_MS for fold in folds]
    assert known_ms == [PROTOCOL.test_from_ms - week * 7 * DAY_MS for week in range(3)]


def made(seed: int = 0, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, 3))
    odds = 3 * matrix[:, 0] * matrix[:, 1] - 2
    return matrix, random.random(rows) < 1 / (1 + np.exp(-odds))


def test_growth_is_chosen_on_the_folds_and_grown_on_without_looking_elsewhere() -> None:
    matrix, labels = made()
    place = np.arange(len(labels))
    folds = [(place < 1000, (place >= 1000) & (place < 2000)), (place < 2000, (place >= 2000) & (place < 3000))]
    stump, tree = (
        Growth(rounds=30, patience=1, leaves=leaves, min_rows_in_leaf=5, learning_rate=0.3) for leaves in (2, 15)
    )
    told = []
    choice = choose("abc", matrix, labels, folds, [stump, tree], lambda *at: told.append(at))
    assert replace(choice.growth, rounds=30) == tree  # a stump cannot see a product
    assert len(told) == 2 * 2 * 30
    assert [replace(growth, rounds=30) for growth, _ in choice.tried] == [stump, tree]
    assert choice.tried[1] == (choice.growth, choice.average_precision)
    assert choice.tried[0][1] < choice.average_precision
    curves = [fit("abc", matrix, labels, *fold, replace(tree, patience=30)).curve for fold in folds]
    assert (
        choice.average_precision == np.mean(curves, axis=0).max() == np.mean(curves, axis=0)[choice.growth.rounds - 1]
    )
    fitted = fit("abc", matrix, labels, place < 3000, None, choice.growth)
    assert (fitted.trees, fitted.curve) == (choice.growth.rounds, ())
    labels[3000:] = False
    assert fit("abc", matrix, labels, place < 3000, None, choice.growth).body == fitted.body
    scores = TextModel(fitted.body, 1).predict(np.ascontiguousarray(matrix.T))
    assert scores.shape == labels.shape


def test_a_day_is_measured_by_itself_and_overall_by_events() -> None:
    random = np.random.default_rng(2)
    labels, scores = random.random(900) < 0.2, random.random(900)
    groups, times_ms = random.integers(0, 150, 900), np.repeat(np.arange(3) + 100, 300) * DAY_MS
    labels[times_ms == 102 * DAY_MS] = False
    daily = by_day(labels, scores, groups, times_ms, k=20)
    assert list(daily) == [100, 101, 102]
    for day in (100, 101):
        rows = times_ms == day * DAY_MS
        expected = evaluate(labels[rows], scores[rows], groups[rows], times_ms[rows], 20)
        assert daily[day] == {name: expected[name] for name in daily[day]}
        assert len(daily[day]) == 4
    assert set(daily[102]) == {"log_loss", "card_precision_at_20"}
    found = overall(labels, scores, daily, 20)
    all_rows = evaluate(labels, scores, groups, times_ms, 20)
    for name in ("auc", "average_precision", "log_loss"):
        assert found[name] == all_rows[name]
    assert found["card_precision_at_20"] == pytest.approx(
        sum(day["card_precision_at_20"] for day in daily.values()) / 3
    )


def test_pictures_are_drawn() -> None:
    metrics = {"auc": 0.9, "log_loss": 0.1}
    assert bars_png({"a": metrics, "b": metrics}, {"auc": "AUC", "log_loss": "log-loss"}, "both").startswith(PNG)
    days = {17_000: metrics, 17_001: {"log_loss": 0.2}}
    assert daily_png({"a": days, "b": days}, {"auc": "AUC", "log_loss": "log-loss"}, "days").startswith(PNG)


def payments(rows: int = 600) -> Events:
    """Return events half an hour apart."""
    matrix, labels = made(rows=rows)
    times_ms = 100 * DAY_MS + np.arange(rows) * 1_800_000
    return Events(["a", "b", "c"], matrix, times_ms, labels, np.arange(rows) % 9)


def test_each_champion_answers_from_its_moment_until_the_next_ones() -> None:
    events = payments()
    plan = Plan(104 * DAY_MS, 2 * DAY_MS, 3 * DAY_MS, 9 * DAY_MS, DAY_MS)
    at = moments(plan, 112 * DAY_MS)
    assert at == [day * DAY_MS for day in (102, 104, 107, 110)]
    place = np.arange(len(events.labels))
    models = {
        at_ms: TextModel(fit("abc", events.matrix, events.labels, place % 4 != i, None, Growth(rounds=3)).body, 1)
        for i, at_ms in enumerate(at)
    }
    scores = served(models, at, events)
    every = {at_ms: model.predict(np.ascontiguousarray(events.matrix.T)) for at_ms, model in models.items()}
    assert np.isnan(scores[events.times_ms < at[0]]).all()
    for at_ms, until_ms in zip(at, [*at[1:], 1 << 62], strict=True):
        rows = (events.times_ms >= at_ms) & (events.times_ms < until_ms)
        assert scores[rows].tolist() == every[at_ms][rows].tolist()


def test_an_online_model_answers_by_no_label_before_it_is_known() -> None:
    events, delay_ms, cut_ms = payments(), 2 * DAY_MS, 107 * DAY_MS
    champion = np.random.default_rng(5).random(len(events.labels))
    declared = declare("online", candidates()["logistic regression, SGD 0.01"](), ["a", "b", CHAMPION_LOGIT])
    late = events.times_ms + delay_ms >= cut_ms
    flipped = replace(events, labels=events.labels ^ late)
    first, second = (
        serve_delayed(declared, each.answered_by(champion, delay_ms), 103 * DAY_MS).scores for each in (events, flipped)
    )
    unanswered = events.times_ms < 103 * DAY_MS
    assert np.isnan(first[unanswered]).all()
    before = ~unanswered & (events.times_ms < cut_ms)
    assert before.sum() > 100
    assert first[before].tolist() == second[before].tolist()
    after = events.times_ms >= cut_ms + 3_600_000
    assert (first[after] != second[after]).all(), "and by what is known"


@pytest.mark.parametrize("name", candidates())
def test_every_candidate_can_be_the_online_model(name: str) -> None:
    events, key = payments(200), b"sixteen bytes or more"
    declared = declare("online", candidates()[name](), ["a", "b", CHAMPION_LOGIT])
    batch = events.answered_by(np.full(200, 0.3), 0).batch.with_columns({"label": events.labels.astype(float)})
    learner, copy = Learner(declared), Learner(declared)
    learner.learn(batch, "label", "test", np.arange(200))
    copy.restore(learner.snapshot(key), key)
    scores = copy.scorer().score(batch)
    assert (scores != 0.5).any(), "it has learnt"
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.tolist() == learner.scorer().score(batch).tolist()
