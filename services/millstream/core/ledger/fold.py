"""The ledger's fold: predictions and labels of one micro-batch joined with its entries, and the examples to publish.

What is published is the difference between what was believed before and after the micro-batch. Both are functions of
the *sets* of predictions and labels folded so far, never of their order or batching. What was believed at earlier times
is part of it (`millstream.core.ledger.label_history`), so that a label which arrives after its correction is published
too. So a ledger that was put back to the committed offsets, by whatever replay, goes on publishing exactly where the
last transaction ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from millstream.core.batch import Mask, Rows
from millstream.core.ledger.label_history import History, histories
from millstream.core.ledger.label_sets import LabelSets
from millstream.core.ledger.resolution import Policy, ResolvedLabels, resolve


@dataclass(frozen=True, slots=True)
class LedgerEntries:
    """What is held of n events.

    Parameters
    ----------
    predicted : bool ndarray of shape (n,)
        The prediction is there.
    event_time_ms : int64 ndarray of shape (n,)
        Milliseconds since the epoch where predicted, else unspecified.
    labels : LabelSets
        Sorted, settled where predicted.
    """

    predicted: Mask
    event_time_ms: Rows
    labels: LabelSets


@dataclass(frozen=True, slots=True)
class LedgerUpdate:
    """What a micro-batch made of n events.

    Parameters
    ----------
    entries_before, entries : LedgerEntries
        Before and afterwards.
    arrived : bool ndarray of shape (n,)
        The prediction is new; other predictions in the micro-batch repeat one that was there.
    relabelled : bool ndarray of shape (n,)
        The label set is another than before.
    before, after : ResolvedLabels
        What was and what is believed.
    publish : int64 ndarray
        Events whose example must be published, ascending: what is or was believed of them has changed.
    histories : dict of int to History
        Of those of them with several statements.
    versions : int64 ndarray of shape (n,)
        Of the label sets afterwards; the revision of each example.
    new_labels : int
        Statements in the micro-batch that were not held, each counted once.
    """

    entries_before: LedgerEntries
    entries: LedgerEntries
    arrived: Mask
    relabelled: Mask
    before: ResolvedLabels
    after: ResolvedLabels
    publish: Rows
    histories: dict[int, History]
    versions: Rows
    new_labels: int


def fold(
    policy: Policy, entries: LedgerEntries, predicted: Mask, event_time_ms: Rows, labels: LabelSets
) -> LedgerUpdate:
    """Fold a micro-batch that is about n distinct events.

    Parameters
    ----------
    entries : LedgerEntries
        As read from the ledger.
    predicted : bool ndarray of shape (n,)
        Events with a prediction in the micro-batch.
    event_time_ms : int64 ndarray of shape (n,)
        Of those predictions.
    labels : LabelSets
        Statements in the micro-batch, in any order, repeated at will.
    """
    n = len(entries.predicted)
    arrived = predicted & ~entries.predicted
    there = entries.predicted | arrived
    times_ms = np.where(arrived, event_time_ms, entries.event_time_ms)
    union = entries.labels.joined(labels)
    after = LedgerEntries(there, times_ms, union.settled(there, times_ms, policy.horizon_ms))
    versions = after.labels.versions(n)
    counts = after.labels.counts(n)
    relabelled = entries.labels.differs(after.labels, n)
    was = resolve(policy, entries.labels, entries.predicted)
    now = resolve(policy, after.labels, after.predicted)
    # The history of one statement is that statement.
    several = there & (counts > 1) & (relabelled | arrived)
    earlier = histories(policy, entries.labels, np.flatnonzero(several & entries.predicted).tolist())
    histories_now = histories(policy, after.labels, np.flatnonzero(several).tolist())
    publish = now.differs(was)
    for event, history in histories_now.items():
        publish[event] |= history != earlier.get(event, ())
    return LedgerUpdate(
        entries,
        after,
        arrived,
        relabelled,
        was,
        now,
        np.flatnonzero(publish),
        histories_now,
        versions,
        len(union.owners) - len(entries.labels.owners),
    )
