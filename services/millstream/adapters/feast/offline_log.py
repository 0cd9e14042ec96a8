"""The offline log of served features: rolling Parquet below ``{state_dir}/offline/{view}/``, Feast's batch source.

Files hold the join key, the features, ``event_timestamp`` (the row's feature time) and ``created`` (when it could be
read first), in microseconds: Feast's point-in-time join with ``filter_by_created_timestamp`` then sees what serving
saw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from millstream.core.batch import Batch, Rows
from millstream.core.declaration import FeatureType, View

EVENT_TIME, CREATED = "event_timestamp", "created"
_TIME = pa.timestamp("us", tz="UTC")
_TYPES: dict[FeatureType, pa.DataType] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "unix_timestamp": pa.timestamp("s", tz="UTC"),
}


def view_schema(view: View) -> pa.Schema:
    """Return the columns of a view's files."""
    key = pa.int64() if view.key_type == "int64" else pa.string()
    features = [pa.field(each.feature, _TYPES[each.dtype]) for each in view.aggregates]
    return pa.schema([pa.field(view.join_key, key), *features, pa.field(EVENT_TIME, _TIME), pa.field(CREATED, _TIME)])


def view_table(view: View, served: Batch, created_us: int | Rows) -> pa.Table:
    """Return a view's rows as they were served.

    Parameters
    ----------
    served : Batch
        Rows of ``scored``: the join key, ``{view}__{feature}`` columns and ``{entity}__feature_time_us``.
    created_us : int or int64 ndarray of shape (served.length,)
        Microseconds since the epoch at which they could be read.
    """
    sources = {
        view.join_key: view.join_key,
        **dict(zip((each.feature for each in view.aggregates), view.columns, strict=True)),
        EVENT_TIME: f"{view.entity}__feature_time_us",
    }
    arrays = []
    for field in view_schema(view):
        if field.name == CREATED:
            arrays.append(pa.array(np.full(served.length, created_us), type=pa.int64()).cast(field.type))
            continue
        column = sources[field.name]
        made = pa.array(served.columns[column], mask=served.nulls.get(column), from_pandas=True)
        arrays.append(made.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=view_schema(view))


def with_entity(view: View, served: Batch) -> Batch:
    """Return the rows of ``scored`` that have the view's entity; the others have no row of the view."""
    missing = served.nulls.get(view.join_key)
    return served if missing is None or not missing.any() else served.take(~missing)


class OfflineLog:
    """The files of all views.

    Parameters
    ----------
    state_dir : Path
        The state directory.
    """

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir.resolve() / "offline"

    def append(self, view: View, table: pa.Table, name: str) -> list[Path]:
        """Write rows as one file per day of their event time; each appears whole or not at all.

        Parameters
        ----------
        table : pyarrow.Table
            As `view_table` makes them.
        name : str
            Of the rows, e.g. topic, partition and offsets they come from: appending the same ones again replaces
            the file instead of doubling rows.

        Raises
        ------
        ValueError
            The table's columns are not those of `view_schema`.
        """
        if table.schema != view_schema(view):
            raise ValueError(f"rows of {view.name} need the columns {view_schema(view)}, not {table.schema}")
        days = pc.strftime(table[EVENT_TIME], format="%Y-%m-%d")
        written = []
        for day in pc.unique(days).to_pylist():
            folder = self._root / view.name / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.parquet"
            part = folder / f".{name}.part"  # outside of every reader's glob
            pq.write_table(table.filter(pc.equal(days, day)), part, compression="zstd")
            part.replace(path)
            written.append(path)
        return written

    def remove(self, prefix: str, first: int) -> int:
        """Remove, of every view, the files named ``{prefix}{number}-...`` with a number from ``first`` on.

        Returns
        -------
        int
            How many there were.
        """
        removed = 0
        for path in self._root.glob(f"*/date=*/{prefix}*.parquet"):
            if int(path.name.removeprefix(prefix).partition("-")[0]) >= first:
                path.unlink()
                removed += 1
        return removed
