"""Our rows are Feast's rows: the same bytes, read by Feast's own client, safe from its jobs and from its deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.feast.codec_check import difference, feast_fallback, feast_rows, sample_rows, written_by_feast
from millstream.adapters.feast.offline_log import OfflineLog, view_schema
from millstream.adapters.feast.repo import apply, load_declaration, objects_of, open_store, quiet_feast
from millstream.adapters.redis.online_view import RedisOnlineView
from millstream.core.declaration import Aggregate, FeatureType, KeyType, View
from millstream.ports import ViewRows
from millstream.settings import Settings
from repos import repo

NOW = datetime.now(UTC).replace(microsecond=123_457) - timedelta(days=1)
NOW_US = (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

WHOLE = st.integers(-(2**53), 2**53).map(float)
VALUES: dict[FeatureType, st.SearchStrategy[float]] = {
    "int64": WHOLE,
    "int32": st.integers(-(2**31), 2**31 - 1).map(float),
    "unix_timestamp": WHOLE,
    "bool": st.sampled_from([0.0, 1.0]),
    "float64": st.floats(allow_nan=False),
    "float32": st.floats(allow_nan=False, width=32),
}
NULL = st.just(float("nan"))
KEYS: dict[KeyType, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
}
LARGEST = 2.0**62
LATEST_US = 253_402_300_799_999_999  # the last microsecond of the year 9999


def view_of(dtypes: list[FeatureType], key_type: KeyType = "int64", name: str = "v") -> View:
    made = tuple(Aggregate(f"f{at}", dtype, "x", "max", 1000) for at, dtype in enumerate(dtypes))
    return View(name, "entity", "entity_id", key_type, "topic", "at_ms", 0, made)


@st.composite
def views_with_rows(draw: st.DrawFn) -> tuple[str, View, ViewRows]:
    key_type = draw(st.sampled_from(list(KEYS)))
    dtypes = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=8))
    view = view_of(dtypes, key_type, draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)))
    keys = draw(st.lists(KEYS[key_type], min_size=1, max_size=6, unique=True))
    features = [[draw(NULL | VALUES[dtype]) for dtype in dtypes] for _ in keys]
    # Feast cannot tell the epoch itself from "never written", so it is left out.
    times_us = draw(st.lists(st.integers(1, LATEST_US), min_size=len(keys), max_size=len(keys)))
    reals = np.array(features, dtype=np.float64)
    wholes = np.where(np.isnan(reals) | (np.abs(reals) > LARGEST), 0, reals).astype(np.int64)
    for at in np.flatnonzero([dtype == "int64" for dtype in dtypes]).tolist():  # most are beyond what doubles hold
        wholes[:, at] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=len(keys), max_size=len(keys)))
        reals[:, at] = np.where(np.isnan(reals[:, at]), np.nan, wholes[:, at])
    made = ViewRows(
        view.name,
        np.array(keys, dtype=np.int64 if key_type == "int64" else object),
        reals,
        np.array(times_us, dtype=np.int64),
        wholes,
    )
    return draw(st.sampled_from(["p", "cards", "ü"])), view, made


@settings(deadline=None)
@given(views_with_rows())
def test_bytes_are_those_of_feasts_own_writer(case: tuple[str, View, ViewRows]) -> None:
    project, view, rows = case
    with quiet_feast():
        theirs = written_by_feast(project, view, rows)
    assert dict(ViewCodec(project, view).entries(rows)) == theirs


def test_the_self_test_passes_here_and_sees_what_differs() -> None:
    for key_type in KEYS:
        view = view_of(list(VALUES), key_type)
        codec = ViewCodec("cards", view)
        with quiet_feast():
            assert difference(codec, "cards") is None
            assert "keys differ" in str(difference(codec, "card"))
            other = ViewCodec("cards", replace(view, aggregates=(*view.aggregates[1:], view.aggregates[0])))
            other.view = view
            assert "field" in str(difference(other, "cards"))


def on_server(settings: Settings, valkey: Endpoints) -> Settings:
    """Let a repo's Feast client find the suite's server."""
    yaml = settings.feature_repo / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("OnlineStore\n", f"OnlineStore\n  url: {valkey.redis_url}\n", 1))
    return settings


@pytest.fixture
def plant(tmp_path: Path, valkey: Endpoints) -> Iterator[Settings]:
    """The applied repo of machines, in a project of its own on the real server."""
    made = repo(tmp_path, project="parityplant")
    apply(on_server(made, valkey))
    yield made
    with redis.Redis.from_url(valkey.redis_url) as client:
        for key in client.scan_iter("*parityplant*"):
            client.delete(key)


def heat(*given: tuple[str, int, float, float]) -> ViewRows:
    """Return rows of (machine, microseconds after NOW, hottest, mean)."""
    return ViewRows(
        "heat",
        np.array([each[0] for each in given], dtype=object),
        np.array([each[2:] for each in given], dtype=np.float64).reshape(-1, 2),
        np.array([NOW_US + each[1] for each in given], dtype=np.int64),
    )


def write(settings: Settings, url: str, rows: ViewRows) -> int:
    declaration = load_declaration(settings)
    codecs = {view.name: ViewCodec(declaration.project, view) for view in declaration.views}
    view = RedisOnlineView(url, declaration.project, codecs)
    try:
        return view.write([rows])
    finally:
        view.close()


def read(settings: Settings, *machines: str) -> dict[str, list[Any]]:
    with quiet_feast():
        store = open_store(settings)
        service = store.get_feature_service("failure")
        entities = [{"machine_id": machine} for machine in machines]
        answer: dict[str, list[Any]] = store.get_online_features(service, entities).to_dict()
        assert asyncio.run(read_by_loop(store, service, entities)) == answer
    return answer


async def read_by_loop(store: Any, service: Any, entities: list[dict[str, str]]) -> dict[str, list[Any]]:
    """Do the same through Feast's asynchronous client."""
    answer = await store.get_online_features_async(service, entities)
    await store._get_provider().online_store._client_async.aclose()
    return dict(answer.to_dict())


