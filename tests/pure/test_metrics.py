"""Metrics against definitions written out the slow way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.core.metrics import (
    DAY_MS,
    auc,
    average_precision,
    best_f1_threshold,
    brier,
    card_precision_top_k,
    evaluate,
    log_loss,
)

rows = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]),
        st.integers(0, 5),
        st.integers(-3 * DAY_MS, 3 * DAY_MS),
    ),
    max_size=40,
)


def columns(drawn):
    labels, scores, groups, times = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    return (
        np.array(labels, dtype=bool),
        np.array(scores, dtype=float),
        np.array(groups, dtype=np.int64),
        np.array(times, dtype=np.int64),
    )


def book_precision(drawn, k):
    """The handbook's loop over days, with dicts for its group-by."""
    detected_before: set[int] = set()
    result = []
    for day in sorted({math.floor(t / DAY_MS) for *_, t in drawn}):
        score: dict[int, float] = {}
        bad: dict[int, bool] = {}
        for label, value, group, time in drawn:
            if math.floor(time / DAY_MS) == day and group not in detected_before:
                score[group] = max(score.get(group, -1.0), value)
                bad[group] = bad.get(group, False) or label
        top = sorted(score, key=lambda group: (-score[group], group))[:k]
        detected = [group for group in top if bad[group]]
        result.append((day, len(detected) / k, sum(bad.values())))
        detected_before |= set(detected)
    return result


@given(rows, st.integers(1, 4))
def test_card_precision_is_the_books(drawn, k):
    found = card_precision_top_k(*columns(drawn), k)
    assert [(each.day, each.precision, each.compromised) for each in found] == book_precision(drawn, k)


def test_a_detected_card_is_gone_the_next_day():
    labels = np.array([True, True, True])
    scores = np.array([0.9, 0.9, 0.1])
    cards = np.array(["a", "a", "b"], dtype=object)
    times = np.array([0, DAY_MS, DAY_MS])
    assert [each.precision for each in card_precision_top_k(labels, scores, cards, times, 1)] == [1.0, 1.0]
    assert [each.compromised for each in card_precision_top_k(labels, scores, cards, times, 1)] == [1, 1]


def test_fewer_groups_than_k_still_divide_by_k():
    one = np.array([True]), np.array([0.5]), np.array([1]), np.array([0])
    assert card_precision_top_k(*one, 100)[0].precision == 0.01
    with pytest.raises(ValueError, match="at least 1"):
        card_precision_top_k(*one, 0)


@given(rows)
@settings(max_examples=50, deadline=None)  # the first example pays for an import
def test_ranking_metrics_are_what_they_are_defined_to_be(drawn):
    labels, scores, *_ = columns(drawn)
    if not labels.any() or labels.all():
        assert math.isnan(auc(labels, scores))
        assert math.isnan(average_precision(labels, scores))
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert auc(labels, scores) == pytest.approx(np.mean(pairs))
    cuts = sorted(set(scores.tolist()), reverse=True)
    area, recall_before = 0.0, 0.0
    for cut in cuts:
        called = scores >= cut
        recall = labels[called].sum() / labels.sum()
        area += (recall - recall_before) * labels[called].mean()
        recall_before = recall
    assert average_precision(labels, scores) == pytest.approx(area)


@given(rows)
def test_no_other_threshold_has_a_higher_f1(drawn):
    labels, scores, *_ = columns(drawn)

    def f1(cut):
        called = scores >= cut
        return 2 * (labels & called).sum() / (called.sum() + labels.sum())

    best = best_f1_threshold(labels, scores)
    if not labels.any():
        assert math.isnan(best)
        return
    assert f1(best) == max(f1(cut) for cut in scores)


def test_losses_by_hand():
    labels, scores = np.array([True, False, True]), np.array([0.8, 0.4, 0.0])
    assert brier(labels, scores) == pytest.approx((0.04 + 0.16 + 1.0) / 3)
    expected = -(math.log(0.8) + math.log(0.6) + math.log(1e-15)) / 3
    assert log_loss(labels, scores) == pytest.approx(expected)


def test_evaluate_leaves_out_what_is_not_defined():
    none = np.zeros(2, dtype=bool), np.array([0.1, 0.2]), np.array([1, 2]), np.array([0, 1])
    assert set(evaluate(*none, k=5)) == {"log_loss", "brier", "card_precision_at_5"}
    assert evaluate(*columns([])) == {}
