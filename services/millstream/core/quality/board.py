"""Quality by model, version, arm, day, maturity and group, from examples in any order and any number of times.

At maturity m an event counts with the label that was believed m after it, whatever became known later: a figure of a
day whose labels are m old is final, but for records that were known in time and arrive late.

The board remembers, of each event, its label at each maturity and the revision it comes from. An example with a greater
revision takes the place of the one before: the same row with the old label is taken away and added with the new. One
that says nothing newer changes nothing. So the sums depend only on the set of examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Mask, Rows
from millstream.core.ledger.label_history import NOTHING, labels_at
from millstream.core.metrics import DAY_MS
from millstream.core.quality.cohort import Cohort, RatedExamples
from millstream.core.quality.group_rows import by_values
from millstream.core.quality.label_table import UNSAID, LabelTable, MaturityLabels
from millstream.core.quality.part import PredictionCounts

Protocol = Literal["delayed", "prequential"]
"""``delayed``: scores as served, by day of the event. ``prequential``: the same by day on which the present label
became known; a correction moves the event to the day on which the correction became known."""


PROTOCOLS: Final[tuple[Protocol, ...]] = ("delayed", "prequential")


class Series(NamedTuple):
    """Whose scores, and which day is counted: that of the event or that of the label, by protocol."""

    protocol: str
    model: str
    version: int
    arm: str


class Key(NamedTuple):
    """A cohort.

    Parameters
    ----------
    series : Series
    day : int
        Since 1970-01-01 UTC.
    maturity : int
        Position among the board's maturities. Cohorts up to it, together, are what counts at this maturity: each holds
        the events that count from it on, less those that count no longer or otherwise.
    group : str
        See `Examples`.
    """

    series: Series
    day: int
    maturity: int
    group: str


class PredictionGroup(NamedTuple):
    """Predictions, labelled or not, of which a cohort's examples are some; ``day`` is the event's."""

    model: str
    version: int
    arm: str
    day: int
    group: str


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's answers to n events.

    Parameters
    ----------
    model, arm : object ndarray of str, shape (n,)
    version : int64 ndarray of shape (n,)
    score : float64 ndarray of shape (n,)
        In [0, 1]; NaN where this model did not answer.
    called : bool ndarray of shape (n,)
        Called positive.
    """

    model: Array
    version: Rows
    arm: Array
    score: NDArray[np.float64]
    called: Mask


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of n events, as published; an event may be there several times.

    Parameters
    ----------
    event_ids : int64 ndarray of shape (n,)
        `millstream.core.identity.id_hashes` of the event ids.
    revisions : int64 ndarray of shape (n,)
        >= 1.
    labels : int64 ndarray of shape (n,)
        1 or 0; -1 where the label was taken back.
    event_time_ms, known_at_ms : int64 ndarray of shape (n,)
        Milliseconds since the epoch.
    investigated : int64 ndarray of shape (n,)
        What card precision counts, as a number.
    groups : object ndarray of str, shape (n,)
        ``column=value`` of the group column; "" without one.
    scores : sequence of Scores
        By model; the same for every revision of an event.
    histories : sequence of (str or None), optional
        Of length n: every label believed so far, see `millstream.core.ledger.label_history`; None where the example
        has only its own label, believed from when it became known.
    """

    event_ids: Rows
    revisions: Rows
    labels: Rows
    event_time_ms: Rows
    known_at_ms: Rows
    investigated: Rows
    groups: Array
    scores: Sequence[Scores]
    histories: Sequence[str | None] = ()

    def labels_at(self, maturities_days: Sequence[int]) -> NDArray[np.int64]:
        """Return the label at each maturity, int64 of shape (n, maturities); `UNSAID` where an example does not say."""
        limits_ms = np.array(maturities_days, dtype=np.int64) * DAY_MS
        due_ms = self.event_time_ms[:, None] + limits_ms
        found = np.where(self.known_at_ms[:, None] <= due_ms, self.labels[:, None], UNSAID)
        for row, history in enumerate(self.histories):
            if history is not None:
                found[row] = labels_at(history, due_ms[row])
        found[:, -1] = self.labels
        return found


@dataclass
class Board:
    """All cohorts.

    Parameters
    ----------
    maturities_days : tuple of int
        Ascending. Labels later than the last one count for it too.
    first_day : int
        Events of days before it are forgotten; see `forget`.
    cohorts : dict of Key to Cohort
        As of the last `settle`.
    predicted : dict of (int, int) to dict of PredictionGroup to PredictionCounts
        Predictions by who counted them and day.
    changed : dict of Key to None
        Cohorts that changed since `mark_clean`, in order.
    changed_days : dict of int to None
        Days of events of which something new is remembered.
    changed_predicted : dict of (int, int) to None
        And places of `predicted` that changed.
    """

    maturities_days: tuple[int, ...] = (7, 30, 90, 180)
    first_day: int = -(1 << 62)
    cohorts: dict[Key, Cohort] = field(default_factory=dict)
    predicted: dict[tuple[int, int], dict[PredictionGroup, PredictionCounts]] = field(default_factory=dict)
    remembered: LabelTable = field(init=False)
    changed: dict[Key, None] = field(default_factory=dict)
    changed_days: dict[int, None] = field(default_factory=dict)
    changed_predicted: dict[tuple[int, int], None] = field(default_factory=dict)
    _unsettled: dict[Key, list[Cohort]] = field(default_factory=dict)
    _parts: int = 0

    def __post_init__(self) -> None:
        self.remembered = LabelTable(len(self.maturities_days))

    def update(self, examples: Examples) -> None:
        """Take examples in; those that say nothing new, or are of forgotten days, change nothing."""
        kept = np.flatnonzero(examples.event_time_ms // DAY_MS >= self.first_day)
        rows, before, now = self.remembered.put(
            examples.event_ids[kept],
            examples.revisions[kept],
            examples.labels_at(self.maturities_days)[kept],
            examples.known_at_ms[kept],
            examples.event_time_ms[kept],
        )
        rows = kept[rows]
        self._count(examples, rows, before, -1)
        self._count(examples, rows, now, 1)
        self.changed_days |= dict.fromkeys(np.unique(examples.event_time_ms[rows] // DAY_MS).tolist())
        if self._parts > _MOST_PARTS:
            self.settle()

    def set_predicted(self, source: int, day: int, predicted: Mapping[PredictionGroup, PredictionCounts]) -> None:
        """Replace what one source has counted of a day's predictions: all of them, so that repeating does no harm."""
        if day >= self.first_day:
            self.predicted[source, day] = dict(predicted)
            self.changed_predicted[source, day] = None

    def settle(self) -> None:
        """Bring `cohorts` up to date; sums are only taken now and then, as each is as long as its cohort."""
        for key, parts in self._unsettled.items():
            total = Cohort.total([*([self.cohorts[key]] if key in self.cohorts else []), *parts])
            if total.nothing:
                self.cohorts.pop(key, None)
            else:
                self.cohorts[key] = total
        self._unsettled.clear()
        self._parts = 0

    def mark_clean(self) -> None:
        """Take everything for stored and reported."""
        self.changed.clear()
        self.changed_days.clear()
        self.changed_predicted.clear()

    def forget(self, before_day: int) -> None:
        """Forget events of earlier days, and cohorts of those days; what comes of them from now on is ignored."""
        self.settle()
        self.first_day = max(self.first_day, before_day)
        self.remembered.forget(self.first_day * DAY_MS)
        for cohorts in (self.cohorts, self.changed):
            for key in [key for key in cohorts if key.day < self.first_day]:
                del cohorts[key]
        for predicted in (self.predicted, self.changed_predicted):
            for place in [place for place in predicted if place[1] < self.first_day]:
                del predicted[place]
        for day in [day for day in self.changed_days if day < self.first_day]:
            del self.changed_days[day]

    def _count(self, examples: Examples, rows: Rows, label_at: MaturityLabels, weight: int) -> None:
        event_time_ms = examples.event_time_ms[rows]
        earlier = np.full(len(rows), NOTHING, dtype=np.int64)
        for maturity, labels in enumerate(label_at.labels.T):
            for each, sign in ((earlier, -weight), (labels, weight)):
                there = np.flatnonzero((labels != earlier) & (each >= 0))
                at = np.full(len(there), maturity, dtype=np.int64)
                self._add(examples, "delayed", rows[there], each[there], event_time_ms[there] // DAY_MS, at, sign)
            earlier = labels
        there = np.flatnonzero(earlier >= 0)
        known_at_ms = label_at.known_at_ms[there]
        limits_ms = np.array(self.maturities_days[:-1], dtype=np.int64) * DAY_MS
        at = np.searchsorted(limits_ms, known_at_ms - event_time_ms[there])
        self._add(examples, "prequential", rows[there], earlier[there], known_at_ms // DAY_MS, at, weight)

    def _add(
        self, examples: Examples, protocol: Protocol, rows: Rows, labels: Rows, days: Rows, maturity: Rows, weight: int
    ) -> None:
        for each in examples.scores:
            rated = RatedExamples(labels == 1, each.score[rows], each.called[rows], examples.investigated[rows])
            answered = np.flatnonzero(~np.isnan(rated.scores))
            columns = (each.model[rows], each.version[rows], each.arm[rows], days, maturity, examples.groups[rows])
            for (model, version, arm, day, *rest), members in by_values([column[answered] for column in columns]):
                if day < self.first_day:
                    continue
                part = Cohort.of(rated.take(answered[members]), np.full(len(members), weight, dtype=np.int64))
                key = Key(Series(protocol, model, version, arm), day, *rest)
                self._unsettled.setdefault(key, []).append(part if protocol == "delayed" else part.without_cards())
                self._parts += 1
                self.changed[key] = None


def predictions(
    event_time_ms: Rows, groups: Array, scores: Sequence[Scores]
) -> dict[PredictionGroup, PredictionCounts]:
    """Count n predictions, of which each model answered those that it has a score of."""
    found: dict[PredictionGroup, PredictionCounts] = {}
    days = event_time_ms // DAY_MS
    for each in scores:
        rows = np.flatnonzero(~np.isnan(each.score))
        columns = (each.model, each.version, each.arm, days, groups)
        for values, members in by_values([column[rows] for column in columns]):
            called = int(each.called[rows[members]].sum())
            found[PredictionGroup(*values)] = PredictionCounts(called, len(members) - called)
    return found


_MOST_PARTS: Final = 10_000
