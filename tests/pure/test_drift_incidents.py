"""Alerts: one incident per change, told once, the same in any batches and on any replay."""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.drift.alert import Alert, Evidence, Kind, Signal
from millstream.core.drift.declared import Monitors
from millstream.core.drift.incidents import Evaluation, ModelReplaced, Policy, State, initial, update
from millstream.core.drift.make_reference import make_reference
from millstream.core.drift.plan import Plan
from millstream.core.drift.signals import distribution_signals
from millstream.core.drift.windowed import Reading

HOUR_MS = 3_600_000
POLICY = Policy(close_after=2, cooldown_ms=5 * HOUR_MS, reminder_ms=4 * HOUR_MS)
SCHEMA = Path(__file__).parents[2] / "schemas" / "alerts.avsc"


def _signal(hour: int, feature: str, ratio: float, kind: Kind = "data", version: int = 1) -> Signal:
    evidence = Evidence((hour - 24) * HOUR_MS, hour * HOUR_MS, "scored", ((0, hour * 10, hour * 10 + 9),))
    return Signal(kind, "fraud", version, feature, "", "psi over 24 h", ratio * 0.1, 0.1, evidence, "", 0.2, 0.3)


def _said(hour: int, **ratios: float) -> Evaluation:
    return Evaluation(hour * HOUR_MS, tuple(_signal(hour, name, ratio) for name, ratio in ratios.items()))


def _told(*evaluations: Evaluation | ModelReplaced, policy: Policy = POLICY) -> list[tuple[str, str, int, int]]:
    alerts = update(initial(), evaluations, policy)[1]
    return [(a.event, a.reason, a.subject_count, a.suppressed) for a in alerts]


def test_a_change_that_moves_nine_features_is_one_incident() -> None:
    nine = _said(100, **{f"x{i}": 1.0 + i / 10 for i in range(1, 10)}, calm=0.5)
    alerts = update(initial(), [nine], POLICY)[1]
    assert [(a.event, a.subject_count, a.feature, a.severity) for a in alerts] == [("open", 9, "x9", "warning")]
    assert [row["feature"] for row in json.loads(alerts[0].subjects)] == [f"x{i}" for i in range(9, 0, -1)]
    assert alerts[0].impact == 9 * 0.2 * 0.3
    assert (alerts[0].window_from_ms, alerts[0].offsets) == (76 * HOUR_MS, '{"0": [1000, 1009]}')


def test_it_stays_open_near_the_threshold_and_closes_well_below_it() -> None:
    assert _told(_said(1, a=1.2), _said(2, a=0.9), _said(3, a=0.7), _said(4, a=0.9)) == [("open", "opened", 1, 0)]
    closing = [_said(1, a=1.2), _said(2, a=0.7), _said(3, a=0.7)]
    assert _told(*closing) == [("open", "opened", 1, 0), ("close", "recovered", 1, 0)]


def test_what_is_known_is_counted_and_told_again_when_due() -> None:
    seen = _told(*(_said(hour, a=1.5) for hour in range(1, 6)))
    assert seen == [("open", "opened", 1, 0), ("update", "still-open", 1, 3)]
    assert _told(_said(1, a=1.5), _said(2, a=1.5, b=1.1)) == [
        ("open", "opened", 1, 0),
        ("update", "new-subjects", 2, 0),
    ]
    assert _told(_said(1, a=1.5), _said(2, a=1.5), _said(3, a=9.0))[-1] == ("update", "worse", 1, 1)


def test_after_a_close_it_opens_again_only_when_cooled_down_or_worse() -> None:
    closed = [_said(1, a=1.5), _said(2, a=0.1), _said(3, a=0.1)]
    assert _told(*closed, _said(4, a=1.5), _said(5, a=1.5))[2:] == []
    assert _told(*closed, _said(4, a=1.5), _said(8, a=1.5))[2:] == [("open", "opened", 1, 1)]
    assert _told(*closed, _said(4, a=1.5), _said(5, a=5.0))[2:] == [("open", "opened", 1, 1)]
    ids = {a.id for a in update(initial(), [*closed, _said(8, a=1.5)], POLICY)[1]}
    assert len(ids) == 2


