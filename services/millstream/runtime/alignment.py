"""Partitions of a backlog are read abreast: in the order of their records' timestamps.

A fetch brings thousands of records of one partition, then thousands of the next. Handed on like that, a backlog of
days would be days out of order for whoever comes after, who would take most of it for late. So what was fetched is held
until every partition that has more to give has given some, and merged; see Flink's watermark alignment (FLIP-182) and
Kafka Streams' choice of the next partition (KIP-353, KIP-695).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from millstream.runtime.log.records import Place

Item = TypeVar("Item")

_BELOW_ONE = 0.9995
"""As near to 1 as a float of today's milliseconds can tell from it."""


class Aligned(Generic[Item]):
    """Items of several places, each in its own order, given out in the order of their timestamps."""

    def __init__(self) -> None:
        self._items: dict[Place, list[Item]] = {}
        self._stamps: dict[Place, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def count(self, place: Place) -> int:
        """Return how many items of a place are held."""
        return len(self._items.get(place, ()))

    def add(self, place: Place, items: Sequence[Item], stamps_ms: NDArray[np.int64]) -> None:
        """Hold items of a place, which come after those that are held of it.

        One whose timestamp is below an earlier one's counts as that old: items of a place never pass each other.
        """
        if held := self._items.get(place):
            held.extend(items)
            stamps_ms = np.concatenate([self._stamps[place], stamps_ms])
        else:
            self._items[place] = list(items)
        self._stamps[place] = np.maximum.accumulate(stamps_ms)

    def take(self, most: int) -> list[Item]:
        """Give out the oldest items, at most so many.

        Those of the same timestamp, as of one transaction, are taken from each place at the same pace.
        """
        if len(self._items) <= 1:
            return [item for place in [*self._items] for item in self._cut(place, most)]
        places = sorted(self._items)
        keys = [_keys(self._stamps[place], most) for place in places]
        order = np.argsort(np.concatenate(keys), kind="stable")[:most]
        begins = np.cumsum([0, *map(len, keys)])
        owners = np.searchsorted(begins, order, side="right") - 1
        counts = np.bincount(owners, minlength=len(places))
        # What is taken of a place is the first of it: here laid end to end, and picked in order.
        taken = [item for place, count in zip(places, counts.tolist(), strict=True) for item in self._cut(place, count)]
        moved = np.cumsum([0, *counts[:-1]]) - begins[:-1]
        return [taken[at] for at in (order + moved[owners]).tolist()]

    def _cut(self, place: Place, count: int) -> list[Item]:
        held = self._items[place]
        taken = held[:count]
        if count >= len(held):
            del self._items[place], self._stamps[place]
        elif count:
            del held[:count]
            self._stamps[place] = self._stamps[place][count:]
        return taken

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget what is held of these partitions, of whatever topic."""
        gone = set(partitions)
        for place in [place for place in self._items if place[1] in gone]:
            del self._items[place], self._stamps[place]


def _keys(stamps_ms: NDArray[np.int64], most: int) -> NDArray[np.float64]:
    """Return what to order the first items by: timestamps, plus how far each is among those of its own, below 1."""
    head = stamps_ms[:most]
    first, last = np.searchsorted(stamps_ms, head, "left"), np.searchsorted(stamps_ms, head, "right")
    return np.asarray(head + np.minimum((np.arange(len(head)) - first + 0.5) / (last - first), _BELOW_ONE))
