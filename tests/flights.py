"""A repo of flights: text keys, planes without a number, times and counts as whole numbers; nothing about cards."""

from __future__ import annotations

from pathlib import Path

from millstream.settings import Settings
from repos import STORE

DEFINITIONS = """
import os
from datetime import timedelta
from feast import Entity, FeatureService, Field, FileSource, KafkaSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, ParquetFormat
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int32, Int64

STATE_DIR = os.environ["MILLSTREAM_STATE_DIR"]
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
plane = Entity(name="plane", join_keys=["tail"], value_type=ValueType.STRING{tags})


def log(name):
    return FileSource(
        name=name, path=f"{{STATE_DIR}}/offline/{{name}}/*/*.parquet", file_format=ParquetFormat(),
        timestamp_field="event_timestamp", created_timestamp_column="created",
    )


def view(name, entity, aggregations, schema, topic="flights", time="departs_at_ms", lateness=timedelta(hours=1)):
    return StreamFeatureView(
        name=name, entities=[entity], ttl=timedelta(days=9), timestamp_field=time, schema=schema,
        source=KafkaSource(
            name=f"{{name}}_source", topic=topic, timestamp_field=time, message_format=AvroFormat(""),
            watermark_delay_threshold=lateness, batch_source=log(name),
        ),
        aggregations=[
            Aggregation(column=column, function=function, time_window=timedelta(days=1), name=feature)
            for feature, function, column in aggregations
        ],
    )


carrier_day = view(
    "carrier_day", carrier,
    [("flights", "count", "flight"), ("last_seat_id", "last", "seat_id"), ("seats", "count_distinct", "seat_id"),
     ("cents", "sum", "cents"), ("cents32", "sum", "cents"), ("last_miles", "last", "miles")],
    [Field(name="flights", dtype=Int64), Field(name="last_seat_id", dtype=Int64), Field(name="seats", dtype=Int64),
     Field(name="cents", dtype=Int64), Field(name="cents32", dtype=Int32), Field(name="last_miles", dtype=Float64)],
)
plane_day = view(
    "plane_day", plane,
    [("hops", "count", "flight"), ("last_seat", "last", "seat_id")],
    [Field(name="hops", dtype=Int64), Field(name="last_seat", dtype=Int64)],
)
plane_delays = view(
    "plane_delays", plane, [("delays", "count", "label"), ("last_late_seat", "last", "seat_id")],
    [Field(name="delays", dtype=Int64), Field(name="last_late_seat", dtype=Int64)],
    "examples", "label_known_at_ms", None,
)
late = FeatureService(
    name="late", features=[carrier_day, plane_day, plane_delays],
    tags={{"baseline": "CASE WHEN plane_day__hops > 2 THEN 1.0 ELSE 0.0 END"}},
)
"""

CONTRACT = """
{
  "type": "record", "name": "Flight", "namespace": "air",
  "millstream": {"key": "carrier", "event_id": "flight", "event_time": "departs_at_ms"},
  "fields": [
    {"name": "flight", "type": "string"},
    {"name": "carrier", "type": "string"},
    {"name": "tail", "type": ["null", "string"], "default": null},
    {"name": "departs_at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "seat_id", "type": ["null", "long"], "default": null},
    {"name": "cents", "type": "long"},
    {"name": "miles", "type": "double"}
  ]
}
"""


def flights_repo(folder: Path, tags: str = "", **changed: str) -> Settings:
    """Write the repo and its contract; ``changed`` replaces texts of the definitions."""
    where, schemas = folder / "repo", folder / "schemas"
    where.mkdir(parents=True)
    schemas.mkdir()
    (where / "feature_store.yaml").write_text(STORE.format(project="air"))
    text = DEFINITIONS.format(tags=tags)
    for before, after in changed.items():
        assert before in text
        text = text.replace(before, after)
    (where / "definitions.py").write_text(text)
    (schemas / "flights.avsc").write_text(CONTRACT)
    return Settings(feature_repo=where, state_dir=folder / "state", schemas_dir=schemas)
