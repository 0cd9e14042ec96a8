"""Batch views in a replay: of a brute-force search, of Feast's historical features, and of what is read live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.batch_history import BatchHistory, BatchTable, open_batch_history
from millstream.adapters.feast.batch_views import BatchViewReader
from millstream.adapters.feast.repo import apply, open_store, quiet_feast
from millstream.app.assembly import assemble
from millstream.app.replaying import History
from millstream.core.batch import Batch
from millstream.core.declaration import BatchView
from millstream.errors import Misconfigured
from millstream.settings import Settings
from repos import CONTRACT, VIEW, repo

NOW_MS = 1_541_030_400_000
TTL_MS = 5_000
UPKEEP = BatchView("upkeep", (("machine_id", "string"),), (("visits", "int64"), ("by", "string")))


def events(*about: tuple[str | None, int]) -> Batch:
    keys = np.array([key or "" for key, _ in about], dtype=object)
    times_ms = np.array([NOW_MS + at for _, at in about], dtype=np.int64)
    nulls = np.array([key is None for key, _ in about], dtype=np.bool_)
    return Batch(len(about), {"machine_id": keys, "read_at_ms": times_ms}, {"machine_id": nulls})


def moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp((NOW_MS + at_ms) / 1000, UTC)


offline = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-10, 10), st.integers(0, 3), st.none() | st.integers(0, 99)),
    max_size=12,
)
asked = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(-12, 12)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(stored=offline, about=asked, ttl_s=st.sampled_from([None, 1, 5]))
def test_each_event_gets_the_newest_row_of_its_entity_within_the_ttl(stored, about, ttl_s):
    rows = pl.DataFrame(
        {
            "machine_id": [key for key, *_ in stored],
            "visits": [value for *_, value in stored],
            "by": [f"n{value}" if value is not None else None for *_, value in stored],
            "timestamp": [moment(1000 * at) for _, at, *_ in stored],
            "created": [moment(1000 * created) for _, _, created, _ in stored],
        },
        {"machine_id": pl.String, "visits": pl.Int64, "by": pl.String, "timestamp": pl.Datetime("us", "UTC"),
         "created": pl.Datetime("ns", "UTC")},
    )  # fmt: skip
    history = BatchHistory([BatchTable(UPKEEP, rows, ttl_s and timedelta(seconds=ttl_s))], "read_at_ms")
    columns, nulls = history(events(*((key, 1000 * at) for key, at in about)))
    for row, (key, at) in enumerate(about):
        fit = [
            (when, created, place, value)
            for place, (of, when, created, value) in enumerate(stored)
            if of == key and when <= at and (ttl_s is None or when >= at - ttl_s)
        ]
        expected = max(fit)[3] if fit else None
        for name, value in (("visits", expected), ("by", None if expected is None else f"n{expected}")):
            null = f"upkeep__{name}" in nulls and nulls[f"upkeep__{name}"][row]
            assert (None if null else columns[f"upkeep__{name}"][row]) == value


BATCH_VIEW = (
    VIEW
    + """
