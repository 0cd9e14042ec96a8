"""Malformed messages on real servers: one outcome each, the right one, and again after a redrive."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from millstream_lab.chaos.poison import print_report
from millstream_lab.chaos.poison_ledger import ANSWERED, DUPLICATE
from millstream_lab.chaos.poison_messages import GOOD
from millstream_lab.chaos.poison_oracle import Fault
from millstream_lab.chaos.poison_outcomes import DeadLetterRow, Expected, Observed, check
from millstream_lab.chaos.poison_plan import PoisonPlan
from millstream_lab.chaos.poison_run import run_poison

COUNT = 3_000
RANGE = Fault("range", "amount")


@pytest.mark.kafka
@pytest.mark.redis
def test_each_malformed_message_has_its_one_outcome_and_nothing_stops(tmp_path: Path) -> None:
    report = run_poison(PoisonPlan(COUNT, 20_261, rounds=2), tmp_path, print, lambda _step, _total: lambda _done: None)
    print_report(report, Console(width=160))
    assert report.wrong == []
    good = report.rows[GOOD]
    assert (good.answered, good.dead) == (good.sent, 0)
    malformed = [row for kind, row in report.rows.items() if kind != GOOD and not kind.startswith("redriven")]
    assert sum(row.sent for row in malformed) == COUNT
    assert len(malformed) > 25
    assert report.rows["at the brokers' limit"].dead == report.rows["2 MB"].dead == 1
    assert report.cut == 2, "the one at the limit, before and after it was sent back"
    assert set(report.redriven) == {"range", "unknown-schema", "oversize"}
    fixed = report.rows["redriven: unpublished schema"]
    assert fixed.answered == fixed.sent == report.rows["unpublished schema"].sent > 0
    assert report.rows["redriven: negative"].answered > 0


def expected(*outcomes: Fault, event_id: object = None) -> Expected:
    return Expected("bad", b"digest", False, False, frozenset(outcomes), event_id)


def dead_letter(fault: Fault = RANGE, digest: bytes = b"digest", value_is_null: bool = False) -> DeadLetterRow:
    return DeadLetterRow(fault, digest, False, value_is_null, False, "t-0-0")


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        (expected(RANGE), Observed(dead_letters={(0, 0): [dead_letter()]}), ""),
        (expected(RANGE), Observed(), "no outcome"),
        (expected(RANGE), Observed(dead_letters={(0, 0): [dead_letter(), dead_letter()]}), "2 dead letters"),
        (
            expected(RANGE),
            Observed(dead_letters={(0, 0): [dead_letter()]}, answers=Counter([(0, 0)])),
            "1 answers and 1 dead",
        ),
        (expected(RANGE), Observed(dead_letters={(0, 0): [dead_letter(Fault("range", "id"))]}), "range id"),
        (expected(RANGE), Observed(dead_letters={(0, 0): [dead_letter(digest=b"other")]}), "other bytes"),
        (expected(RANGE), Observed(dead_letters={(0, 0): [dead_letter(value_is_null=True)]}), "other bytes"),
        (
            expected(RANGE),
            Observed(dead_letters={(0, 0): [dead_letter()], (0, 1): [dead_letter()]}),
            "nothing was published",
        ),
        (expected(DUPLICATE), Observed(), ""),
        (expected(DUPLICATE), Observed(dead_letters={(0, 0): [dead_letter()]}), "should be duplicate"),
        (expected(ANSWERED, event_id=1), Observed(Counter([(0, 0)]), Counter([b"1"]), Counter([b"1"])), ""),
        (
            expected(ANSWERED, event_id=1),
            Observed(Counter([(0, 0)]), Counter([b"1"]), Counter()),
            "not the same",
        ),
        (
            expected(ANSWERED, event_id=1),
            Observed(Counter([(0, 0)]), Counter([b"2"]), Counter([b"2"])),
            "no prediction",
        ),
        (expected(ANSWERED, event_id=1), Observed(), "no outcome"),
    ],
)
def test_the_checker_sees_what_is_lost_doubled_or_changed(wanted: Expected, found: Observed, told: str) -> None:
    _rows, wrong = check({(0, 0): wanted}, found)
    assert (told in " ".join(wrong)) if told else (wrong == [])
