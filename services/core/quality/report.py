"""What the board says as of some time: figures by day or altogether, coverage, intervals, gaps between groups."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.core.metrics import DAY_MS
from services.core.quality.board import Board, Key, merged
from services.core.quality.figures import Figure, Predicted, figures


@dataclass(frozen=True, slots=True)
class Reported:
    """The figures of one model on the labels known within ``maturity_days`` of their events.

    Parameters
    ----------
    day : int or None
        Since 1970-01-01 UTC; None for all days together.
    group : str or None
        None for everybody.
    mature : bool
        All labels that count have had time to arrive: the figures are final but for corrections.
    coverage : float
        Labelled share of the predictions, in [0, 1]; NaN where no predictions were counted.
    """

    model: str
    version: int
    arm: str
    day: int | None
    maturity_days: int
    group: str | None
    mature: bool
    coverage: float
    examples: int
    positives: int
    figures: dict[str, Figure]


def report(
    board: Board, as_of_ms: int, maturity_days: int, by_day: bool = True, by_group: bool = False, k: int = 100
) -> list[Reported]:
    """Report every model, version and arm, in that order and then by day and group.

    Parameters
    ----------
    as_of_ms : int
        How far the label stream has come. A delayed cohort is mature once that is ``maturity_days`` after the end of
        its day, a prequential one once its day is over. All days together are mature if each is.
    maturity_days : int
        One of the board's.

    Raises
    ------
    ValueError
        If the board keeps no such maturity.
    """
    if maturity_days not in board.maturities_days:
        kept = ", ".join(map(str, board.maturities_days))
        raise ValueError(f"labels are told apart at {kept} days, not at {maturity_days}")
    limit = board.maturities_days.index(maturity_days)
    wanted: dict[tuple[str, int, str, int, str], list[Key]] = {}

    def place(model: str, version: int, arm: str, day: int, group: str) -> tuple[str, int, str, int, str]:
        return model, version, arm, day if by_day else _ALL, group if by_group else ""

    for key in board.cohorts:
        if key.maturity <= limit:
            wanted.setdefault(place(key.model, key.version, key.arm, key.day, key.group), []).append(key)
    predicted: dict[tuple[str, int, str, int, str], Predicted] = {}
    days: dict[tuple[str, int, str, int, str], int] = {}
    if board.protocol == "delayed":
        for seen, count in board.predicted.items():
            at = place(*seen)
            predicted[at] = predicted.get(at, Predicted(0, 0)).plus(count)
            days[at] = max(days.get(at, _ALL), seen.day)
    ripens_ms = maturity_days * DAY_MS if board.protocol == "delayed" else 0
    found = []
    for at in sorted({*wanted, *predicted}):
        keys = wanted.get(at, [])
        cohort = merged(board.cohorts, keys)
        known = predicted.get(at)
        newest = max([key.day for key in keys] + [days.get(at, _ALL)])
        total = known.called + known.uncalled if known else 0
        found.append(
            Reported(
                *at[:3],
                at[3] if by_day else None,
                maturity_days,
                at[4] if by_group else None,
                as_of_ms >= (newest + 1) * DAY_MS + ripens_ms,
                min(1.0, cohort.examples / total) if total else math.nan,
                cohort.examples,
                cohort.counts[1],
                figures(cohort, known, k),
            )
        )
    return found


def gaps(reported: Iterable[Reported]) -> dict[str, float]:
    """Return, per metric, the difference between the best and the worst group that has it: how unequal groups fare.

    ``reported`` are the groups of one model, version, arm and day. Of ``recall`` it is the equal-opportunity
    difference, of ``selection_rate`` the demographic-parity difference.
    """
    values: dict[str, list[float]] = {}
    for each in reported:
        for name, figure in each.figures.items():
            values.setdefault(name, []).append(figure.value)
    return {name: max(found) - min(found) for name, found in values.items() if len(found) > 1}


_ALL = -(1 << 62)
