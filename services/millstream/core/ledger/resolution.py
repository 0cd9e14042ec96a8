"""Resolution of labels of several sources to one, by declared precedence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from millstream.core.batch import Mask, Rows
from millstream.core.ledger.label_sets import LabelSets, source_hashes

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Policy:
    """How labels are believed.

    Parameters
    ----------
    precedence : tuple of str
        Sources, the most trusted first. All others come after them, equal among themselves.
    horizon_ms : int
        A label known later than this after its event does not count, and nothing is kept for longer; > 0.

    Raises
    ------
    ValueError
        If a source is named twice or the horizon is not positive.
    """

    precedence: tuple[str, ...] = ()
    horizon_ms: int = 180 * _DAY_MS
    _hashes: Rows = field(init=False, repr=False, compare=False)
    _ranks: Rows = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.precedence)) != len(self.precedence):
            raise ValueError(f"a source is named twice in the precedence {', '.join(self.precedence)}")
        if self.horizon_ms <= 0:
            raise ValueError(f"the horizon must be positive, not {self.horizon_ms} ms")
        hashes = source_hashes(self.precedence)
        order = np.argsort(hashes)
        object.__setattr__(self, "_hashes", hashes[order])
        object.__setattr__(self, "_ranks", order.astype(np.int64))

    def ranks(self, sources: Rows) -> Rows:
        """Return each source's rank, 0 the most trusted; ``len(precedence)`` for a source that is not named."""
        if not self.precedence:
            return np.zeros(len(sources), dtype=np.int64)
        place = np.minimum(np.searchsorted(self._hashes, sources), len(self._hashes) - 1)
        return np.where(self._hashes[place] == sources, self._ranks[place], len(self.precedence))


@dataclass(frozen=True, slots=True)
class ResolvedLabels:
    """What is believed of n events.

    Parameters
    ----------
    labels : int64 ndarray of shape (n,)
        1 or 0; -1 where nothing is believed: no label came in time, or all were retracted.
    known_at_ms, sources : int64 ndarray of shape (n,)
        Of the statement that decided, a retraction included; -1 and 0 without one.
    conflicts : bool ndarray of shape (n,)
        Sources contradict each other.
    """

    labels: Rows
    known_at_ms: Rows
    sources: Rows
    conflicts: Mask

    def differs(self, other: ResolvedLabels) -> Mask:
        """Return where an example must be published: the label or its time differs, and one of the two is there."""
        resolved_before_or_now = (self.labels >= 0) | (other.labels >= 0)
        same = (self.labels == other.labels) & (self.known_at_ms == other.known_at_ms) & (self.sources == other.sources)
        differs: Mask = resolved_before_or_now & ~same
        return differs


def resolve(policy: Policy, sets: LabelSets, predicted: Mask) -> ResolvedLabels:
    """Resolve each event's label set: the most trusted source that has not taken its word back, then the latest.

    Parameters
    ----------
    sets : LabelSets
        Of n events; sorted, and settled where predicted.
    predicted : bool ndarray of shape (n,)
        Events whose prediction is there; nothing is resolved of others.
    """
    n = len(predicted)
    sets = sets.latest()
    known_at_ms, labels = sets.known_at_ms, sets.labels
    counts = predicted[sets.owners]
    rows = np.flatnonzero(counts)
    owners, stands = sets.owners[rows], labels[rows] >= 0
    trust = np.where(stands, -policy.ranks(sets.sources[rows]), 0)
    order = np.lexsort((sets.sources[rows], sets.stamps[rows], trust, stands, owners))
    rows, owners = rows[order], owners[order]
    last = np.ones(len(rows), dtype=np.bool_)
    last[:-1] = owners[1:] != owners[:-1]
    deciding, at = rows[last], owners[last]
    resolved = ResolvedLabels(
        np.full(n, -1, dtype=np.int64),
        np.full(n, -1, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.bool_),
    )
    resolved.labels[at] = labels[deciding]
    resolved.known_at_ms[at] = known_at_ms[deciding]
    resolved.sources[at] = sets.sources[deciding]
    present = np.zeros((2, n), dtype=np.bool_)
    for label in (0, 1):
        present[label, sets.owners[counts & (labels == label)]] = True
    np.logical_and(present[0], present[1], out=resolved.conflicts)
    return resolved
