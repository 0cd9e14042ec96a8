"""The share of dead letters above which a stage stops."""

import pytest

from millstream.core.batch import Rejection
from millstream.errors import Stop
from millstream.runtime.dead_letters import DeadLetterLimit


def _rejections(count: int, reason: str = "range") -> list[Rejection]:
    return [Rejection(row, reason, "amount", "") for row in range(count)]


def test_a_bad_deploy_stops_the_stage_and_says_why() -> None:
    limit = DeadLetterLimit(0.5, 100)
    limit.update(60, _rejections(40))
    with pytest.raises(Stop, match=r"range 61.*share of 0\.5.*DEAD_LETTER_SHARE"):
        limit.update(40, _rejections(21))


def test_bad_data_at_the_limit_goes_on() -> None:
    limit = DeadLetterLimit(0.5, 100)
    for _ in range(10):
        limit.update(100, _rejections(50))


def test_a_few_records_are_no_share_yet() -> None:
    limit = DeadLetterLimit(0.5, 100)
    limit.update(99, _rejections(99))


def test_each_window_is_judged_alone() -> None:
    limit = DeadLetterLimit(0.5, 100)
    limit.update(1000, [])
    with pytest.raises(Stop):
        limit.update(100, _rejections(51))


def test_late_events_stop_nothing() -> None:
    DeadLetterLimit(0.5, 10).update(100, _rejections(100, "late"))


def test_a_share_of_one_never_stops() -> None:
    DeadLetterLimit(1.0, 10).update(10, _rejections(10))
