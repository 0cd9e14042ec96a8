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
from services.core.quality.figures import Predicted
from services.core.quality.remembered import Remembered

Protocol = Literal["delayed", "prequential"]
"""``delayed``: scores as served, by day of the event. ``prequential``: by day on which the label became known, with
the scores the learner gave right before it learnt."""


class Key(NamedTuple):
    """A cohort.

    Parameters
    ----------
    model, version, arm
        Who scored.
    day : int
        Of the event or of the label becoming known, by protocol; since 1970-01-01 UTC.
    maturity : int
        Position among the board's maturities: the label became known this long after the event, or sooner, and later
        than the maturity before.
    group : str
        Value of the board's group column; "" without one.
    """

    model: str
    version: int
    arm: str
    day: int
    maturity: int
    group: str


class Seen(NamedTuple):
    """Predictions, labelled or not, of which a cohort's examples are some."""

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
        Value of the group column; "" without one.
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
    """All cohorts of one protocol.

    Parameters
    ----------
    maturities_days : tuple of int
        Ascending. Labels later than the last one count for it too.
    protocol : Protocol
    """

    maturities_days: tuple[int, ...] = (7, 30, 90, 180)
    protocol: Protocol = "delayed"
    cohorts: dict[Key, Cohort] = field(default_factory=dict)
    predicted: dict[Seen, Predicted] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)

    def update(self, examples: Examples) -> None:
        """Take examples in; those that say nothing new change nothing."""
        rows = self.remembered.newest(examples.event_ids, examples.revisions)
        old = self.remembered.put(
            examples.event_ids[rows],
            examples.revisions[rows],
            examples.labels[rows],
            examples.known_at_ms[rows],
            examples.event_time_ms[rows],
        )
        self._add(examples, rows, old.labels, old.known_at_ms, -1)
        self._add(examples, rows, examples.labels[rows], examples.known_at_ms[rows], 1)

    def update_predictions(self, event_time_ms: Rows, groups: Array, scores: Sequence[Scores]) -> None:
        """Count predictions, for coverage and bounds; each must come once, as it does under exactly-once."""
        days = event_time_ms // DAY_MS
        for each in scores:
            rows = np.flatnonzero(~np.isnan(each.score))
            columns = (each.model, each.version, each.arm, days, groups)
            for values, members in _groups([column[rows] for column in columns]):
                called = int(each.called[rows[members]].sum())
                seen = Seen(*values)
                more = Predicted(called, len(members) - called)
                self.predicted[seen] = self.predicted.get(seen, Predicted(0, 0)).plus(more)

    def forget(self, before_ms: int) -> None:
        """Forget which revisions were seen of events before this time; no more examples of them may come."""
        self.remembered.forget(before_ms)

    def _add(self, examples: Examples, rows: Rows, labels: Rows, known_at_ms: Rows, weight: int) -> None:
        there = labels >= 0
        rows, labels, known_at_ms = rows[there], labels[there], known_at_ms[there]
        event_time_ms = examples.event_time_ms[rows]
        event_days = event_time_ms // DAY_MS
        days = event_days if self.protocol == "delayed" else known_at_ms // DAY_MS
        limits_ms = np.array(self.maturities_days, dtype=np.int64) * DAY_MS
        maturity = np.searchsorted(limits_ms, known_at_ms - event_time_ms)
        maturity = np.minimum(maturity, len(limits_ms) - 1)
        for each in examples.scores:
            rated = Rated(labels == 1, each.score[rows], each.called[rows], examples.investigated[rows], event_days)
            answered = np.flatnonzero(~np.isnan(rated.scores))
            columns = (each.model[rows], each.version[rows], each.arm[rows], days, maturity, examples.groups[rows])
            for values, members in _groups([column[answered] for column in columns]):
                key = Key(*values)
                part = Cohort.of(rated.take(answered[members]), np.full(len(members), weight, dtype=np.int64))
                total = self.cohorts.get(key, _EMPTY).plus(part)
                if total.nothing:
                    self.cohorts.pop(key, None)
                else:
                    self.cohorts[key] = total


_EMPTY: Final = Cohort.empty()


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


def merged(cohorts: Mapping[Key, Cohort], keys: Sequence[Key]) -> Cohort:
    """Return the sum of some cohorts; the order of ``keys`` does not matter."""
    total = _EMPTY
    for key in keys:
        total = total.plus(cohorts[key])
    return total
