"""Windows over the published data set against DuckDB, and under disorder against themselves."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from millstream.core.declaration import Aggregate, View
from millstream.core.simulation.simulate import Simulation, simulate
from millstream.core.windows.store import OK, WindowStore

DAY_MS = 86_400_000
WINDOWS_DAYS = (1, 7, 30)
BATCH = 5000
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "transactions.parquet"


@pytest.fixture(scope="module")
def payments() -> pl.DataFrame:
    """The published rows in published order; drawn anew, which gives the same rows, where the file is absent."""
    if PUBLISHED.exists():
        frame = pl.read_parquet(PUBLISHED)
        time_ms = pl.col("event_time").dt.epoch("ms").alias("event_time_ms")
    else:
        frame = pl.DataFrame(dict(simulate(Simulation()).columns))
        time_ms = pl.col("event_time_ms")
    ids = [pl.col(name).cast(pl.Int64) for name in ("transaction_id", "customer_id", "terminal_id")]
    frame = frame.select(*ids, time_ms, "amount")
    assert len(frame) == 1_754_155
    assert frame["event_time_ms"].is_sorted()
    return frame


def new_store(key: str) -> WindowStore:
    made = tuple(
        Aggregate(f"{f}_{days}d", "float64", "amount", f, days * DAY_MS)
        for days in WINDOWS_DAYS
        for f in ("count", "mean")
    )
    return WindowStore((View("v", key, key, "int64", "transactions", "event_time_ms", 3_600_000, made),))


def run(store: WindowStore, payments: pl.DataFrame, key: str) -> np.ndarray:
    names = (key, "event_time_ms", "transaction_id", "amount")
    keys, times_ms, ids, amounts = (payments[name].to_numpy() for name in names)
    features = np.empty((len(keys), len(store.features)))
    for a in range(0, len(keys), BATCH):
        rows = slice(a, a + BATCH)
        updated = store.update(keys[rows], times_ms[rows], ids[rows], amounts[rows, None])
        assert (updated.status == OK).all()
        features[rows] = updated.features
        if a % (100 * BATCH) == 0:
            store.expire()
    return features


def recomputed(payments: pl.DataFrame, key: str) -> np.ndarray:
    """Return the same features by SQL.

    The stream sees rows of one time in row order, so they are ordered by time and row in one integer, and a window
    reaches back over whole milliseconds: past this row's number and all but one of the window's.
    """
    rows = payments.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    shift = 1 << 21
    over = [
        f"w{d} AS (PARTITION BY {key} ORDER BY event_time_ms * {shift} + row "
        f"RANGE BETWEEN (row + {(d * DAY_MS - 1) * shift}) PRECEDING AND CURRENT ROW)"
        for d in WINDOWS_DAYS
    ]
    asked = ", ".join(f"count(*) OVER w{d} AS count_{d}, avg(amount) OVER w{d} AS mean_{d}" for d in WINDOWS_DAYS)
    with duckdb.connect() as connection:
        connection.register("rows", rows.to_arrow())
        found = connection.sql(f"SELECT row, {asked} FROM rows WINDOW {', '.join(over)} ORDER BY row").fetchnumpy()
    return np.column_stack([found[f"{f}_{d}"].astype(np.float64) for d in WINDOWS_DAYS for f in ("count", "mean")])


@pytest.mark.parametrize("key", ["customer_id", "terminal_id"])
def test_every_row_equals_sql(payments: pl.DataFrame, key: str) -> None:
    found, wanted = run(new_store(key), payments, key), recomputed(payments, key)
    mismatches = np.abs(found - wanted) > 1e-9
    assert mismatches.sum(axis=0).tolist() == [0] * 6
    assert found[:, ::2].max() > 50


def test_disorder_within_the_lateness_leaves_no_trace(payments: pl.DataFrame) -> None:
    delays_ms = np.random.default_rng(7).integers(0, 1_800_000, len(payments))
    arrival = np.argsort(payments["event_time_ms"].to_numpy() + delays_ms, kind="stable")
    in_order, disordered = new_store("customer_id"), new_store("customer_id")
    run(in_order, payments, "customer_id")
    run(disordered, payments[arrival], "customer_id")
    tables = []
    for store in (in_order, disordered):
        keys, results, _ = store.online(store.all_slots())
        features = results.reals
        tables.append(features[np.argsort(keys)].tobytes())
    assert tables[0] == tables[1]
    rows = (dict(in_order.dirty_rows()), dict(disordered.dirty_rows()))
    assert rows[0].keys() == rows[1].keys()
