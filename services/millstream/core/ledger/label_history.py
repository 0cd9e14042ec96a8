"""The history of an event's label by the time each became known: a function of the set of labels, not of arrival order.

At time t the statements known by t are resolved as `millstream.core.ledger.resolution` resolves all of them. A figure
of maturity m counts the label believed at event time + m, whatever became known later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Rows
from millstream.core.ledger.label_sets import LabelSets
from millstream.core.ledger.resolution import Policy

NOTHING: Final = -1
"""The label of an event of which nothing is believed."""

History: TypeAlias = tuple[tuple[int, int], ...]
"""Changes of the label believed, as (time in milliseconds since the epoch, label or `NOTHING`), ascending; the first
is a label. Before it nothing is believed."""


def histories(policy: Policy, sets: LabelSets, events: Iterable[int]) -> dict[int, History]:
    """Return the history of each of these events.

    Parameters
    ----------
    sets : LabelSets
        Sorted by owner, and settled.
    """
    known_at_ms, labels, ranks = sets.known_at_ms.tolist(), sets.labels.tolist(), policy.ranks(sets.sources).tolist()
    sources, stamps = sets.sources.tolist(), sets.stamps.tolist()
    found: dict[int, History] = {}
    for event in events:
        start, end = np.searchsorted(sets.owners, [event, event + 1]).tolist()
        rows = sorted(range(start, end), key=stamps.__getitem__)
        latest: dict[int, tuple[int, int, int, int]] = {}
        history: list[tuple[int, int]] = []
        for place, row in enumerate(rows):
            latest[sources[row]] = (-ranks[row], stamps[row], sources[row], labels[row])
            if place + 1 < len(rows) and known_at_ms[rows[place + 1]] == known_at_ms[row]:
                continue  # what becomes known at one time is believed together
            label = max((each for each in latest.values() if each[3] >= 0), default=(0, 0, 0, NOTHING))[3]
            if label != (history[-1][1] if history else NOTHING):
                history.append((known_at_ms[row], label))
        found[event] = tuple(history)
    return found


def encode_history(history: History) -> str:
    """Return a history as JSON: a list of ``[known at in ms, label]``, the label null where it was taken back.

    Examples
    --------
    >>> encode_history(((5, 1), (9, NOTHING)))
    '[[5,1],[9,null]]'
    """
    return json.dumps([[at_ms, None if label < 0 else label] for at_ms, label in history], separators=(",", ":"))


def labels_at(text: str, times_ms: NDArray[np.int64]) -> Rows:
    """Return the label believed at each of some times, `NOTHING` where none was, by a history that was encoded.

    Raises
    ------
    ValueError, TypeError
        If it is none.

    Examples
    --------
    >>> labels_at("[[5,1],[9,null]]", np.array([4, 5, 8, 9])).tolist()
    [-1, 1, 1, -1]
    """
    changes = [(int(at_ms), NOTHING if label is None else int(label)) for at_ms, label in json.loads(text)]
    if any(label not in {NOTHING, 0, 1} for _, label in changes):
        raise ValueError("a label is neither 0, 1 nor null")
    at = np.array([at_ms for at_ms, _ in changes], dtype=np.int64)
    labels = np.array([NOTHING, *(label for _, label in changes)], dtype=np.int64)
    return labels[np.searchsorted(at, times_ms, side="right")]
