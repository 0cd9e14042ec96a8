"""The offline log: what was served, as Feast's offline store reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millstream.adapters.feast.offline_log import OfflineLog, view_schema, view_table
from millstream.adapters.feast.repo import apply, load_declaration, open_store, quiet_feast
from millstream.core.batch import Batch
from millstream.core.declaration import Aggregate, View
from repos import repo

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEW = View(
    "heat",
    "machine",
    "machine_id",
    "string",
    "readings",
    "read_at_ms",
    0,
    (
        Aggregate("hottest_1h", "float32", "celsius", "max", 3_600_000),
        Aggregate("mean_celsius_86400s", "float64", "celsius", "mean", 86_400_000),
    ),
)
COUNTS = View("counts", "site", "site_id", "int64", "t", "ms", 0, (Aggregate("n", "int64", "x", "count", 1000),))


def micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def served(*rows: tuple[str, datetime, float]) -> Batch:
    """Return rows of (machine, feature time, mean) as ``scored`` carries them."""
    means = np.array([row[2] for row in rows])
    return Batch(
        len(rows),
        {
            "machine_id": np.array([row[0] for row in rows], dtype=object),
            "heat__hottest_1h": means + 1,
            "heat__mean_celsius_86400s": means,
            "machine__feature_time_us": np.array([micros(row[1]) for row in rows]),
            "score": np.zeros(len(rows)),
        },
        {"heat__mean_celsius_86400s": np.isnan(means)},
    )


def test_rows_are_kept_as_served_and_to_the_microsecond() -> None:
    time = MIDNIGHT + timedelta(microseconds=123_457)
    table = view_table(VIEW, served(("a", time, 2.5), ("b", time, float("nan"))), micros(time) + 1)
    assert table.schema == view_schema(VIEW)
    created = time + timedelta(microseconds=1)
    first = {"machine_id": "a", "hottest_1h": 3.5, "mean_celsius_86400s": 2.5}
    assert table.to_pylist()[0] == {**first, "event_timestamp": time, "created": created}
    assert table["mean_celsius_86400s"].to_pylist() == [2.5, None]


def test_whole_numbers_stay_whole_under_nulls() -> None:
    columns = {
        "site_id": np.array([1, 2]),
        "counts__n": np.array([2**53 + 1, 0]),
        "site__feature_time_us": np.array([1, 2]),
    }
    table = view_table(COUNTS, Batch(2, columns, {"counts__n": np.array([False, True])}), 3)
    assert table["n"].to_pylist() == [2**53 + 1, None]


def test_each_day_has_files_of_its_own_that_appear_whole_and_only_once(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    table = view_table(VIEW, served(("a", MIDNIGHT - HOUR, 1.0), ("a", MIDNIGHT, 2.0), ("b", MIDNIGHT, 3.0)), 0)
    paths = log.append(VIEW, table, "scored-0-0-2")
    assert log.append(VIEW, table, "scored-0-0-2") == paths
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "offline/heat/date=2026-03-01/scored-0-0-2.parquet",
        "offline/heat/date=2026-03-02/scored-0-0-2.parquet",
    ]
    assert [pq.ParquetFile(path).metadata.num_rows for path in paths] == [1, 2]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == paths


def test_a_file_that_cannot_be_finished_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(table: pa.Table, path: Path, **_options: object) -> None:
        path.write_bytes(b"PAR1")
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="no space"):
        OfflineLog(tmp_path).append(VIEW, view_table(VIEW, served(("a", MIDNIGHT, 1.0)), 0), "x")
    assert list(tmp_path.rglob("*.parquet")) == []


def test_rows_of_another_view_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="counts"):
        OfflineLog(tmp_path).append(COUNTS, view_table(VIEW, served(("a", MIDNIGHT, 1.0)), 0), "x")


def test_feasts_point_in_time_join_finds_what_serving_saw(tmp_path: Path) -> None:
    settings = repo(tmp_path)
    assert load_declaration(settings).views[0].aggregates == VIEW.aggregates
    apply(settings)
    log = OfflineLog(settings.state_dir)
    log.append(VIEW, view_table(VIEW, served(("a", MIDNIGHT - HOUR, 10.0)), micros(MIDNIGHT - HOUR)), "first")
    # Happened before the question below, could be read only after it.
    log.append(VIEW, view_table(VIEW, served(("a", MIDNIGHT, 20.0)), micros(MIDNIGHT + 3 * HOUR)), "second")
    questions = pd.DataFrame(
        {
            "machine_id": ["a", "a", "a", "a", "b"],
            "event_timestamp": [
                MIDNIGHT - 2 * HOUR,
                MIDNIGHT - HOUR,
                MIDNIGHT + HOUR,
                MIDNIGHT + 72 * HOUR,
                MIDNIGHT,
            ],
        }
    )

    def answers(**options: bool) -> list[float | None]:
        with quiet_feast():
            store = open_store(settings)
            frame = store.get_historical_features(questions, ["heat:mean_celsius_86400s"], **options).to_df()
        found = frame.sort_values(["machine_id", "event_timestamp"])["mean_celsius_86400s"]
        return [None if np.isnan(value) else value for value in found.tolist()]

    assert answers() == [None, 10.0, 20.0, None, None]
    assert answers(filter_by_created_timestamp=True) == [None, 10.0, 10.0, None, None]
