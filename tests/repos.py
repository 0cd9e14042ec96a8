"""Feast repos as a team would write them, small and of another trade: readings of machines' sensors."""

from __future__ import annotations

from pathlib import Path

from millstream.settings import Settings

STORE = """
project: {project}
provider: local
registry:
  registry_type: sql
  path: sqlite:///.millstream/feast-registry.db
online_store:
  type: millstream.adapters.feast.online_store.MillstreamRedisOnlineStore
offline_store:
  type: duckdb
batch_engine:
  type: millstream.adapters.feast.compute_engine.ServedRowsComputeEngine
entity_key_serialization_version: 3
"""

HEAD = """
import os
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

STATE_DIR = os.environ["MILLSTREAM_STATE_DIR"]
machine = Entity(name="machine", join_keys=["machine_id"], value_type=ValueType.STRING)
log = FileSource(
    name="log",
    path=f"{STATE_DIR}/offline/heat/*/*.parquet",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)

def readings(name, topic="readings"):
    return KafkaSource(
        name=name, topic=topic, timestamp_field="read_at_ms", message_format=AvroFormat(""), batch_source=log,
        watermark_delay_threshold=timedelta(minutes=10),
    )
"""

VIEW = """
heat = StreamFeatureView(
    name="heat",
    entities=[machine],
    ttl=timedelta(days=2),
    source=readings("heat_readings"),
    timestamp_field="read_at_ms",
    aggregations=[
        Aggregation(column="celsius", function="max", time_window=timedelta(hours=1), name="hottest_1h"),
        Aggregation(column="celsius", function="mean", time_window=timedelta(days=1)),
    ],
    schema=[Field(name="hottest_1h", dtype=Float32), Field(name="mean_celsius_86400s", dtype=Float64)],
)
"""

SERVICE = """
failure = FeatureService(
    name="failure",
    features=[heat],
    tags={"baseline": "CASE WHEN celsius > 90 THEN 1.0 ELSE 0.0 END", "threshold": "0.7"},
)
"""

CONTRACT = """
{
  "type": "record", "name": "Reading", "namespace": "plant",
  "millstream": {"key": "machine_id", "event_id": "reading_id", "event_time": "read_at_ms"},
  "fields": [
    {"name": "reading_id", "type": "string"},
    {"name": "machine_id", "type": "string"},
    {"name": "read_at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "celsius", "type": ["null", "double"], "default": null},
    {"name": "state", "type": "string"}
  ]
}
"""


def repo(folder: Path, view: str = VIEW, service: str = SERVICE, head: str = HEAD, project: str = "plant") -> Settings:
    """Write a feature repo and return settings that use it, with a state directory beside it."""
    where = folder / "repo"
    where.mkdir(parents=True)
    (where / "feature_store.yaml").write_text(STORE.format(project=project))
    (where / "definitions.py").write_text(head + view + service)
    return Settings(feature_repo=where, state_dir=folder / "state")
