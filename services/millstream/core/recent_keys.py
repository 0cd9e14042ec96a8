"""Deduplication by recent keys, for topics that are written at least once.

A record is written again when a worker died after writing it and before its offset was committed. That is soon after
the first time, so the newest keys of a topic's partition suffice: memory is bounded, and what is known follows from the
records before a position, so that a stage which recovers by reading those decides as it did live.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np

from millstream.core.batch import Batch, Mask

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RecentKeys(Generic[K, V]):
    """Values of the keys that were put last.

    Parameters
    ----------
    size : int
        How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of a key; None if it is not kept."""
        return self._held.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop the oldest key where there are too many."""
        self._held[key] = value
        self._held.move_to_end(key)
        if len(self._held) > self._size:
            self._held.popitem(last=False)


def first_times(kept: RecentKeys[K, bool], keys: Iterable[K]) -> Mask:
    """Return which keys are not kept and not among those before them; all are kept from now on."""
    fresh: list[bool] = []
    for key in keys:
        fresh.append(kept.get(key) is None)
        if fresh[-1]:
            kept.put(key, True)
    return np.array(fresh, dtype=np.bool_)


ExampleVersion = tuple[int, float | None, int]
"""Of an example: revision, label, and when it became known in milliseconds since the epoch."""


def repeated_examples(kept: RecentKeys[str, ExampleVersion], examples: Batch) -> Mask:
    """Return which examples say nothing new of their event: no greater revision, or the same label as known since then.

    Parameters
    ----------
    examples : Batch
        As ``schemas/examples.avsc`` has them, in order.
    """
    names = ("event_id", "revision", "label", "label_known_at_ms")
    columns = (examples.columns[name].tolist() for name in names)
    repeated: list[bool] = []
    for event, revision, label, known_at_ms, null in zip(*columns, examples.is_null("label").tolist(), strict=True):
        version = (revision, None if null else label, known_at_ms)
        before = kept.get(event)
        newer = before is None or revision > before[0]
        repeated.append(not newer or (before is not None and version[1:] == before[1:]))
        if newer:
            kept.put(event, version)
    return np.array(repeated, dtype=np.bool_)
