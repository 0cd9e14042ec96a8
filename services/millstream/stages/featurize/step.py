"""Windowed features of one entity: folds a micro-batch into its window stores, by partition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Batch, Rejection, Rows
from millstream.core.declaration import View
from millstream.core.identity import id_hashes
from millstream.core.ledger.label_sets import LATEST_MS
from millstream.core.requirements import EARLIEST_MS
from millstream.core.windows.state import Results
from millstream.core.windows.store import DUPLICATE, LATE, OK, Sources, Upstream, WindowStore, representable
from millstream.ports import ViewRows
from millstream.runtime.flow import Flow
from millstream.stages.featurize.columns import FeatureColumns, view_rows
from millstream.stages.featurize.labels import LabelFeatures, LabelLookup, count_labels
from millstream.topology import LabelPlan


class Featurize:
    """Exact windows of one entity.

    Parameters
    ----------
    views : sequence of View
        All views of the entity.
    event_id : str
        Column that identifies duplicates.
    time_column : str
        Event time, milliseconds since the epoch.
    feature_time_column : str
        Column to add: the entity's feature timestamp, microseconds.
    late_policy : str
        ``dead_letter`` rejects late events, ``count`` only counts them.
    labels : LabelPlan, optional
        The entity's views over labels.
    upstream : Upstream, optional
        Of a later stage: where its events come from.
    source_key : str
        Column that keys the event topic; a later stage needs it.
    """

    def __init__(
        self,
        views: Sequence[View],
        event_id: str,
        time_column: str,
        feature_time_column: str,
        late_policy: str,
        labels: LabelPlan | None = None,
        upstream: Upstream | None = None,
        source_key: str = "",
    ) -> None:
        self._views = tuple(views)
        self._upstream = upstream
        self._source_key = source_key
        self._join_key = views[0].join_key
        self._event_id = event_id
        self._time_column = time_column
        self._feature_time_column = feature_time_column
        self._late_policy = late_policy
        self.stores: dict[int, WindowStore] = {}
        self._empty = self.new_store()
        self.labels = LabelFeatures(labels, event_id, self._empty) if labels is not None else None
        self._features = FeatureColumns(self._views)

    def new_store(self) -> WindowStore:
        """Return an empty store for one partition."""
        return WindowStore(self._views, self._upstream)

    def drop(self, partition: int) -> None:
        """Forget a partition; it may not be here."""
        self.stores.pop(partition, None)
        if self.labels is not None:
            self.labels.stores.pop(partition, None)

    def merge(self, flow: Flow, labels: Flow) -> tuple[Flow, Flow, list[ViewRows]]:
        """Fold events and labels, merged in order of time.

        Parameters
        ----------
        flow : Flow
            Events.
        labels : Flow
            Rows of the label plan's schema.

        Returns
        -------
        flow : Flow
            With features added.
        labels : Flow
            Without rows: labels end here.
        view_rows : list of ViewRows
            The newest rows of the keys that either touched.
        """
        if self.labels is None:
            raise ValueError("labels cannot be merged where no view is declared over them")
        labels = self.labels.storable(labels)
        flow, label_status, view_rows = self._fold(flow, labels.batch, labels.partitions)
        return flow, count_labels(labels, label_status), view_rows

    def __call__(self, flow: Flow) -> tuple[Flow, list[ViewRows]]:
        """Return the flow with features added, and the newest rows of the keys it touched."""
        flow, _, view_rows = self._fold(flow, None, np.zeros(0, dtype=np.int64))
        return flow, view_rows

    def _fold(
        self, flow: Flow, labels: Batch | None, label_partitions: Rows
    ) -> tuple[Flow, NDArray[np.int8], list[ViewRows]]:
        flow = self._storable(flow)
        batch = flow.batch
        n = batch.length
        status = np.zeros(n, dtype=np.int8)
        results = self._empty.new_results(n)
        about_labels = self.labels.new_results(n) if self.labels is not None else None
        feature_time_us = np.zeros(n, dtype=np.int64)
        offered: list[ViewRows] = []
        keys, times_ms = batch.columns[self._join_key], batch.columns[self._time_column]
        ids = id_hashes(batch.columns[self._event_id])
        partitions, keyed = flow.partitions, ~batch.is_null(self._join_key)
        label_status = np.zeros(len(label_partitions), dtype=np.int8)
        for partition in np.unique(np.concatenate([partitions, label_partitions])).tolist():
            store = self.stores[partition]
            rows = np.flatnonzero((partitions == partition) & keyed)
            words = store.layout.words(batch, rows)
            updated = store.update(keys[rows], times_ms[rows], ids[rows], words, *self._sources(batch, rows))
            status[rows] = updated.status
            results.put(rows, updated.results)
            feature_time_us[rows] = updated.feature_time_us
            slots = store.touched()
            offered += self.online(store, slots)
            if self.labels is not None and about_labels is not None:
                answered = updated.status == OK
                looking_up = rows[answered]
                about = np.flatnonzero(label_partitions == partition)
                label_status[about], answers, changed = self.labels.fold(
                    partition,
                    store,
                    LabelLookup(keys[looking_up], times_ms[looking_up], updated.oldest_ms[answered]),
                    labels.take(about) if labels is not None else self.labels.nothing,
                )
                about_labels.put(looking_up, answers)
                touched = np.union1d(store.keys_of(slots), changed)
                offered += self.labels.online(partition, store, touched)
        found = [(self._features, results)]
        if self.labels is not None and about_labels is not None:
            found.append((self.labels.features, about_labels))
        flow = self._with_features(flow, found, feature_time_us)
        return self._turn_away(flow, status), label_status, offered

    def online(self, store: WindowStore, slots: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterable[ViewRows]:
        """Return the newest rows of these slots, one `ViewRows` per view that is online."""
        if len(slots) and any(view.online for view in self._views):
            yield from view_rows(self._views, *store.online(slots))

    def _sources(self, batch: Batch, rows: Rows) -> tuple[Sources, ...]:
        if self._upstream is None:
            return ()
        partitions = batch.columns["source_partition"][rows].astype(np.int64, copy=False)
        return (Sources(partitions, id_hashes(batch.columns[self._source_key][rows])),)

    def _storable(self, flow: Flow) -> Flow:
        """Turn away rows the windows cannot hold: no id, no time, a number beyond exact sums, or no entity.

        Unless its views say otherwise, an event without the entity goes on with null features.
        """
        batch = flow.batch
        good = np.ones(batch.length, dtype=np.bool_)
        rejections: list[Rejection] = []

        def refuse(mask: np.ndarray, reason: str, field: str, detail: str) -> None:
            for row in np.flatnonzero(mask & good).tolist():
                rejections.append(Rejection(row, reason, field, detail))
            good[mask] = False

        needed = [self._event_id, self._time_column]
        if self._views[0].null_key == "dead_letter":
            needed.insert(0, self._join_key)
        for name in needed:
            if name in batch.nulls:
                refuse(batch.nulls[name], "null-key", name, f"{name} is null, but features are kept per {name}")
        times_ms = batch.columns[self._time_column]
        untimely = (times_ms < EARLIEST_MS) | (times_ms > LATEST_MS)
        if untimely.any():
            refuse(untimely, "range", self._time_column, f"{self._time_column} lies outside of the years 1 to 9999")
        for name in {aggregate.column for view in self._views for aggregate in view.aggregates}:
            if batch.columns[name].dtype == np.float64:
                beyond = ~representable(batch.as_floats(name))
                if beyond.any():
                    refuse(beyond, "range", name, f"{name} is beyond 2^90 in size and cannot be summed exactly")
        return flow.keep(good, rejections)

    def _with_features(
        self, flow: Flow, found: Sequence[tuple[FeatureColumns, Results]], feature_time_us: Rows
    ) -> Flow:
        columns: dict[str, Array] = {self._feature_time_column: feature_time_us}
        nulls, counts = {}, dict(flow.counts)
        if self._join_key in flow.batch.nulls:
            nulls[self._feature_time_column] = flow.batch.nulls[self._join_key]
        for features, results in found:
            more, missing = features.columns(results)
            columns.update(more)
            nulls.update(missing)
            counts.update(features.beyond(results.beyond))
        return replace(flow, batch=flow.batch.with_columns(columns, nulls), counts=counts)

    def _turn_away(self, flow: Flow, status: NDArray[np.int8]) -> Flow:
        duplicates, late = status == DUPLICATE, status == LATE
        rejections = []
        if self._late_policy == "dead_letter":
            # Without the key: it may be personal data, or long.
            times_ms = flow.batch.columns[self._time_column]
            rejections = [
                Rejection(
                    row,
                    "late",
                    self._time_column,
                    f"event time {times_ms[row]} ms is too old: its {self._join_key} has one newer by more than the "
                    "allowed lateness, or two keys of the partition have newer ones by that and the longest window",
                )
                for row in np.flatnonzero(late).tolist()
            ]
        counts = {"duplicates": int(duplicates.sum()), "late": int(late.sum())}
        return flow.keep(status == OK, rejections, **counts)
