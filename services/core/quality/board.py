"""Quality by model, version, arm, day, maturity and group, from examples in any order and any number of times.

The board remembers, of each event, the newest revision it has seen and what that said. An example with a greater
revision takes the place of the one before: the same row with the old label is taken away and added with the new. One
with the same or a smaller revision changes nothing. So the sums depend only on the newest example of each event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.core.batch import Array, Mask, Rows
from services.core.metrics import DAY_MS
from services.core.quality.cohort import Cohort, Rated
from services.core.quality.part import Predicted
from services.core.quality.remembered import Remembered

Protocol = Literal["delayed", "prequential"]
"""``delayed``: scores as served, by day of the event. ``prequential``: the same by day on which the label became
known."""


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
        Position among the board's maturities: the label became known this long after the event, or sooner, and later
        than the maturity before.
    group : str
        See `Examples`.
    """

    series: Series
    day: int
    maturity: int
    group: str


class Seen(NamedTuple):
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
        `services.core.identity.id_hashes` of the event ids.
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
    """

    event_ids: Rows
    revisions: Rows
    labels: Rows
    event_time_ms: Rows
    known_at_ms: Rows
    investigated: Rows
    groups: Array
    scores: Sequence[Scores]


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
    told : dict of (int, int) to dict of Seen to Predicted
        Predictions by who counted them and day.
    changed : dict of Key to None
        Cohorts that changed since `mark_clean`, in order.
    changed_days : dict of int to None
        Days of events of which something new is remembered.
    changed_told : dict of (int, int) to None
        And places of `told` that changed.
    """

    maturities_days: tuple[int, ...] = (7, 30, 90, 180)
    first_day: int = -(1 << 62)
    cohorts: dict[Key, Cohort] = field(default_factory=dict)
    told: dict[tuple[int, int], dict[Seen, Predicted]] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    changed: dict[Key, None] = field(default_factory=dict)
    changed_days: dict[int, None] = field(default_factory=dict)
    changed_told: dict[tuple[int, int], None] = field(default_factory=dict)
    _unsettled: dict[Key, list[Cohort]] = field(default_factory=dict)
    _parts: int = 0

    def update(self, examples: Examples) -> None:
        """Take examples in; those that say nothing new, or are of forgotten days, change nothing."""
        rows = self.remembered.newest(examples.event_ids, examples.revisions)
        rows = rows[examples.event_time_ms[rows] // DAY_MS >= self.first_day]
        old = self.remembered.put(
            examples.event_ids[rows],
            examples.revisions[rows],
            examples.labels[rows],
            examples.known_at_ms[rows],
            examples.event_time_ms[rows],
        )
        self._add(examples, rows, old.labels, old.known_at_ms, -1)
        self._add(examples, rows, examples.labels[rows], examples.known_at_ms[rows], 1)
        self.changed_days |= dict.fromkeys(np.unique(examples.event_time_ms[rows] // DAY_MS).tolist())
        if self._parts > _MOST_PARTS:
            self.settle()

    def tell(self, source: int, day: int, predicted: Mapping[Seen, Predicted]) -> None:
        """Replace what one source has counted of a day's predictions: all of them, so that repeating does no harm."""
        if day >= self.first_day:
            self.told[source, day] = dict(predicted)
            self.changed_told[source, day] = None

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
        self.changed_told.clear()

    def forget(self, before_day: int) -> None:
        """Forget events of earlier days, and cohorts of those days; what comes of them from now on is ignored."""
        self.settle()
        self.first_day = max(self.first_day, before_day)
        self.remembered.forget(self.first_day * DAY_MS)
        for cohorts in (self.cohorts, self.changed):
            for key in [key for key in cohorts if key.day < self.first_day]:
                del cohorts[key]
        for told in (self.told, self.changed_told):
            for place in [place for place in told if place[1] < self.first_day]:
                del told[place]
        for day in [day for day in self.changed_days if day < self.first_day]:
            del self.changed_days[day]

    def _add(self, examples: Examples, rows: Rows, labels: Rows, known_at_ms: Rows, weight: int) -> None:
        there = labels >= 0
        rows, labels, known_at_ms = rows[there], labels[there], known_at_ms[there]
        event_time_ms = examples.event_time_ms[rows]
        limits_ms = np.array(self.maturities_days, dtype=np.int64) * DAY_MS
        maturity = np.searchsorted(limits_ms, known_at_ms - event_time_ms)
        maturity = np.minimum(maturity, len(limits_ms) - 1)
        for each in examples.scores:
            rated = Rated(labels == 1, each.score[rows], each.called[rows], examples.investigated[rows])
            answered = np.flatnonzero(~np.isnan(rated.scores))
            for protocol in PROTOCOLS:
                days = (event_time_ms if protocol == "delayed" else known_at_ms) // DAY_MS
                columns = (each.model[rows], each.version[rows], each.arm[rows], days, maturity, examples.groups[rows])
                for (model, version, arm, day, *rest), members in _groups([column[answered] for column in columns]):
                    if day < self.first_day:
                        continue
                    part = Cohort.of(rated.take(answered[members]), np.full(len(members), weight, dtype=np.int64))
                    key = Key(Series(protocol, model, version, arm), day, *rest)
                    self._unsettled.setdefault(key, []).append(part if protocol == "delayed" else part.without_cards())
                    self._parts += 1
                    self.changed[key] = None


def predictions(event_time_ms: Rows, groups: Array, scores: Sequence[Scores]) -> dict[Seen, Predicted]:
    """Count n predictions, of which each model answered those that it has a score of."""
    found: dict[Seen, Predicted] = {}
    days = event_time_ms // DAY_MS
    for each in scores:
        rows = np.flatnonzero(~np.isnan(each.score))
        columns = (each.model, each.version, each.arm, days, groups)
        for values, members in _groups([column[rows] for column in columns]):
            called = int(each.called[rows[members]].sum())
            found[Seen(*values)] = Predicted(called, len(members) - called)
    return found


_MOST_PARTS: Final = 10_000


def _groups(columns: Sequence[Array]) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    """Yield each distinct row of some columns, in order, with the positions that hold it."""
    if not len(columns[0]):
        return
    uniques, code = [], np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        unique, inverse = _distinct(column)
        uniques.append(unique)
        code = code * len(unique) + inverse
    order = np.argsort(code, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        rest, values = int(code[members[0]]), []
        for unique in reversed(uniques):
            rest, place = divmod(rest, len(unique))
            values.append(unique[place])
        yield tuple(reversed(values)), members


def _distinct(column: Array) -> tuple[list[object], Rows]:
    """Return the distinct values of a column, and the position of each row's among them."""
    if column.dtype != object:
        unique, inverse = np.unique(column, return_inverse=True)
        return unique.tolist(), inverse
    places: dict[object, int] = {}
    inverse = np.fromiter((places.setdefault(value, len(places)) for value in column.tolist()), np.int64, len(column))
    return list(places), inverse
