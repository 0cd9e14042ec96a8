"""What a model says of the history it was made from: it survives the manifest and is what its monitors go by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.adapters.monitors_file import FILE, load_monitors
from services.cli.drift.performance import by_day
from services.core.drift.budget import Budget
from services.core.drift.concept import Calibration
from services.core.drift.declared import Limits, Monitors
from services.core.drift.estimated_performance import estimate
from services.core.drift.expected_metric import Cells
from services.core.drift.make_reference import make_reference
from services.core.drift.model_reference import SCORE, ModelReference
from services.core.drift.reconstruction import COLUMN
from services.core.drift.seasons import HOUR_MS
from services.core.drift.slot_counts import Block
from services.core.drift.slot_summary import Summary
from services.core.metrics import average_precision
from services.errors import Misconfigured

FEATURES = ("a", "b", "flag")


def made(days: int = 28, per_hour: int = 80, seed: int = 1, monitors: Monitors | None = None) -> ModelReference:
    """Return the reference of a model of three features that answers with the truth's chances."""
    rng = np.random.default_rng(seed)
    times_ms = np.sort(rng.integers(0, days * 24 * HOUR_MS, days * 24 * per_hour))
    common = rng.normal(size=len(times_ms))
    matrix = np.column_stack([common, common + rng.normal(size=len(times_ms)), rng.integers(0, 2, len(times_ms))])
    matrix[rng.random(matrix.shape) < 0.02] = np.nan
    scores = 1 / (1 + np.exp(4 - common))
    labels = (rng.random(len(scores)) < scores).astype(np.float64)
    return make_reference(
        FEATURES,
        matrix,
        scores,
        times_ms,
        labels,
        monitors or Monitors(windows_ms=(6 * HOUR_MS, 24 * HOUR_MS)),
        decision=0.5,
        importance={"a": 3.0, "flag": 1.0},
    )


def test_it_survives_json_and_says_the_same_of_new_events() -> None:
    found = made()
    again = ModelReference.of_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.columns == ("a", "b", "flag", SCORE, COLUMN)
    assert again.importance == {"a": 0.75, "b": 0.0, "flag": 0.25}
    assert len(again.thresholds) == len(again.plan.monitors(again.columns)) == 20
    assert min(again.thresholds) > 0
    assert (again.seasonal == found.seasonal).all()
    assert again.seasonal[:, :3].sum() == 3 * found.events
    rows = np.array([[0.0, 1.0, np.nan], [2.0, -1.0, 1.0]])
    assert again.table(rows, np.array([0.1, 0.9])).tobytes() == found.table(rows, np.array([0.1, 0.9])).tobytes()
    binning, width = again.binning(), again.seasonal.shape[2]
    assert binning.edges.shape == (5, width - 2)
    assert np.allclose(binning.shares.sum(axis=-1), 1)
    assert len(json.dumps(found.to_json())) < 60_000


def test_a_rarer_budget_gives_higher_thresholds_all_round() -> None:
    windows = (6 * HOUR_MS, 24 * HOUR_MS)
    weekly, yearly = (made(monitors=Monitors(Budget(1, days), windows)) for days in (7, 365))
    assert all(one < other for one, other in zip(weekly.thresholds, yearly.thresholds, strict=True))
    assert weekly.concept_threshold < yearly.concept_threshold
    assert yearly.extrapolated


def test_what_cannot_be_calibrated_is_said() -> None:
    assert made(days=10).thresholds == ()
    assert "14 are needed" in made(days=10).note
    assert "too few" in made(per_hour=1).note
    assert made(monitors=Monitors(ignore=("b",))).columns == ("a", "flag", SCORE, COLUMN)


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(0.001, 0.999)))
def test_cells_lose_no_event(probabilities: np.ndarray) -> None:
    cells = Cells.of(probabilities)
    assert cells.count(probabilities).tolist() == list(cells.events)
    assert cells.change(cells.count(probabilities)) == pytest.approx(0)


def test_cells_tell_the_average_precision_that_labels_will_show() -> None:
    rng = np.random.default_rng(2)
    then, now = rng.beta(0.2, 20, 50_000), rng.beta(0.2, 12, 50_000)
    cells = Cells.of(then)
    for chances in (then, now):
        realised = average_precision(rng.random(len(chances)) < chances, chances)
        assert cells.average_precision(cells.count(chances)) == pytest.approx(realised, abs=0.02)
    assert (cells.change(cells.count(now)) or 0) > 0.02
    few = [rng.choice(then, 1_000) for _ in range(400)]
    realised = [average_precision(rng.random(1_000) < each, each) for each in few]
    expected = [cells.average_precision(cells.count(each)) for each in few]
    assert np.mean(expected) == pytest.approx(np.nanmean(realised), abs=0.012), "few events have a higher figure"
    assert np.mean([cells.change(cells.count(each)) for each in few]) == pytest.approx(0, abs=0.006)
    assert estimate(now, Calibration((0, 1), (0, 1))(now), 0.5).auc > 0.5
    assert cells.change(np.zeros(len(cells.events), dtype=np.int64)) is None


def test_the_file_has_a_default_for_everything_and_names_what_is_wrong(tmp_path: Path) -> None:
    assert load_monitors(tmp_path) == Monitors()
    file = tmp_path / FILE
    file.write_text(
        'false_alarms = "2 per 30 days"\nwindows = ["12h"]\n[limits]\nlatency_p99 = "1.5s"\nlate_share = "off"'
    )
    found = load_monitors(tmp_path)
    assert found == Monitors(Budget(2, 30), (12 * HOUR_MS,), limits=Limits(latency_p99_ms=1500, late_share=None))
    for text, named in (
        ('false_alarms = "often"', "false_alarms"),
        ("windows = ['90m']", "windows_ms"),
        ("[limits]\nlate_share = 2", "limits.late_share"),
        ("nonsense = 1", "nonsense"),
        ("=", "not TOML"),
    ):
        file.write_text(text)
        with pytest.raises(Misconfigured, match=named):
            load_monitors(tmp_path)


def test_the_expected_metric_of_a_day_is_that_of_all_its_slots_and_of_one_version() -> None:
    cells = made().cells
    assert cells is not None
    k = len(cells.events)
    slots = {
        (1, 0): np.arange(k),
        (1, 23): np.ones(k, dtype=np.int64),
        (1, 24): np.arange(k)[::-1],
        (2, 5): np.arange(k),
    }
    blocks = {
        at: Block(np.zeros((1, 2), dtype=np.int64), np.zeros(1, dtype=np.int64), counted, 0, 9)
        for at, counted in slots.items()
    }
    parts = [dict([each]) for each in blocks.items()]
    found = by_day([Summary(i, None, part, {}) for i, part in enumerate(parts)], 1, cells)
    first = np.arange(k) + 1
    assert found == {
        "1970-01-01": (int(first.sum()), cells.average_precision(first)),
        "1970-01-02": (int(np.arange(k).sum()), cells.average_precision(np.arange(k)[::-1])),
    }
