"""What to measure, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Progress = Callable[[int], None]
Track = Callable[[str, int], Progress]
"""Asked for a progress callback per counted step."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """Sizes of every part.

    Parameters
    ----------
    events, faust_events : int
        one-stage: backlog of each side; Faust's is the beginning of the same events.
    rates : sequence of int
        Events per second of the paced measurements.
    paced_s : float
        Length of each.
    limit_s : float
        A backlog is watched no longer.
    partitions : int
        Of every topic, but for the part scaling.
    sides : set of str
        one-stage: ``millstream``, ``faust``.
    reference_repo : Path
        The feature repo of two hops that path, latency and view run.
    layouts : sequence of str
        How path and latency run it: ``split``, a worker per stage, or ``whole``, one worker for both.
    path_events, recovery_events, scaling_events, keys_events : int
        Backlogs; the part keys publishes at least an event a key.
    recovery_cases : sequence of str
        Of `millstream_lab.bench.recovery.CASES`.
    broker_warm_up_events : int
        Backlog of a first round of the one-stage job, which does not count; 0 leaves it out.
    warm_up_events : int
        Worked off before anything paced.
    view_rows, view_rounds : int
        Rows written to the online store by each side, and how often.
    workers : sequence of int
        scaling: how many share ``scaling_partitions``.
    keys : sequence of int
        keys: how many customers.
    join_events : int
        join: predictions, each with a label.
    ledger_pending, ledger_joins : int
        ledger: predictions held, and labels of random ones that come while they are.
    learner_examples, learner_rounds : int
        learner: examples each side learns, and how often.
    """

    events: int = 400_000
    faust_events: int = 40_000
    rates: Sequence[int] = (1000, 5000)
    paced_s: float = 10.0
    limit_s: float = 60.0
    seed: int = 7
    partitions: int = 4
    guarantee: str = "exactly_once"
    sides: frozenset[str] = frozenset({"millstream", "faust"})
    reference_repo: Path = Path("feature_repo")
    layouts: Sequence[str] = ("split",)
    path_events: int = 200_000
    broker_warm_up_events: int = 300_000
    warm_up_events: int = 20_000
    recovery_events: int = 1_000_000
    recovery_cases: Sequence[str] = ("checkpointed", "changelog lost")
    view_rows: int = 20_000
    view_rounds: int = 3
    scaling_events: int = 200_000
    scaling_partitions: int = 8
    workers: Sequence[int] = (1, 2, 4)
    keys_events: int = 200_000
    keys: Sequence[int] = (10_000, 100_000)
    join_events: int = 200_000
    ledger_pending: int = 1_000_000
    ledger_joins: int = 200_000
    learner_examples: int = 20_000
    learner_rounds: int = 7


def long_form(plan: BenchPlan) -> BenchPlan:
    """Return the plan with larger backlogs, longer paced parts, more keys and more pending predictions."""
    return replace(
        plan,
        paced_s=max(plan.paced_s, 30.0),
        limit_s=max(plan.limit_s, 180.0),
        layouts=("split", "whole"),
        path_events=600_000,
        view_rows=50_000,
        scaling_events=600_000,
        keys_events=600_000,
        keys=(10_000, 100_000, 500_000, 2_000_000),
        ledger_pending=10_000_000,
    )


@dataclass
class Measured:
    """What a part found.

    Parameters
    ----------
    figures : dict
        JSON values.
    wrong : list of str
        A sentence for each thing that is not as it must be; the command fails when there is one.
    """

    figures: dict[str, Any]
    wrong: list[str] = field(default_factory=list)


def number(value: float | None, digits: int = 0) -> str:
    """Return a figure as text, a dash for none.

    Examples
    --------
    >>> number(61234.5), number(0.456, 2), number(None)
    ('61,234', '0.46', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def memory_text(memory: dict[str, Any]) -> str:
    """Return workers' peak and steady memory; of several, the largest of each."""
    if not memory:
        return ""
    peak, steady = (max(each[kind] for each in memory.values()) for kind in ("peak_mb", "steady_mb"))
    return f"{peak:,.0f} / {steady:,.0f}"
