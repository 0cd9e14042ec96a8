"""Retention of the ledger: which of its oldest events are past the label horizon and can be dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from millstream.core.batch import Mask
from millstream.core.ledger.fold import LedgerEntries
from millstream.core.ledger.resolution import Policy, ResolvedLabels


@dataclass(frozen=True, slots=True)
class ExpiredEvents:
    """What becomes of n events at some time; at most one is True of each.

    Parameters
    ----------
    forgotten : bool ndarray of shape (n,)
        Predictions that no label came for (or all were taken back).
    retired : bool ndarray of shape (n,)
        Labelled predictions that can no longer be corrected.
    unmatched : bool ndarray of shape (n,)
        Labels whose prediction never came.
    """

    forgotten: Mask
    retired: Mask
    unmatched: Mask

    @property
    def dropped(self) -> Mask:
        """Of which nothing is kept, shape (n,)."""
        return self.forgotten | self.retired | self.unmatched


def expired_events(policy: Policy, entries: LedgerEntries, resolved: ResolvedLabels, now_ms: int) -> ExpiredEvents:
    """Return which of n events are past the horizon.

    A prediction is, when ``now_ms`` is more than the horizon after its event; waiting labels are, when it is more than
    the horizon after the latest of them became known.

    Parameters
    ----------
    now_ms : int
        How far the stream has come, milliseconds since the epoch: the earlier of what both inputs have reached, so
        that an input that lags behind still finds what it needs.
    """
    n = len(entries.predicted)
    newest = np.full(n, -1, dtype=np.int64)
    np.maximum.at(newest, entries.labels.owners, entries.labels.known_at_ms)
    past = entries.predicted & (now_ms - entries.event_time_ms > policy.horizon_ms)
    waiting = ~entries.predicted & (newest >= 0)
    labelled = resolved.labels >= 0
    return ExpiredEvents(past & ~labelled, past & labelled, waiting & (now_ms - newest > policy.horizon_ms))
