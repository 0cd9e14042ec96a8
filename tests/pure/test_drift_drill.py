"""The drills that measure monitors, and the page that shows distributions: they see what is there and nothing else."""

from __future__ import annotations

import math
import re

import numpy as np

from millstream.adapters.reports.drift_page import Page, render
from millstream.core.drift.budget import Budget
from millstream.core.drift.compare import compare
from millstream.core.drift.declared import Monitors
from millstream.core.drift.seasons import HOUR_MS
from millstream_lab.detectors.monitor_trials import alerts_of, calm, drill_reference, meaning, name, power
from millstream_lab.detectors.simulated_traffic import Change, TrafficSettings, traffic

WORLD = TrafficSettings(events_per_day=1200, positive_share=0.05)
MONITORS = Monitors(windows_ms=(24 * HOUR_MS,))
RARELY = Monitors(Budget(1, 3650), MONITORS.windows_ms)


def test_a_large_shift_is_told_within_a_day_and_nothing_else_is() -> None:
    found = power(WORLD, MONITORS, Change(0, shift_std=1.0), runs=2, reference_days=21)
    assert (found.found, found.change) == (2, "1 sd in one feature")
    assert 0 < found.median_days <= 1
    assert 0.3 * 1200 * found.median_days < found.median_events < 3 * 1200


def test_a_change_of_meaning_is_told_by_kind_concept() -> None:
    reference = drill_reference(WORLD, 1, 21, RARELY)
    seen = traffic(WORLD, 2, 21, 15, Change(29, positive_ratio=2.5))
    opened = [each for each in alerts_of(reference, seen, RARELY) if each.event == "open"]
    assert sorted(map(name, opened)) == ["concept", "concept online"]
    assert 29 <= opened[0].at_ms / (24 * HOUR_MS) <= 33
    assert power(WORLD, RARELY, Change(0, positive_ratio=2.5), runs=1, reference_days=21).found == 1


def test_features_that_move_are_no_change_of_meaning_and_the_other_way_round() -> None:
    calm, moved, turned = meaning(WORLD, RARELY, runs=1, reference_days=21)
    assert calm.opened == {}
    assert moved.opened.get("data") == moved.opened.get("score") == 1
    assert not {"concept", "concept online"} & set(moved.opened)
    assert turned.opened == {"concept": 1, "concept online": 1}


def test_calm_counts_what_opened_against_the_budget() -> None:
    found = calm(WORLD, MONITORS, runs=1, days=56, reference_days=28)
    assert math.isclose(found.allowed, 8.0)
    assert sum(found.opened.values()) <= 16


def test_the_page_needs_nothing_else_and_marks_what_moved() -> None:
    reference = drill_reference(WORLD, 1, 21, MONITORS)
    seen = traffic(WORLD, 3, 21, 7, Change(0, shift_std=0.5))
    found = compare(reference.table(seen.matrix, seen.scores), seen.times_ms, reference.binning())
    text = render(Page("Drift of <x>", "then", "now", ("average precision", 0.3, 0.25)), found, reference.edges)
    assert re.findall(r'<tr class="moved"><td>(\w+)</td>', text)[0] == "a"
    assert text.count("<figure") == len(found) == text.count("data:image/png;base64,")
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "Drift of &lt;x&gt;" in text
    assert np.isfinite([each.psi for each in found]).all()