upkeep = FeatureView(
    name="upkeep", entities=[machine], ttl=timedelta(seconds=5),
    source=FileSource(
        name="visits", path=f"{STATE_DIR}/visits.parquet", file_format=ParquetFormat(), timestamp_field="at",
        created_timestamp_column="made", field_mapping={"engineer": "by"},
    ),
    schema=[Field(name="visits", dtype=Int64), Field(name="by", dtype=String), Field(name="cost", dtype=Float32)],
)
"""
)
SERVICE = """
failure = FeatureService(
    name="failure", features=[heat, upkeep],
    tags={"baseline": "CASE WHEN upkeep__visits > 3 THEN 0.75 ELSE 0.25 END", "threshold": "0.7"},
)
"""


def plant(folder: Path, project: str) -> Settings:
    made = repo(folder, view=BATCH_VIEW, service=SERVICE, project=project)
    schemas = folder / "schemas"
    schemas.mkdir()
    (schemas / "readings.avsc").write_text(CONTRACT)
    return Settings(feature_repo=made.feature_repo, state_dir=made.state_dir, schemas_dir=schemas)


def write_visits(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "machine_id": ["press", "press", "press", "lathe"],
            "visits": [2**53 + 1, 4, 9, 7],
            "engineer": ["ann", None, "cem", "é"],
            "cost": [0.5, 1.25, 2.5, None],
            "at": [moment(0), moment(2000), moment(60_000), moment(1000)],
            "made": [moment(0)] * 4,
        }
    ).write_parquet(settings.state_dir / "visits.parquet")


READINGS = [("press", 0), ("press", 1999), ("lathe", 1500), ("press", 2000), ("mill", 2000), ("press", 7000),
            ("press", 7001), ("lathe", 6001)]  # fmt: skip
SERVED = {
    "upkeep__visits": [2**53 + 1, 2**53 + 1, 7, 4, None, 4, None, None],
    "upkeep__by": ["ann", "ann", "é", None, None, None, None, None],
    "upkeep__cost": [0.5, 0.5, None, 1.25, None, 1.25, None, None],
}


def cells(batch: Batch, name: str) -> list[Any]:
    return [None if null else value for null, value in zip(batch.is_null(name), batch.columns[name], strict=True)]


@pytest.mark.redis
def test_a_replay_reads_batch_views_as_feast_would_and_as_they_are_read_live(
    tmp_path: Path, valkey: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plant(tmp_path, "batchreplay")
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(made.state_dir))
    yaml = made.feature_repo / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("OnlineStore\n", f"OnlineStore\n  url: {valkey.redis_url}\n", 1))
    write_visits(made)
    assembly = assemble(made)
    about = events(*READINGS)
    n = about.length
    others = {
        "reading_id": np.array([f"r{i}" for i in range(n)], dtype=object),
        "celsius": np.full(n, 50.0),
        "state": np.full(n, "on", dtype=object),
    }
    given = about.with_columns(others)
    scored = History(assembly).feed(given).scored
    assert {name: cells(scored, name) for name in SERVED} == SERVED
    assert scored.columns["score"].tolist() == [0.75, 0.75, 0.75, 0.75, 0.25, 0.75, 0.25, 0.25]
    apply(made)
    with quiet_feast():
        store = open_store(made)
        frame = pl.DataFrame(
            {"machine_id": about.columns["machine_id"].tolist(), "event_timestamp": [moment(at) for _, at in READINGS]}
        ).to_pandas()
        frame["row"] = range(n)
        features = [f"upkeep:{name.partition('__')[2]}" for name in SERVED]
        job = store.get_historical_features(frame, features, full_feature_names=True)
        by_feast = pl.DataFrame(job.to_arrow()).sort("row")  # not by way of pandas, where whole numbers turn doubles
        for name, expected in SERVED.items():
            assert by_feast[name].to_list() == expected, name
        # Live, what has been materialised by the time of the event is read.
        store.materialize(moment(-1000), moment(3000), ["upkeep"])
    reader = BatchViewReader(assembly.declaration, valkey.redis_url)
    try:
        columns, nulls = reader(about)
    finally:
        reader.close()
        with redis.Redis.from_url(valkey.redis_url) as client:
            for key in client.scan_iter("*batchreplay*"):
                client.delete(key)
    live = Batch(n, columns, nulls)
    rows = [3, 4]  # of the time up to which it was materialised
    for name in SERVED:
        assert [cells(live, name)[row] for row in rows] == [cells(scored, name)[row] for row in rows], name


def test_a_source_that_is_not_there_or_of_another_type_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plant(tmp_path, "batchless")
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(made.state_dir))
    assembly = assemble(made)
    with pytest.raises(
        Misconfigured, match=r"batch view 'upkeep': its source 'visits' cannot be read: .*visits\.parquet"
    ):
        open_batch_history(made, assembly.declaration, "read_at_ms")
    write_visits(made)
    path = made.state_dir / "visits.parquet"
    pl.read_parquet(path).with_columns(visits=pl.lit("many")).write_parquet(path)
    with pytest.raises(Misconfigured, match="batch view 'upkeep': its source does not hold what is declared"):
        open_batch_history(made, assembly.declaration, "read_at_ms")
