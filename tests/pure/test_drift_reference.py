"""What a model says of the history it was made from: it survives the manifest and is what its monitors go by."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from millstream.adapters.files.monitors_file import FILE, load_monitors
from millstream.cli.drift.performance import by_day
from millstream.core.drift.budget import Budget
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.expected_metric import Cells
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.model_reference import SCORE, ModelReference
from millstream.core.drift.reconstruction import COLUMN
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.slot_counts import Block
from millstream.core.drift.slot_summary import Summary
from millstream.core.metrics import average_precision
from millstream.errors import Misconfigured

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
    assert cells.change(np.zeros(len(cells.events), dtype=np.int64)) is None


def test_the_file_has_a_default_for_everything(tmp_path: Path) -> None:
    assert load_monitors(tmp_path, FEATURES) == Monitors()
    file = tmp_path / FILE
    file.write_text("")
    assert load_monitors(tmp_path, FEATURES) == Monitors()
    file.write_text(
        'false_alarms = "2 per 30 days"\nwindows = ["12h", "35d"]\nignore = ["a"]\nsegment_by = "flag"\n'
        '[limits]\nlatency_p99 = "1.5s"\nlate_share = "off"\nnull_share = 1\nevents_per_hour = 100'
    )
    assert load_monitors(tmp_path, FEATURES) == Monitors(
        Budget(2, 30),
        (12 * HOUR_MS, 35 * 24 * HOUR_MS),
        ("a",),
        "flag",
        Limits(latency_p99_ms=1500, late_share=None, null_share=1.0, events_per_hour=100.0),
    )


_SPAN = "such as '500ms', '30s', '15m', '6h' or '7d'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("=", "monitors.toml is not TOML"),
        ("false_alarms = 'often'", "false_alarms = 'often': 'often' is no budget, such as '1 per week'"),
        ("false_alarms = 1", "false_alarms = 1: a budget in words is wanted"),
        (f"false_alarms = '{'9' * 400} per day'", "is no budget"),
        ("windows = ['90m']", "windows = ['90m']: '90m' is no window: windows are whole hours, and 35 days at most"),
        ("windows = ['400d']", "'400d' is no window"),
        ("windows = ['1h', '1h']", "windows = ['1h', '1h']: '1h' is there twice"),
        ("windows = ['60m', '1h']", "'60m' is there twice"),
        ("windows = []", "windows = []: a list of lengths of time is wanted"),
        ("windows = [3600000]", f"a length of time with its unit is wanted, {_SPAN}"),
        ("windows = ['off']", "'off' is no length of time"),
        ("ignore = 'a'", "ignore = 'a': a list of names of features is wanted"),
        ("ignore = ['a', 'typo']", "ignore: 'typo' is none of the 3 features of the declared feature service, such as"),
        ("segment_by = 'flagg'", "segment_by: 'flagg' is none of the 3 features of the declared feature service"),
        ("segment_by = 'flagg'", "such as flag, "),
        ("segment_by = 1", "segment_by = 1: the name of a feature is wanted"),
        ("nonsense = 1", "nonsense: there is no such key; there are false_alarms, windows, ignore, segment_by, limits"),
        ("limits = 1", "limits is to be a table, [limits], not 1"),
        ("[limits]\nnul_share = 1", "limits.nul_share: there is no such key; [limits] has dead_letter_share, "),
        *(
            (f"[limits]\n{key} = {value}", f"limits.{key} = {value}: a share above 0 and at most 1 is wanted, or 'off'")
            for key in ("dead_letter_share", "late_share", "duplicate_share", "null_share", "unseen_share")
            for value in ("2", "0", "-0.5", "true", "nan", "'5%'")
        ),
        *(
            (f"[limits]\n{key} = {value}", f"a length of time with its unit is wanted, {_SPAN}, or 'off'")
            for key in ("freshness", "label_delay", "latency_p99")
            for value in ("0", "-5", "600", "true", "1.5")
        ),
        (
            "[limits]\nfreshness = '0s'",
            f"limits.freshness = '0s': '0s' is no length of time above 0, {_SPAN}, or 'off'",
        ),
        ("[limits]\nfreshness = '0.1ms'", "'0.1ms' is no length of time above 0"),
        (f"[limits]\nfreshness = '{'9' * 400}s'", "is no length of time"),
        *(
            (f"[limits]\nevents_per_hour = {value}", f"events_per_hour = {value}: a number above 0 is wanted, or 'off'")
            for value in ("0", "-1", "true", "inf", "'many'")
        ),
    ],
)
def test_the_file_names_what_is_wrong_in_its_own_words(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(Misconfigured, match=re.escape(said)) as caught:
        load_monitors(tmp_path, FEATURES)
    assert str(tmp_path / FILE) in str(caught.value)


def test_everything_that_is_wrong_with_the_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("ignore = ['typo']\nwindows = ['1h', '1h']\n[limits]\nfreshness = 0")
    with pytest.raises(Misconfigured) as caught:
        load_monitors(tmp_path, FEATURES)
    assert [each.split()[0] for each in str(caught.value).splitlines()[1:]] == [
        "limits.freshness",
        "windows",
        "ignore:",
    ]


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