@pytest.mark.redis
def test_feasts_client_reads_every_key_we_wrote(plant: Settings, valkey: Endpoints) -> None:
    rows = heat(*((f"m {at} é", at, at / 4, np.nan if at % 3 == 0 else -at / 7) for at in range(200)), ("", 1, 1, 1))
    assert write(plant, valkey.redis_url, rows) == 201
    answer = read(plant, *rows.keys.tolist(), "never seen")
    assert answer["machine_id"] == [*rows.keys.tolist(), "never seen"]
    assert answer["hottest_1h"] == [*rows.features[:, 0].tolist(), None]
    means = [None if np.isnan(mean) else mean for mean in rows.features[:, 1].tolist()]
    assert answer["mean_celsius_86400s"] == [*means, None]


@pytest.mark.redis
def test_feasts_plain_redis_store_reads_them_too(plant: Settings, valkey: Endpoints) -> None:
    write(plant, valkey.redis_url, heat(("press", 0, 91.5, 60.25)))
    address = valkey.redis_url.removeprefix("redis://").partition("/")[0]
    yaml = plant.feature_repo / "feature_store.yaml"
    before, _, after = yaml.read_text().partition(
        "  type: millstream.adapters.feast.online_store.MillstreamRedisOnlineStore\n"
    )
    tail = after.partition("\n")[2]
    yaml.write_text(f"{before}  type: redis\n  connection_string: {address}\n{tail}")
    assert read(plant, "press")["mean_celsius_86400s"] == [60.25]


BACKFILL = """
heat = FeatureView(
    name="heat",
    entities=[machine],
    ttl=timedelta(days=2),
    source=log,
    schema=[Field(name="hottest_1h", dtype=Float32), Field(name="mean_celsius_86400s", dtype=Float64)],
)
"""


@pytest.mark.redis
def test_materialize_never_replaces_newer_rows(plant: Settings, valkey: Endpoints, tmp_path: Path) -> None:
    (view,) = load_declaration(plant).views
    write(plant, valkey.redis_url, heat(("streamed later", 2, 2.0, 2.0), ("streamed before", 0, 0.0, 0.0)))
    batch = pd.DataFrame(
        {
            "machine_id": ["streamed later", "streamed before", "batch only"],
            "hottest_1h": [1.0, 1.0, 1.0],
            "mean_celsius_86400s": [1.0, 1.0, 1.0],
            "event_timestamp": [NOW + timedelta(microseconds=1)] * 3,
            "created": [NOW] * 3,
        }
    )
    table = pa.Table.from_pandas(batch, schema=view_schema(view), preserve_index=False)
    # Feast's local engine materialises no view with windows, so a backfill declares the view as what it is to a reader.
    backfill = on_server(repo(tmp_path / "backfill", view=BACKFILL, project="parityplant"), valkey)
    OfflineLog(backfill.state_dir).append(view, table, "batch")
    with quiet_feast():
        store = open_store(backfill)
        store.apply(objects_of(backfill))
        store.materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))
    answer = read(plant, *batch["machine_id"])
    assert answer["hottest_1h"] == [2.0, 1.0, 1.0]
    assert answer["mean_celsius_86400s"] == [2.0, 1.0, 1.0]


@pytest.mark.redis
def test_feasts_own_writes_and_ours_compare_with_each_other(plant: Settings, valkey: Endpoints) -> None:
    (view,) = load_declaration(plant).views
    with quiet_feast():
        by_feast = feast_fallback(plant, view)
        by_feast(heat(("a", 5, 5.0, 5.0)))
        assert write(plant, valkey.redis_url, heat(("a", 4, 4.0, 4.0))) == 0
        assert write(plant, valkey.redis_url, heat(("a", 6, 6.0, 6.0))) == 1
        by_feast(heat(("a", 5, 5.0, 5.0)))
    assert read(plant, "a")["hottest_1h"] == [6.0]


@pytest.mark.redis
def test_deletes_leave_the_rows_of_projects_whose_names_end_alike(
    plant: Settings, valkey: Endpoints, tmp_path: Path
) -> None:
    other = on_server(repo(tmp_path / "other", project="plant_of_parityplant"), valkey)
    apply(other)
    for each in (plant, other):
        write(each, valkey.redis_url, heat(("a", 0, 1.0, 1.0), ("*?[", 0, 1.0, 1.0)))
    with quiet_feast():
        store = open_store(plant)
        table = store.get_stream_feature_view("heat")
        store._get_provider().update_infra("parityplant", [table], [], [], [], False)
        assert read(plant, "a", "*?[")["hottest_1h"] == [None, None]
        assert read(other, "a", "*?[")["hottest_1h"] == [1.0, 1.0]
        write(plant, valkey.redis_url, heat(("a", 0, 1.0, 1.0)))
        store._get_provider().teardown_infra("parityplant", [table], [])
    assert read(plant, "a")["hottest_1h"] == [None]
    assert read(other, "a", "*?[")["hottest_1h"] == [1.0, 1.0]


def test_rows_for_feast_keep_every_microsecond() -> None:
    view = view_of(["float64"])
    rows = sample_rows(view)
    with quiet_feast():
        times = [row[2] for row in feast_rows(view, rows)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [(time - epoch) // timedelta(microseconds=1) for time in times] == rows.feature_time_us.tolist()
