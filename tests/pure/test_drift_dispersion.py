"""Labels that come in clusters scatter more than chance has it, and are not to be taken for another concept."""

from __future__ import annotations

import numpy as np
import pytest

from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.concept import MONITORS, Calibration, common_threshold
from millstream.core.drift.dispersion import dispersion
from millstream.core.drift.evidence_sums import EvidenceSums

PER_DAY = 2_000


def drawn(days: int, seed: int, sd: float, kept: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels and times; odds wander from day to day about what scores say, by ``sd`` on the logit."""
    rng = np.random.default_rng(seed)
    times_ms = np.sort(rng.integers(0, days * DAY_MS, days * PER_DAY))
    logits = rng.normal(-3.0, 1.0, len(times_ms))
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = kept * level[day - 1] + rng.normal(0, sd * np.sqrt(1 - kept**2))
    chances = 1 / (1 + np.exp(-logits - level[times_ms // DAY_MS]))
    return 1 / (1 + np.exp(-logits)), rng.random(len(times_ms)) < chances, times_ms


@pytest.fixture(scope="module")
def calm() -> list[float]:
    """The dispersion of labels that are independent, eight times."""
    return [dispersion(*drawn(56, seed, 0.0, 0.0)) for seed in range(8)]


def test_independent_labels_scatter_about_as_chance_has_it(calm: list[float]) -> None:
    assert 1.0 <= np.mean(calm) < 1.6


@pytest.mark.parametrize(("sd", "kept"), [(0.3, 0.0), (0.15, 0.9)])
def test_clusters_within_days_and_over_days_scatter_more(sd: float, kept: float, calm: list[float]) -> None:
    found = [dispersion(*drawn(56, seed, sd, kept)) for seed in range(4)]
    assert min(found) > max(calm[:4])
    assert np.mean(found) > 2.5


def test_too_little_to_go_by_is_taken_for_pairs() -> None:
    assert dispersion(*drawn(6, 0, 0.0, 0.0)) == 2.0
    scores, _, times_ms = drawn(20, 0, 0.0, 0.0)
    assert dispersion(scores, times_ms < DAY_MS, times_ms) == 2.0, "all positives are of one week"


def test_clusters_raise_alarms_within_the_budget_only_if_they_are_known() -> None:
    scores, labels, times_ms = drawn(56, 1, 0.15, 0.8)
    calibration, days = Calibration.fit(scores, labels), 365
    threshold = common_threshold(MONITORS, calibration(scores), 14.0 * PER_DAY)
    later, told, _ = drawn(days, 2, 0.15, 0.8)
    evidence = np.column_stack([each.evidence(told, calibration(later)) for each in MONITORS])
    allowed = days / 14.0
    assert _opened(evidence, threshold) > 1.5 * allowed
    assert _opened(evidence, threshold * dispersion(scores, labels, times_ms)) <= allowed


def _opened(evidence: np.ndarray, threshold: float) -> int:
    """Return how often a sum rises above the threshold, no sooner than a day after the last time."""
    sums, rows = EvidenceSums(len(MONITORS)), np.arange(len(evidence))
    done, opened, last = 0, 0, -PER_DAY
    while done < len(evidence):
        done, crossed = sums.take(evidence, rows, rows, threshold, done)
        if crossed:
            opened, last = opened + (done - last > PER_DAY), done
    return opened
