"""Every streaming detector: River's result to the bit, whatever the batching, through snapshots; its convention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from millstream.core.drift import streaming
from millstream.core.drift.detector import Detector, Floats
from millstream_lab.detectors.river_detectors import Adwin, Kswin
from millstream_lab.detectors.river_documented import DOCUMENTED, Documented
from river import drift

Make = Callable[[], Detector]

PAIRS: dict[str, tuple[Make, Callable[[], Any]]] = {
    "adwin": (Adwin, drift.ADWIN),
    "adwin-eager": (lambda: Adwin(0.2, 1), lambda: drift.ADWIN(0.2, 1)),
    "page_hinkley": (streaming.page_hinkley, drift.PageHinkley),
    "page_hinkley-up": (
        lambda: streaming.page_hinkley(5, 0.01, 2.0, 0.99, "up"),
        lambda: drift.PageHinkley(5, 0.01, 2.0, 0.99, "up"),
    ),
    "page_hinkley-down": (
        lambda: streaming.page_hinkley(5, 0.01, 2.0, 0.99, "down"),
        lambda: drift.PageHinkley(5, 0.01, 2.0, 0.99, "down"),
    ),
    "kswin": (lambda: Kswin(0.05, 12, 4, 42), lambda: drift.KSWIN(0.05, 12, 4, 42)),
    "ddm": (lambda: streaming.ddm(5), lambda: drift.binary.DDM(5)),
    "eddm": (lambda: streaming.eddm(3), lambda: drift.binary.EDDM(3)),
    "hddm_a": (lambda: streaming.hddm_a(0.1, 0.3), lambda: drift.binary.HDDMA(0.1, 0.3)),
    "hddm_a-both": (lambda: streaming.hddm_a(0.1, 0.3, True), lambda: drift.binary.HDDMA(0.1, 0.3, True)),
    "hddm_w": (lambda: streaming.hddm_w(0.1, 0.3), lambda: drift.binary.HDDMW(0.1, 0.3)),
    "hddm_w-both": (
        lambda: streaming.hddm_w(0.1, 0.3, 0.1, True),
        lambda: drift.binary.HDDMW(0.1, 0.3, 0.1, True),
    ),
}
MAKERS: dict[str, Make] = {name: ours for name, (ours, _) in PAIRS.items()} | {"cusum": lambda: streaming.cusum(3.0)}


@st.composite
def columns(draw: st.DrawFn, convention: str) -> Floats:
    """A few stretches, each with its own level."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        length, level = draw(st.integers(0, 60)), draw(st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.9, 1.0]))
        parts.append((rng.random(length) < level) * 1.0 if convention == "errors" else rng.normal(4 * level, 1, length))
    return np.concatenate(parts)


def _facts(detector: Any) -> tuple[bool, bool]:
    return detector.drift_detected, getattr(detector, "warning_detected", False)


@pytest.mark.parametrize("name", PAIRS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_value_by_value_it_is_rivers(name: str, data: st.DataObject) -> None:
    ours, theirs = PAIRS[name][0](), PAIRS[name][1]()
    for x in data.draw(columns(ours.convention)).tolist():
        ours.update(x)
        theirs.update(x)
        assert (ours.drift, ours.warning) == _facts(theirs)


@pytest.mark.parametrize("name", MAKERS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_batches_and_snapshots_change_nothing(name: str, data: st.DataObject) -> None:
    make = MAKERS[name]
    column = data.draw(columns(make().convention))
    holes = data.draw(st.lists(st.integers(0, max(0, len(column) - 1)), max_size=3)) if len(column) else []
    column[holes] = np.nan
    one, rows, statistics, warnings = make(), [], [], []
    for row, x in enumerate(column.tolist()):
        one.update(x)
        if one.drift and not np.isnan(x):
            rows.append(row)
            statistics.append(one.statistic)
        if one.warning and not np.isnan(x):
            warnings.append(row)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(column)), max_size=4)))
    many, start, found, values, warned = make(), 0, [], [], []
    for end in [*cuts, len(column)]:
        detections = many.update_many(column[start:end])
        found += (detections.rows + start).tolist()
        values += detections.statistics.tolist()
        warned += (detections.warnings + start).tolist()
        start, again = end, make()
        again.restore(many.snapshot())
        many = again
    assert (found, values, warned) == (rows, statistics, warnings)
    assert many.snapshot() == one.snapshot()
    assert (many.drift, many.warning) == (one.drift, one.warning)
    np.testing.assert_equal((many.statistic, many.threshold), (one.statistic, one.threshold))


@pytest.mark.parametrize("example", DOCUMENTED, ids=lambda each: each.name)
def test_the_indices_river_documents(example: Documented) -> None:
    detections = example.make().update_many(example.stream())
    assert tuple(detections.rows.tolist()) == example.drifts
    assert (detections.warnings[:1].tolist() or [None]) == [example.first_warning]


@pytest.mark.parametrize("name", ["ddm", "eddm", "hddm_a", "hddm_w"])
def test_one_is_an_error(name: str) -> None:
    good_then_bad = np.concatenate([np.tile([0.0] * 9 + [1.0], 60), np.ones(100)])
    assert len(MAKERS[name]().update_many(good_then_bad).rows)
    bad_then_good = np.concatenate([np.ones(100), np.tile([0.0] * 9 + [1.0], 60)])
    assert not len(MAKERS[name]().update_many(bad_then_good).rows)
    for neither in (0.5, 2.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="1 for an error"):
            MAKERS[name]().update(neither)


def test_a_snapshot_of_another_detector_is_refused() -> None:
    detector = streaming.ddm()
    detector.update(1.0)
    before = detector.snapshot()
    for other in (streaming.ddm(31), streaming.eddm(), Adwin(), Kswin()):
        with pytest.raises(ValueError, match="ddm with"):
            detector.restore(other.snapshot())
    assert detector.snapshot() == before