def test_a_new_champion_ends_what_was_said_of_the_old_one() -> None:
    end = ModelReplaced(2 * HOUR_MS, "fraud", 2)
    assert _told(_said(1, a=1.5), end) == [("open", "opened", 1, 0), ("close", "superseded", 1, 0)]
    assert _told(_said(1, a=1.5), replace(end, model="other")) == [("open", "opened", 1, 0)]
    assert _told(_said(1, a=1.5), replace(end, version=1)) == [("open", "opened", 1, 0)]


def test_it_takes_as_many_evaluations_as_the_policy_asks() -> None:
    policy = replace(POLICY, open_after=2)
    assert _told(_said(1, a=1.5), _said(2, a=0.9), _said(3, a=1.5), policy=policy) == []
    assert _told(_said(1, a=1.5), _said(2, a=1.5), policy=policy) == [("open", "opened", 1, 0)]


@pytest.mark.parametrize(("statistic", "threshold"), [(math.nan, 1.0), (1.0, 0.0), (1.0, math.nan)])
def test_a_signal_without_figures_is_refused(statistic: float, threshold: float) -> None:
    with pytest.raises(ValueError, match="a signal needs"):
        replace(_signal(1, "a", 1.0), statistic=statistic, threshold=threshold)


ratios = st.sampled_from([0.1, 0.79, 0.81, 1.0, 1.1, 2.9, 3.5, math.inf])
kinds: st.SearchStrategy[Kind] = st.sampled_from(["data", "concept"])


@st.composite
def histories(draw: st.DrawFn) -> list[Evaluation | ModelReplaced]:
    hour, history, version = 100, [], 1
    for _ in range(draw(st.integers(0, 25))):
        hour += draw(st.integers(1, 3))
        if draw(st.integers(0, 11)) == 0:
            version += 1
            history.append(ModelReplaced(hour * HOUR_MS, "fraud", version))
            continue
        names = draw(st.lists(st.tuples(st.sampled_from("ab"), kinds, ratios), max_size=5))
        signals = [
            replace(_signal(hour, name, ratio, kind, version), monitor=f"m{i}")
            for i, (name, kind, ratio) in enumerate(names)
        ]
        history.append(Evaluation(hour * HOUR_MS, tuple(signals)))
    return history


@given(histories(), st.lists(st.integers(0, 25), max_size=4), st.randoms(use_true_random=False))
def test_batches_replays_and_the_order_within_an_evaluation_change_nothing(
    history: list[Evaluation | ModelReplaced], cuts: list[int], random: object
) -> None:
    state, want = update(initial(), history, POLICY)
    assert State.from_json(state.to_json()) == state
    got: list[Alert] = []
    again, start = initial(), 0
    for end in [*sorted(cuts), len(history)]:
        shuffled = [
            replace(each, signals=tuple(random.sample(each.signals, len(each.signals))))  # type: ignore[attr-defined]
            if isinstance(each, Evaluation)
            else each
            for each in history[start:end]
        ]
        again, told = update(State.from_json(again.to_json()), shuffled, POLICY)
        got, start = got + told, max(start, end)
    assert got == want
    assert again == state


@given(histories())
def test_every_incident_is_opened_once_and_closed_once_and_nothing_is_lost(
    history: list[Evaluation | ModelReplaced],
) -> None:
    state, alerts = update(initial(), history, POLICY)
    by_id: defaultdict[str, list[Alert]] = defaultdict(list)
    for alert in alerts:
        by_id[alert.id].append(alert)
    spans: defaultdict[tuple[str, int], list[tuple[int, float, Alert]]] = defaultdict(list)
    for told in by_id.values():
        assert [a.sequence for a in told] == list(range(len(told)))
        assert [a.event == "open" for a in told] == [True] + [False] * (len(told) - 1)
        assert not any(a.event == "close" for a in told[:-1])
        for one, two in pairwise(told):
            spoken = {
                "new-subjects": two.subject_count > one.subject_count,
                "worse": (one.severity, two.severity) == ("warning", "critical"),
                "still-open": two.at_ms - one.at_ms >= POLICY.reminder_ms,
            }
            assert spoken.get(two.reason, two.event == "close"), two.reason
        end = told[-1].at_ms if told[-1].event == "close" else math.inf
        spans[told[0].kind, told[0].model_version].append((told[0].at_ms, end, told[0]))
    for incidents in spans.values():  # one at a time, and quiet after each unless it got worse
        for (_, end, first), (start, _, second) in pairwise(incidents):
            assert start > end
            severities = [a.severity for a in by_id[first.id]]
            assert start >= end + POLICY.cooldown_ms or (severities[-1], second.severity) == ("warning", "critical")
    still_open = {group.incident.id for group in state.groups.values() if group.incident}
    assert still_open == {told[0].id for told in by_id.values() if told[-1].event != "close"}
    first_alarm: set[tuple[str, int]] = set()
    for each in history:  # the first alarm of a group is never held back
        for signal in each.signals if isinstance(each, Evaluation) else ():
            if signal.ratio > 1 and (signal.kind, signal.model_version) not in first_alarm:
                first_alarm.add((signal.kind, signal.model_version))
                assert any(a.event == "open" and a.at_ms == each.at_ms and a.kind == signal.kind for a in alerts)


