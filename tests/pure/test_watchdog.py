"""What counts as stuck."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from millstream.runtime.loop import StageLoop
from millstream.runtime.worker import Watchdog


class _Loop:
    """As much of a stage loop as the watchdog looks at."""

    def __init__(self) -> None:
        self.progress_at_s = 0.0
        self.transacting_since_s: float | None = None
        self.partitions = (0,)
        self.at = 5
        self.waiting = {0: 0}
        self.name = "customer"
        self.log = SimpleNamespace(lag=lambda: {("in", p): lag for p, lag in self.waiting.items()})

    @property
    def next_offsets(self) -> dict[tuple[str, int], int]:
        return {("in", 0): self.at}


def _watch(loop: _Loop) -> tuple[Watchdog, list[float]]:
    now = [0.0]
    watchdog = Watchdog(
        [cast(StageLoop, loop)], 10_000, 3_000, Path("unused"), leave=lambda _code: None, clock_s=lambda: now[0]
    )
    return watchdog, now


def test_a_loop_without_progress_is_stuck() -> None:
    loop = _Loop()
    watchdog, now = _watch(loop)
    now[0] = 9.0
    assert watchdog.stuck() is None
    now[0] = 10.5
    assert "customer has made no progress" in (watchdog.stuck() or "")


def test_a_transaction_that_the_broker_has_given_up_is_stuck() -> None:
    loop = _Loop()
    watchdog, now = _watch(loop)
    loop.transacting_since_s = 1.0
    now[0] = loop.progress_at_s = 23.5
    assert watchdog.stuck() is None
    now[0] = loop.progress_at_s = 24.5
    assert "has been writing a transaction" in (watchdog.stuck() or "")


def test_lag_without_progress_is_stuck() -> None:
    loop = _Loop()
    watchdog, now = _watch(loop)
    loop.waiting = {0: 3}
    for second in range(11):
        now[0] = loop.progress_at_s = float(second)
        assert watchdog.stuck() is None
    now[0] = loop.progress_at_s = 10.5
    assert "has lag 3 and did not move past 5" in (watchdog.stuck() or "")


def test_progress_or_no_lag_is_well() -> None:
    loop = _Loop()
    watchdog, now = _watch(loop)
    for second in range(60):
        now[0] = loop.progress_at_s = float(second)
        loop.waiting = {0: second % 2}
        assert watchdog.stuck() is None
    loop.waiting = {0: 9}
    for second in range(60, 120):
        now[0] = loop.progress_at_s = float(second)
        loop.at += 1
        assert watchdog.stuck() is None


def test_time_in_which_the_process_was_suspended_does_not_count() -> None:
    loop = _Loop()
    watchdog, now = _watch(loop)
    loop.transacting_since_s, loop.waiting = 1.0, {0: 3}
    assert watchdog.stuck() is None
    now[0] = 600.0
    watchdog.resumed()
    assert watchdog.stuck() is None
    now[0] = 609.0
    assert watchdog.stuck() is None
    now[0] = loop.progress_at_s = 623.5
    assert "has been writing a transaction for 24 s" in (watchdog.stuck() or "")
