"""Label-derived features of one entity: aggregates of labels, as of the time of the event that looks them up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Array, Batch, Rejection, Rows
from millstream.core.identity import id_hashes
from millstream.core.windows.label_store import LabelStore, Statements, merged, representable
from millstream.core.windows.state import Results
from millstream.core.windows.store import DUPLICATE, LATE, WindowStore
from millstream.ports import ViewRows
from millstream.runtime.flow import Flow
from millstream.stages.featurize.columns import FeatureColumns, view_rows
from millstream.topology import LABEL, LABEL_TIME, REVISION, LabelPlan


@dataclass(frozen=True, slots=True)
class LabelLookup:
    """Events of one partition that look up label-derived features.

    Parameters
    ----------
    keys : ndarray of shape (n,)
        Entity keys.
    times_ms : int64 ndarray of shape (n,)
        Event times; in order of arrival.
    oldest_ms : int64 ndarray of shape (n,)
        The time that no later event of the same key lies before; see `UpdateResult`.
    """

    keys: Array
    times_ms: Rows
    oldest_ms: Rows


class LabelFeatures:
    """Windows over the labels of one entity.

    Parameters
    ----------
    plan : LabelPlan
        The entity's views and what they read.
    event_id : str
        Column with the id of the event that a label is of.
    events : WindowStore
        An empty one, of the entity's views over events: how late those may be is how long labels are kept.

    Attributes
    ----------
    stores : dict of int to LabelStore
        By partition.
    features : FeatureColumns
        Of the entity's views over labels.
    nothing : Batch
        No statements.
    """

    def __init__(self, plan: LabelPlan, event_id: str, events: WindowStore) -> None:
        self.plan = plan
        self._event_id = event_id
        self._lateness_ms = events.lateness_ms
        self._empty = self.new_store()
        self._longest_ms = self._empty.longest_ms
        self.features = FeatureColumns(plan.views)
        self.stores: dict[int, LabelStore] = {}
        self.nothing = RecordReader(plan.schema, lambda _id: None).decode([], 0).batch

    def new_results(self, rows: int) -> Results:
        """Return label features for so many rows, null throughout."""
        return self._empty.new_results(rows)

    def new_store(self) -> LabelStore:
        """Return an empty store for one partition."""
        return LabelStore(self.plan.views, self._lateness_ms)

    def store(self, partition: int) -> LabelStore:
        """Return a partition's store, an empty one if there is none yet."""
        if partition not in self.stores:
            self.stores[partition] = self.new_store()
        return self.stores[partition]

    def fold(
        self, partition: int, events: WindowStore, lookup: LabelLookup, labels: Batch
    ) -> tuple[NDArray[np.int8], Results, Array]:
        """Merge events and labels by timestamp: fold labels, answer events.

        Parameters
        ----------
        events : WindowStore
            Of the same partition, with these events folded.
        labels : Batch
            Rows of ``plan.schema``, in order of arrival.

        Returns
        -------
        status : int8 ndarray of shape (labels.length,)
            As `LabelStore.follow` has it.
        results : Results
            Features of each event.
        touched : ndarray
            Keys whose labels changed.
        """
        store = self.store(partition)
        keys, known_at_ms = labels.columns[self.plan.key_column], labels.columns[LABEL_TIME]
        statements = Statements(
            keys,
            known_at_ms,
            id_hashes(labels.columns[self._event_id]),
            labels.columns[REVISION],
            store.layout.words(labels, gone=labels.is_null(LABEL)),
            events.newest(keys)[1] + 1,
        )
        ahead = merged(lookup.times_ms, known_at_ms)
        status, results = store.follow(
            statements, lookup.keys, lookup.times_ms, lookup.oldest_ms, ahead, self._reach(events)
        )
        return status, results, store.keys_of(store.touched())

    def expire(self, partition: int, events: WindowStore) -> None:
        """Drop what no event can look up any more."""
        self.store(partition).expire(self._reach(events))

    def _reach(self, events: WindowStore) -> int:
        """Return the time which no event accepted from now on looks back to."""
        return events.watermark_ms - self._longest_ms

    def online(self, partition: int, events: WindowStore, keys: Array) -> Iterable[ViewRows]:
        """Return the rows of these keys, one `ViewRows` per view that is online.

        A row is as of the key's newest event or label, whichever is later. It changes with either, so its feature
        time is the later of both, too; see `LabelStore` for why that always grows.
        """
        if not len(keys) or not any(view.online for view in self.plan.views):
            return
        store = self.store(partition)
        (event_ms, event_us), (label_ms, label_us) = events.newest(keys), store.newest(keys)
        results = store.answer(keys, np.maximum(event_ms, label_ms))
        yield from view_rows(self.plan.views, keys, results, np.maximum(event_us, label_us))

    def storable(self, labels: Flow) -> Flow:
        """Reject what the windows cannot hold: no entity, no event id, or a number beyond exact sums."""
        batch = labels.batch
        good = np.ones(batch.length, dtype=np.bool_)
        rejections: list[Rejection] = []
        for name in {self.plan.key_column, self._event_id} & set(batch.nulls):
            for row in np.flatnonzero(batch.nulls[name] & good).tolist():
                rejections.append(Rejection(row, "null-key", name, f"{name} is null, but labels are kept per {name}"))
            good &= ~batch.nulls[name]
        for name in {each.column for view in self.plan.views for each in view.aggregates}:
            if batch.columns[name].dtype != np.float64:
                continue
            beyond = ~representable(batch.as_floats(name)) & good
            for row in np.flatnonzero(beyond).tolist():
                rejections.append(
                    Rejection(row, "range", name, f"{name} is beyond 2^90 in size and cannot be summed exactly")
                )
            good &= ~beyond
        return labels.keep(good, rejections)


def count_labels(labels: Flow, status: NDArray[np.int8]) -> Flow:
    """Return the flow of labels after the windows: no rows, and the counts of duplicates and late labels."""
    none = np.zeros(labels.batch.length, dtype=np.bool_)
    return labels.keep(none, duplicates=int((status == DUPLICATE).sum()), late=int((status == LATE).sum()))