def test_an_alert_is_a_record_of_its_contract() -> None:
    alerts = update(initial(), [_said(100, a=math.inf), _said(101, a=0.0), _said(102, a=0.0)], POLICY)[1]
    schema = fastavro.parse_schema(json.loads(SCHEMA.read_text()))
    for alert in alerts:
        row, buffer = asdict(alert), io.BytesIO()
        assert list(row) == [item["name"] for item in schema["fields"]]  # type: ignore[index, call-overload]
        fastavro.schemaless_writer(buffer, schema, row, strict=True)
        buffer.seek(0)
        read = fastavro.schemaless_reader(buffer, schema, None)
        assert isinstance(read, dict)
        assert read["subjects"] == row["subjects"]
        assert read["id"] == row["id"]


def test_ids_do_not_change_between_releases() -> None:
    assert update(initial(), [_said(100, a=2.0)], POLICY)[1][0].id == "36b1a9664f4df681f2ebbd9f78a88bb4"


def test_a_reading_becomes_what_each_monitor_says() -> None:
    rng = np.random.default_rng(1)
    times_ms = np.arange(2000) * HOUR_MS // 2
    scores = rng.random(2000)
    made = make_reference(
        ("amount",), rng.normal(size=(2000, 1)), scores, times_ms, np.full(2000, math.nan), Monitors(),
        decision=0.5, importance={"amount": 2.0},
    )  # fmt: skip
    plan = Plan(windows_ms=(HOUR_MS, 24 * HOUR_MS), distances=("psi", "ks"))
    # Times 1,000 events, a PSI of 0.25 is 250 and a KS of 0.25 is 62.5.
    made = replace(made, columns=("amount", "score"), plan=plan, thresholds=(250.0, 250.0, 62.5, 62.5) * 2)
    found = np.array([0.1, 0.2, 0.3, 0.4, np.nan, np.nan, np.nan, 0.9])
    none = np.zeros((2, 2))
    cells = np.zeros((2, 0), dtype=np.int64)
    offsets = (((2, 1, 9),), ((0, 3, 4), (2, 0, 9)))
    events, by_column = np.array([1000, 4000]), np.array([[1000, 1000], [4000, 16_000]])
    reading = Reading(48 * HOUR_MS, found, np.array([5, 6]), events, by_column, offsets, none, none, cells)
    said = list(distribution_signals(reading, made, "fraud", 3, "scored"))
    rows = [
        (s.feature, s.kind, s.monitor, s.statistic, pytest.approx(s.threshold), s.ratio > 1, s.shift, s.impact)
        for s in said
    ]
    assert rows == [
        ("amount", "data", "psi over 1 h", 0.1, 0.25, False, 0.3, 0.3),
        ("score", "score", "psi over 1 h", 0.2, 0.25, False, 0.9, 0.9),
        ("amount", "data", "ks over 1 h", 0.3, 0.25, True, 0.3, 0.3),
        ("score", "score", "ks over 1 h", 0.4, 0.25, True, 0.9, 0.9),
        ("score", "score", "ks over 24 h", 0.9, 0.0625, True, 0.9, 0.9),
    ]
    assert said[-1].evidence == Evidence(6, 48 * HOUR_MS, "scored", offsets[1])
    assert "2,000 events" in said[-1].reference


def test_stored_incidents_keep_the_name_of_the_alert_time() -> None:
    state, _ = update(initial(), [Evaluation(HOUR_MS, (_signal(1, "a", 2.0),))] * 3, POLICY)
    stored = json.loads(state.to_json())
    assert [group["incident"]["told_at_ms"] for _, group in stored] == [HOUR_MS]
    assert State.from_json(json.dumps(stored)) == state
