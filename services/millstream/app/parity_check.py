"""Parity: what was served, held against what Feast gives for the same events and keys, exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.feast.offline_log import EVENT_TIME, view_table, with_entity
from millstream.adapters.feast.repo import open_store, quiet_feast
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.app.assembly import Assembly
from millstream.app.feature_log import group_of
from millstream.app.newest import newest, partitions_of
from millstream.app.parity_result import Parity, compare
from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch, Mask
from millstream.core.declaration import OnDemandView, View
from millstream.errors import Misconfigured, Retry
from millstream.runtime.log.kafka_reader import KafkaReader
from millstream.topology import SCORED

if TYPE_CHECKING:
    from feast import FeatureStore

_MAX_RECORD_BYTES = 1 << 30
_KEYS_PER_READ = 500
_LAG_TRIES = 4
_LAG_S = 0.5
_ROW = "millstream_row"


def check_parity(assembly: Assembly, sample: int, say: Callable[[str], None]) -> Parity:
    """Compare the newest scored events with Feast's point-in-time join and with its online rows.

    Each event is asked for at its own feature time, so that its own row in the offline log is the newest one that
    Feast may use; features that are joined from another row or at another time differ from what was served.

    Parameters
    ----------
    sample : int
        How many events, >= 1.
    say : callable
        Told what is being done.

    Raises
    ------
    Misconfigured
        Nothing was scored yet, the offline log is empty, or the feature repo is not applied; says what to do.
    Retry, Stop
        A server cannot be reached.
    """
    endpoints = resolve(assembly.settings, assembly.declaration.needs_online_store)
    say("opening Feast")
    with quiet_feast():
        store = open_store(assembly.settings)
    say(f"reading {SCORED}")
    resolver = schema_resolver(assembly.settings, endpoints.kafka, assembly.schemas)
    reader = RecordReader(assembly.topology.stages[-1].output_schema, resolver)
    fresh = newest(endpoints.kafka, SCORED, sample)
    if not fresh:
        raise Misconfigured(f"nothing was scored yet: {SCORED} has no records; start the stages with `millstream run`")
    ends = _logged(assembly, endpoints.kafka)
    found = Parity(unlogged=sum((record.offset() or 0) >= ends.get(partition, 0) for partition, record in fresh))
    say("comparing with the online store")
    _online(assembly, store, _decoded(reader, fresh), found)
    say("reading the events that the offline log holds")
    logged = newest(endpoints.kafka, SCORED, sample, ends) if found.unlogged else fresh
    _need_log(assembly, logged)
    say("recomputing with Feast's point-in-time join")
    _historical(assembly, store, _decoded(reader, logged), found)
    return found


def _logged(assembly: Assembly, kafka: dict[str, str]) -> dict[int, int]:
    """Return, by partition, the offset up to which the offline log holds what was scored."""
    reader = KafkaReader(kafka, group_of(assembly.topology.project))
    try:
        held = reader.committed(SCORED, range(partitions_of(kafka, SCORED)))
    finally:
        reader.close()
    return {partition: offset for partition, offset in held.items() if offset is not None}


def _need_log(assembly: Assembly, logged: Sequence[Any]) -> None:
    root = assembly.settings.state_dir.resolve() / "offline"
    empty = [view.name for view in assembly.declaration.views if not any((root / view.name).glob("*/*.parquet"))]
    if empty or not logged:
        what = f"the offline log in {root} holds nothing" + (f" of {', '.join(empty)}" if empty else " that was scored")
        raise Misconfigured(
            f"{what}, so there is nothing to recompute from; fill it with `millstream features log --until-end`, "
            "or keep it filled with `millstream features log`"
        )


def _decoded(reader: RecordReader, records: Sequence[tuple[int, Any]]) -> Batch:
    return reader.decode([record.value() for _, record in records], _MAX_RECORD_BYTES).batch


# ---- against the point-in-time join


def _historical(assembly: Assembly, store: FeatureStore, scored: Batch, found: Parity) -> None:
    """Recompute each view, one at a time: each entity has feature times of its own."""
    found.events = scored.length
    event_id = assembly.contract.event_id
    fields = {each.name for each in assembly.contract.schema.fields}
    plain = [each for each in assembly.declaration.on_demand if set(each.inputs) <= fields]
    found.left_out += [
        f"{each.name} (computed from features of several times)"
        for each in assembly.declaration.on_demand
        if each not in plain
    ]
    found.left_out += [f"{each.name} (materialised by somebody else)" for each in assembly.declaration.batch]

    def name(row: int) -> str:
        return f"{event_id}={served.columns[event_id][row]}"

    for position, view in enumerate(assembly.declaration.views):
        # What needs the event's own fields only is the same at every view's time: once is enough.
        along = plain if position == 0 else []
        served = with_entity(view, scored)
        if not served.length:
            continue
        given = _joined(store, view, along, served)
        table = view_table(view, served, 0)
        for each, column in zip(view.aggregates, view.columns, strict=True):
            found.historical.append(compare(column, table[each.feature], _typed(given[column], table, each), name))
        for on_demand in along:
            for output, _ in on_demand.outputs:
                column = f"{on_demand.name}__{output}"
                ours = pa.array(served.columns[column], mask=served.is_null(column))
                found.historical.append(compare(column, ours, given[column].combine_chunks().cast(ours.type), name))


def _joined(store: FeatureStore, view: View, along: Sequence[OnDemandView], served: Batch) -> pa.Table:
    """Return Feast's answer for each event of the sample, in the sample's order."""
    import pandas as pd

    times = view_table(view, served, 0)[EVENT_TIME].to_pandas()
    inputs = {column: served.columns[column] for each in along for column in each.inputs}
    asked = pd.DataFrame({**inputs, view.join_key: served.columns[view.join_key], EVENT_TIME: times})
    asked[_ROW] = np.arange(served.length)
    features = [f"{view.name}:{each.feature}" for each in view.aggregates]
    features += [f"{each.name}:{name}" for each in along for name, _ in each.outputs]
    with quiet_feast():
        from feast.errors import FeatureViewNotFoundException

        try:
            job = store.get_historical_features(asked, features, full_feature_names=True)
        except FeatureViewNotFoundException as error:
            raise Misconfigured(f"{error}; run `millstream features apply`") from error
        return job.to_arrow().sort_by(_ROW)


def _typed(given: pa.ChunkedArray, table: pa.Table, aggregate: Any) -> pa.Array:
    return given.combine_chunks().cast(table.schema.field(aggregate.feature).type)


# ---- against the online store


def _online(assembly: Assembly, store: FeatureStore, scored: Batch, found: Parity) -> None:
    for view in filter(lambda each: each.online, assembly.declaration.views):
        served = with_entity(view, scored)
        if not served.length:
            continue
        rows = _newest_rows(view, served)
        times_us = served.columns[f"{view.entity}__feature_time_us"][rows]
        # A row's time is a little after its event's where another came first; by a millisecond only if that was newer.
        in_order = times_us // 1000 == served.columns[assembly.contract.event_time][rows]
        found.disordered += int(np.count_nonzero(~in_order))
        latest = served.take(rows[in_order])
        given, given_us = _read_online(store, view, latest)
        wanted_us = latest.columns[f"{view.entity}__feature_time_us"]
        ahead: Mask = given_us > wanted_us
        found.ahead += int(np.count_nonzero(ahead))
        found.behind += int(np.count_nonzero(given_us < wanted_us))
        kept = np.flatnonzero(~ahead)
        table = view_table(view, latest.take(kept), 0)
        keys = latest.columns[view.join_key][kept]

        def name(row: int, key: str = view.join_key, keys: Any = keys) -> str:
            return f"{key}={keys[row]}"

        for each, column in zip(view.aggregates, view.columns, strict=True):
            ours = table[each.feature].combine_chunks()
            theirs = pa.array([given[column][row] for row in kept], type=ours.type)
            found.online.append(compare(column, ours, theirs, name))


def _newest_rows(view: View, served: Batch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the position of each key's row with the largest feature time."""
    times_us = served.columns[f"{view.entity}__feature_time_us"]
    order = np.argsort(times_us, kind="stable")
    last = dict(zip(served.columns[view.join_key][order].tolist(), order.tolist(), strict=True))
    return np.array(sorted(last.values()), dtype=np.int64)


