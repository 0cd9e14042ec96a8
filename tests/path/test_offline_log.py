"""What was served is kept: from scored events on real Kafka to Feast's historical features, no row lost or doubled."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cards import events, published
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.offline_log import OfflineLog
from millstream.adapters.feast.offline_writer import OfflineWriter
from millstream.adapters.feast.repo import apply, open_store, quiet_feast
from millstream.app.assembly import Assembly, assemble
from millstream.app.replaying import History
from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch
from millstream.runtime.log.records import Records
from millstream.settings import load_settings

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    return assemble(load_settings({}))


@pytest.fixture(scope="module")
def scored(assembly: Assembly) -> Records:
    """Scored events as they stand in the topic."""
    records, _ = History(assembly).replay.feed(published(events(300, customers=6)))
    return records


@pytest.fixture
def topic(kafka: Endpoints) -> Iterator[str]:
    """A topic of two partitions that looks like ``scored``."""
    admin = AdminClient(kafka.kafka)
    name = f"scored.{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])[name].result(30)
    yield name
    admin.delete_topics([name])[name].result(30)


def publish(kafka: Endpoints, topic: str, records: Records, rows: Sequence[int]) -> None:
    producer = Producer(kafka.kafka)
    for row in rows:
        producer.produce(topic, records.values[row], records.keys[row], partition=row % 2)
    assert producer.flush(30) == 0


def writer(kafka: Endpoints, topic: str, assembly: Assembly, state_dir: Path) -> OfflineWriter:
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    log = OfflineLog(state_dir)
    return OfflineWriter(
        kafka.kafka, topic, reader, assembly.declaration.views, log, flush_interval_s=3600, topic=topic
    )


def read_on(made: OfflineWriter) -> None:
    for _ in range(200):
        made.poll(0.2)
        if made.at_end:
            return
    raise AssertionError("the end of the topic never came")


def kept(state_dir: Path, view: str) -> pd.DataFrame:
    return duckdb.sql(f"SELECT * FROM '{state_dir}/offline/{view}/*/*.parquet'").df()


def decoded(assembly: Assembly, records: Records) -> Batch:
    schema = assembly.topology.stages[-1].output_schema
    return RecordReader(schema, assembly.resolver()).decode(records.values, 1 << 30).batch


def test_every_served_row_is_kept_once_through_a_crash_between_files_and_commit(
    kafka: Endpoints, topic: str, assembly: Assembly, scored: Records, tmp_path: Path
) -> None:
    first, second = range(0, 200), range(200, len(scored))
    publish(kafka, topic, scored, first)
    crashing = writer(kafka, topic, assembly, tmp_path)
    read_on(crashing)
    for partition, messages in crashing._held.items():
        crashing._write(partition, messages)
    crashing._held.clear()  # gone before the offsets were committed
    crashing.close()
    assert len(kept(tmp_path, "customer_activity")) == len(first)

    publish(kafka, topic, scored, second)
    again = writer(kafka, topic, assembly, tmp_path)
    read_on(again)
    again.flush()
    assert again.written == len(scored)
    again.close()
    batch = decoded(assembly, scored)
    for view in assembly.declaration.views:
        rows = kept(tmp_path, view.name)
        assert len(rows) == len(scored)
        stored = rows.set_index([view.join_key, "event_timestamp"]).sort_index()
        assert stored.index.is_unique
        times = pd.to_datetime(batch.columns[f"{view.entity}__feature_time_us"], unit="us", utc=True)
        served = pd.DataFrame(
            {
                view.join_key: batch.columns[view.join_key],
                "event_timestamp": times,
                **{
                    each.feature: batch.columns[column]
                    for each, column in zip(view.aggregates, view.columns, strict=True)
                },
            }
        ).set_index([view.join_key, "event_timestamp"])
        for each in view.aggregates:
            np.testing.assert_array_equal(stored[each.feature], served.sort_index()[each.feature])  # null is null


def test_a_later_run_goes_on_where_the_last_one_committed(
    kafka: Endpoints, topic: str, assembly: Assembly, scored: Records, tmp_path: Path
) -> None:
    for rows in (range(0, 100), range(100, 101), range(101, 250)):
        publish(kafka, topic, scored, rows)
        made = writer(kafka, topic, assembly, tmp_path)
        read_on(made)
        made.close()  # hands its partitions back, and with them files and offsets
        assert len(kept(tmp_path, "terminal_activity")) == rows.stop
    assert not list(tmp_path.rglob("*.part"))
    names = [path.name for path in tmp_path.rglob("*.parquet")]
    assert all(re.fullmatch(rf"{topic}-[0-9a-f]{{32}}-[01]-\d{{20}}-\d{{20}}\.parquet", name) for name in names), names


def test_feasts_historical_features_are_what_was_served(
    kafka: Endpoints, topic: str, assembly: Assembly, scored: Records, tmp_path: Path
) -> None:
    publish(kafka, topic, scored, range(len(scored)))
    made = writer(kafka, topic, assembly, tmp_path)
    read_on(made)
    made.close()
    batch = decoded(assembly, scored)
    settings = load_settings({}, state_dir=tmp_path)
    apply(settings)
    for view in assembly.declaration.views:
        entities = pd.DataFrame(
            {
                view.join_key: batch.columns[view.join_key],
                "event_timestamp": pd.to_datetime(
                    batch.columns[f"{view.entity}__feature_time_us"], unit="us", utc=True
                ),
                "row": np.arange(batch.length),
            }
        )
        with quiet_feast():
            wanted = [f"{view.name}:{each.feature}" for each in view.aggregates]
            joined = open_store(settings).get_historical_features(entities, wanted).to_df().sort_values("row")
        assert len(joined) == batch.length
        for each, column in zip(view.aggregates, view.columns, strict=True):
            np.testing.assert_array_equal(joined[each.feature], batch.columns[column])  # null is null
