"""Batch feature views, materialised by other jobs: point-in-time joins with their offline source.

Live, such a view is read from the online store (`millstream.adapters.feast.batch_views`); a replay of history takes
what Feast's ``get_historical_features`` would: of the entity's rows with a timestamp no later than the event, and no
older than the view's ttl, the newest; of several with one timestamp the one created last. A ttl of 0 does not limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import polars as pl

from millstream.adapters.feast.repo import objects_of, open_store, quiet_feast
from millstream.core.batch import Array, Batch, Mask
from millstream.core.declaration import BatchView, Declaration, FeatureType, KeyType
from millstream.errors import Misconfigured
from millstream.settings import Settings

_DTYPES: Final[dict[FeatureType, Any]] = {
    "int64": pl.Int64,
    "int32": pl.Int64,
    "float64": pl.Float64,
    "float32": pl.Float64,
    "bool": pl.Boolean,
    "string": pl.String,
    "unix_timestamp": pl.Int64,
}
_KEYS: Final[dict[KeyType, Any]] = {"int64": pl.Int64, "string": pl.String}
_AT, _CREATED, _ROW = "\0at_us", "\0created_us", "\0row"


@dataclass(frozen=True, slots=True)
class BatchTable:
    """The offline rows of one view.

    Parameters
    ----------
    view : BatchView
    rows : DataFrame
        Join keys and features under their declared names, and ``timestamp`` and ``created``: Datetime, UTC where it
        has no time zone; ``created`` may be null.
    ttl : timedelta or None
        None does not limit.
    """

    view: BatchView
    rows: pl.DataFrame
    ttl: timedelta | None


class BatchHistory:
    """`millstream.stages.score.step.Carried` on offline rows.

    Parameters
    ----------
    tables : sequence of BatchTable
    event_time : str
        Column of the events, milliseconds since the epoch.

    Raises
    ------
    Misconfigured
        A column is not of its declared type.
    """

    def __init__(self, tables: Sequence[BatchTable], event_time: str) -> None:
        self._event_time = event_time
        self._tables = [(table.view, _sorted(table), _microseconds(table.ttl)) for table in tables]

    def __call__(self, batch: Batch) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Return the views' columns and null masks for these rows."""
        columns: dict[str, Array] = {}
        nulls: dict[str, Mask] = {}
        for view, rows, ttl_us in self._tables:
            found = self._as_of(batch, view, rows, ttl_us)
            for name, dtype in view.features:
                values = found[name]
                column = f"{view.name}__{name}"
                missing = values.is_null().to_numpy()
                if values.dtype == pl.Float64:
                    missing = missing | values.is_nan().fill_null(False).to_numpy()
                if missing.any():
                    nulls[column] = missing
                columns[column] = values.fill_null(
                    "" if dtype == "string" else False if dtype == "bool" else 0
                ).to_numpy()
        return columns, nulls

    def _as_of(self, batch: Batch, view: BatchView, rows: pl.DataFrame, ttl_us: int | None) -> pl.DataFrame:
        keys = [name for name, _ in view.join_keys]
        events = pl.DataFrame(
            [
                *(pl.Series(name, batch.columns[name].tolist(), _KEYS[kind]) for name, kind in view.join_keys),
                pl.Series(_AT, batch.columns[self._event_time] * 1000, pl.Int64),
            ]
        ).with_row_index(_ROW)
        for name in keys:
            events = events.filter(~pl.Series(batch.is_null(name)).gather(events[_ROW]))
        found = events.sort(_AT).join_asof(
            rows, on=_AT, by=keys, strategy="backward", tolerance=ttl_us, check_sortedness=False
        )
        everybody = pl.DataFrame({_ROW: pl.Series(range(batch.length), dtype=pl.UInt32)})
        return everybody.join(found, on=_ROW, how="left", maintain_order="left")


def open_batch_history(settings: Settings, declaration: Declaration, event_time: str) -> BatchHistory | None:
    """Read the offline sources of the batch views; None if none is declared.

    Raises
    ------
    Misconfigured
        Naming the view whose source cannot be read.
    """
    if not declaration.batch:
        return None
    with quiet_feast():
        from feast.feature_view import FeatureView

        declared = {thing.name: thing for thing in objects_of(settings) if isinstance(thing, FeatureView)}
        store = open_store(settings)
        tables = [_read(store, view, declared[view.name]) for view in declaration.batch]
    return BatchHistory(tables, event_time)


def _read(store: Any, view: BatchView, declared: Any) -> BatchTable:
    source = declared.batch_source
    stored = {name: name for name in (*(name for name, _ in view.join_keys), *(name for name, _ in view.features))}
    stored |= {to: of for of, to in source.field_mapping.items() if to in stored}
    timestamp, created = source.timestamp_field, source.created_timestamp_column or None
    keys, features = ([stored[name] for name, _ in part] for part in (view.join_keys, view.features))
    try:
        job = store._get_provider().offline_store.pull_all_from_table_or_query(
            store.config, source, keys, features, timestamp, created
        )
        frame = pl.from_arrow(job.to_arrow())
    except Exception as error:  # the source is the team's own: Feast, DuckDB or a file system may raise
        raise Misconfigured(
            f"batch view {view.name!r}: its source {source.name or source.get_table_query_string()!r} cannot be read: "
            f"{error}. A replay needs it, as the features live come from the online store"
        ) from error
    assert isinstance(frame, pl.DataFrame)
    made = pl.lit(None, pl.Datetime("us")) if created is None else pl.col(created)
    columns = [pl.col(of).alias(name) for name, of in stored.items()]
    rows = frame.select(*columns, pl.col(timestamp).alias("timestamp"), made.alias("created"))
    return BatchTable(view, rows, declared.ttl or None)


def _sorted(table: BatchTable) -> pl.DataFrame:
    view = table.view
    keys = [name for name, _ in view.join_keys]
    kinds = {
        **{name: _KEYS[kind] for name, kind in view.join_keys},
        **{n: _DTYPES[dtype] for n, dtype in view.features},
    }
    try:
        rows = table.rows.select(
            *(_cast(table.rows.schema[name], name, dtype) for name, dtype in kinds.items()),
            pl.col("timestamp").cast(pl.Datetime("us")).dt.epoch("us").alias(_AT),
            pl.col("created").cast(pl.Datetime("us")).dt.epoch("us").alias(_CREATED),
        )
    except pl.exceptions.PolarsError as error:
        raise Misconfigured(f"batch view {view.name!r}: its source does not hold what is declared: {error}") from error
    return (
        rows.drop_nulls([*keys, _AT])
        .sort(_AT, _CREATED, nulls_last=False, maintain_order=True)
        .unique([*keys, _AT], keep="last", maintain_order=True)
        .drop(_CREATED)
    )


def _cast(found: pl.DataType, name: str, dtype: Any) -> pl.Expr:
    if isinstance(found, pl.Datetime):  # Feast keeps times as whole seconds
        return pl.col(name).cast(pl.Datetime("us")).dt.epoch("s").alias(name)
    return pl.col(name).cast(dtype)


def _microseconds(ttl: timedelta | None) -> int | None:
    return None if not ttl else ttl // timedelta(microseconds=1)
