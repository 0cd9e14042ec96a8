"""Quality figures as of a time: by day, and over all mature days together, with intervals and coverage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream.core.quality.board import Board, Key, PredictionGroup, Series
from millstream.core.quality.cohort import Cohort
from millstream.core.quality.figures import Figure, figures
from millstream.core.quality.maturity import Slot, mature, pooled
from millstream.core.quality.part import Part, PredictionCounts


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """The figures of one slot and day.

    Parameters
    ----------
    slot : Slot
    day : int or None
        Since 1970-01-01 UTC; None for all mature days together.
    mature : bool
        All labels that count have had time to arrive: the figures are final, but for records that arrive later than
        they were known.
    coverage : float
        Labelled share of the predictions, in [0, 1]; NaN where no predictions were counted.
    examples, positives : int
    figures : dict of str to Figure
    """

    slot: Slot
    day: int | None
    mature: bool
    coverage: float
    examples: int
    positives: int
    figures: dict[str, Figure]


class Reporter:
    """Reports what changed since it last did; a fresh one reports everything.

    Parameters
    ----------
    board : Board
    k : int
        Of card precision.

    Attributes
    ----------
    as_of_ms : int
        Of the last report.
    """

    def __init__(self, board: Board, k: int = 100) -> None:
        self._board = board
        self._k = k
        self.as_of_ms = -1
        self._mature: dict[Slot, dict[int, Part]] = {}
        self._pools: dict[Slot, Part] = {}

    def resume(self, as_of_ms: int) -> None:
        """Take what the board holds for reported, as of then."""
        for slots in self._parts(list(dict.fromkeys((key.series, key.day) for key in self._board.cohorts))):
            for (slot, day), part in slots.items():
                if pooled(slot, day, as_of_ms):
                    self._pool(slot, day, part)
        self.as_of_ms = as_of_ms

    def report(self, as_of_ms: int) -> list[SlotFigures]:
        """Report what changed, or turned mature, or is so no more.

        Parameters
        ----------
        as_of_ms : int
            How far the label stream has come. A cohort is mature once that is its maturity after the end of its day.
            All days together are those that are mature; of prequential ones, which a correction may still change until
            then, those that are over.
        """
        board = self._board
        board.settle()
        due = {(key.series, key.day): None for key in board.changed}
        days_changed = {day for _, day in board.changed_predicted}
        for series, day in dict.fromkeys((key.series, key.day) for key in board.cohorts):
            if series.protocol == "delayed" and day in days_changed:
                due[series, day] = None
            turning = [Slot(series, days, "") for days in board.maturities_days]
            before, now = (
                [(mature(slot, day, at), pooled(slot, day, at)) for slot in turning] for at in (self.as_of_ms, as_of_ms)
            )
            if before != now:
                due[series, day] = None
        moved: dict[Slot, None] = {}
        for slot, days in self._mature.items():
            for day in [day for day in days if day < board.first_day]:
                self._pool(slot, day, None)
                moved[slot] = None
        found = []
        for slots in self._parts(sorted(due)):
            for (slot, day), part in slots.items():
                counts = pooled(slot, day, as_of_ms)
                if counts or day in self._mature.get(slot, {}):
                    self._pool(slot, day, part if counts else None)
                    moved[slot] = None
                found.append(self._reported(slot, day, mature(slot, day, as_of_ms), part))
        # All groups of a pool go together, as a gap is between them.
        pools = {(slot.series, slot.maturity_days) for slot in moved}
        found += [
            self._reported(slot, None, all(mature(slot, day, as_of_ms) for day in self._mature[slot]), part)
            for slot, part in sorted(self._pools.items(), key=lambda item: item[0])
            if (slot.series, slot.maturity_days) in pools
        ]
        self.as_of_ms = as_of_ms
        return found

    def _parts(self, wanted: Sequence[tuple[Series, int]]) -> Iterable[dict[tuple[Slot, int], Part]]:
        """Yield the parts of each wanted series and day, of every maturity and group."""
        board = self._board
        keys: dict[tuple[Series, int], list[Key]] = {place: [] for place in wanted}
        for key in {**board.cohorts, **board.changed}:
            if (key.series, key.day) in keys:
                keys[key.series, key.day].append(key)
        predicted = self._predicted()
        for (series, day), mine in keys.items():
            maturities = board.maturities_days
            if series.protocol == "prequential":
                maturities = maturities[-1:]
            groups = sorted({"", *(key.group for key in mine)})
            parts = {}
            for days in maturities:
                limit = board.maturities_days.index(days)
                for group in groups:
                    members = [key for key in mine if key.maturity <= limit and group in {"", key.group}]
                    cohort = Cohort.total([board.cohorts[key] for key in members if key in board.cohorts])
                    seen = (
                        predicted.get(PredictionGroup(*series[1:], day, group))
                        if series.protocol == "delayed"
                        else None
                    )
                    parts[Slot(series, days, group), day] = Part.of_day(cohort, seen, self._k)
            yield parts

    def _predicted(self) -> dict[PredictionGroup, PredictionCounts]:
        """Return what was predicted by group, and under the group "" of everybody."""
        found: dict[PredictionGroup, list[PredictionCounts]] = {}
        for counts in self._board.predicted.values():
            for seen, count in counts.items():
                for place in {seen, seen._replace(group="")}:
                    found.setdefault(place, []).append(count)
        return {seen: PredictionCounts.total(counts) for seen, counts in found.items()}

    def _pool(self, slot: Slot, day: int, part: Part | None) -> None:
        """Let a day count for all mature days with this part, in place of what it counted with; None: no more."""
        days = self._mature.setdefault(slot, {})
        parts = [self._pools[slot]] if slot in self._pools else []
        if day in days:
            parts.append(days.pop(day).negative())
        if part is not None:
            days[day] = part
            parts.append(part)
        self._pools[slot] = Part.total(parts)

    def _reported(self, slot: Slot, day: int | None, ripe: bool, part: Part) -> SlotFigures:
        total = part.predicted.all if part.predicted is not None else 0
        examples = part.cohort.examples
        return SlotFigures(
            slot,
            day,
            ripe,
            min(1.0, examples / total) if total else math.nan,
            examples,
            part.cohort.counts[1],
            figures(part, self._k),
        )


def gaps(reported: Iterable[SlotFigures]) -> dict[str, float]:
    """Return, per metric, the difference between the best and the worst group that has it: how unequal groups fare.

    ``reported`` are the groups of one series, maturity and day. Of ``recall`` it is the equal-opportunity difference,
    of ``selection_rate`` the demographic-parity difference.
    """
    values: dict[str, list[float]] = {}
    for each in reported:
        for name, figure in each.figures.items():
            if not math.isnan(figure.value):
                values.setdefault(name, []).append(figure.value)
    return {name: max(found) - min(found) for name, found in values.items() if len(found) > 1}
