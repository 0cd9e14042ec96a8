"""What scores mean, apart from what features look like: concept, performance before labels, and ties of features."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millstream.core.drift.compare import compare
from millstream.core.drift.concept import MONITORS, Calibration, common_threshold, error_evidence, positive_evidence
from millstream.core.drift.evidence_sums import cusum_alarms
from millstream.core.drift.reconstruction import Reconstruction
from millstream.core.drift.slot_counts import Binning
from millstream.core.profile import profile

Floats = NDArray[np.float64]


def _world(seed: int, n: int, mean: float = 0.0, flipped: bool = False) -> tuple[NDArray[np.bool_], Floats]:
    """Labels by a logistic law of one feature, and the score of a model that knows it as it was."""
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, 1.0, n)
    score = 1 / (1 + np.exp(-2 * x))
    truth = 1 - score if flipped else score
    return rng.random(n) < truth, score


def _alarms(labels: NDArray[np.bool_], scores: Floats, per_alarm: float = 100_000) -> dict[str, list[int]]:
    threshold = math.log(per_alarm)  # Lorden's bound
    return {m.name: cusum_alarms(m.evidence(labels, scores), threshold) for m in MONITORS}


def test_covariate_shift_alone_is_no_concept_drift() -> None:
    before, after = _world(1, 20_000), _world(2, 20_000, mean=2.0)
    labels, scores = (np.concatenate(pair) for pair in zip(before, after, strict=True))
    assert not any(_alarms(labels, scores).values())
    assert abs(labels[20_000:].mean() - labels[:20_000].mean()) > 0.3  # though the share of positives has leapt


def test_a_change_of_meaning_without_any_shift_is_one() -> None:
    before, after = _world(1, 20_000), _world(2, 2_000, flipped=True)
    labels, scores = (np.concatenate(pair) for pair in zip(before, after, strict=True))
    found = _alarms(labels, scores)["more errors than scored"]
    assert 20_000 < found[0] < 20_150


def test_a_rare_class_that_becomes_half_as_frequent_again_is_seen() -> None:
    rng = np.random.default_rng(3)
    scores = rng.beta(0.2, 20, 60_000)
    odds = scores / (1 - scores) * np.where(np.arange(60_000) < 30_000, 1.0, 1.5)
    labels = rng.random(60_000) < odds / (1 + odds)
    found = _alarms(labels, scores)
    assert 30_000 < found["more positives than scored"][0] < 50_000
    assert not found["fewer positives than scored"]


def test_false_alarms_are_no_more_frequent_than_promised() -> None:
    labels, scores = _world(4, 1_000_000)
    for name, found in _alarms(labels, scores, per_alarm=2_000).items():
        assert len(found) <= 500, name
    assert sum(map(len, _alarms(labels, scores, per_alarm=2_000).values())) > 0


def test_all_monitors_together_keep_to_the_rate_wanted() -> None:
    rng = np.random.default_rng(5)
    chances = rng.beta(0.5, 20, 20_000)
    threshold = common_threshold(MONITORS, chances, 40_000)
    drawn = rng.choice(chances, 2_000_000)
    labels = rng.random(len(drawn)) < drawn
    found = [cusum_alarms(m.evidence(labels, drawn), threshold) for m in MONITORS]
    assert 25 <= sum(map(len, found)) <= 80
    assert threshold < math.log(3 * 40_000) - 2


@given(st.booleans(), st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_evidence_is_a_log_likelihood_ratio(label: bool, p: float, ratio: float) -> None:
    def likelihood(happened: bool, chance: float, times: float) -> float:
        odds = chance / (1 - chance) * times
        return odds / (1 + odds) if happened else 1 / (1 + odds)

    labels, chances = np.array([label]), np.array([p])
    want = math.log(likelihood(label, p, ratio) / likelihood(label, p, 1.0))
    assert positive_evidence(labels, chances, ratio) == pytest.approx(want, abs=1e-9)
    wrong, chance = label != (p >= 0.5), min(p, 1 - p)
    want = math.log(likelihood(wrong, chance, ratio) / likelihood(wrong, chance, 1.0))
    assert error_evidence(labels, chances, ratio) == pytest.approx(want, abs=1e-9)


def test_calibration_undoes_a_distorted_score() -> None:
    labels, scores = _world(5, 50_000)
    fitted = Calibration.fit(scores**3, labels)
    assert np.abs(fitted(scores**3) - scores).mean() < 0.02
    assert Calibration.of_json(json.loads(json.dumps(asdict(fitted)))) == fitted
    with pytest.raises(ValueError, match="both classes"):
        Calibration.fit(scores, np.zeros(len(scores), dtype=np.bool_))


def test_a_calibration_is_a_line_of_log_odds_where_that_foretells_best_and_bends_where_it_does_not() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(-3.0, 1.0, 60_000)
    labels = rng.random(len(logits)) < 1 / (1 + np.exp(-0.7 * logits - 0.5))
    scores = 1 / (1 + np.exp(-logits))
    rare = np.array([1e-4, 0.7, 0.9])
    want = 1 / (1 + np.exp(-0.7 * np.log(rare / (1 - rare)) - 0.5))
    np.testing.assert_allclose(Calibration.fit(scores, labels)(rare), want, rtol=0.1)
    steps = np.where(scores < 0.05, 0.01, 0.3)
    bent = Calibration.fit(scores, rng.random(len(scores)) < steps)
    np.testing.assert_allclose(bent(np.array([0.03, 0.08])), [0.01, 0.3], rtol=0.2)


def test_broken_ties_of_features_show_in_the_reconstruction_and_in_no_feature() -> None:
    rng = np.random.default_rng(8)
    common = rng.normal(size=20_000)
    values = np.stack([common + 0.3 * rng.normal(size=20_000) for _ in range(4)], axis=1)
    values[::50, 1] = np.nan
    fitted = Reconstruction.fit(values)
    broken = np.stack([rng.permutation(values[:, i]) for i in range(4)], axis=1)[:5000]
    fresh = values[10_000:15_000]
    columns = {f"x{i}": profile(values[:, i]) for i in range(4)} | {"error": profile(fitted.error(values))}
    binning, times_ms = Binning.of(columns), np.zeros(5000, dtype=np.int64)

    def moved(rows: Floats) -> list[str]:
        found = compare(np.column_stack([rows, fitted.error(rows)]), times_ms, binning)
        return [each.column for each in found if each.adjusted_p_value <= 0.01]

    assert moved(broken) == ["error"]
    assert moved(fresh) == []
    assert Reconstruction.of_json(json.loads(json.dumps(asdict(fitted)))) == fitted


@given(st.integers(1, 30), st.integers(0, 30))
def test_an_error_does_not_depend_on_the_batch(n: int, cut: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n, 5))
    values[rng.random(values.shape) < 0.1] = np.nan
    fitted = Reconstruction.fit(np.vstack([values, rng.normal(size=(10, 5))]), 0.6)
    whole = fitted.error(values)
    assert np.concatenate([fitted.error(values[:cut]), fitted.error(values[cut:])]).tolist() == whole.tolist()
    scaled, base = fitted.standardise(values), np.array(fitted.components)
    np.testing.assert_allclose(whole, np.linalg.norm(scaled - scaled @ base.T @ base, axis=1), atol=1e-12)