def _read_online(
    store: FeatureStore, view: View, latest: Batch
) -> tuple[dict[str, list[Any]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the online rows' features and feature times (us, 0 where there is none), as any Feast client gets them.

    The view is written behind the commit: a row that is not there yet is asked for again, for a moment.
    """
    for attempt in range(_LAG_TRIES):
        values: dict[str, list[Any]] = {column: [] for column in view.columns}
        times_us: list[int] = []
        keys = latest.columns[view.join_key].tolist()
        for first in range(0, len(keys), _KEYS_PER_READ):
            rows = [{view.join_key: key} for key in keys[first : first + _KEYS_PER_READ]]
            answer = _ask(store, [f"{view.name}:{each.feature}" for each in view.aggregates], rows)
            told = answer.to_dict()
            for column in view.columns:
                values[column] += told[column]
            place = list(answer.proto.metadata.feature_names.val).index(view.columns[0])
            stamps = answer.proto.results[place].event_timestamps
            times_us += [each.seconds * 1_000_000 + each.nanos // 1000 for each in stamps]
        found_us = np.array(times_us, dtype=np.int64)
        if attempt + 1 == _LAG_TRIES or not (found_us < latest.columns[f"{view.entity}__feature_time_us"]).any():
            break
        time.sleep(_LAG_S)
    return values, found_us


def _ask(store: FeatureStore, features: list[str], rows: list[dict[str, Any]]) -> Any:
    with quiet_feast():
        from feast.errors import FeatureViewNotFoundException
        from redis import RedisError

        try:
            return store.get_online_features(features, rows, full_feature_names=True)
        except FeatureViewNotFoundException as error:
            raise Misconfigured(f"{error}; run `millstream features apply`") from error
        except RedisError as error:
            raise Retry(f"the online store cannot be reached: {error}; see `millstream doctor`") from error
