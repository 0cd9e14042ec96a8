"""Features of devices, declared with Feast: the average of a device's last hour and day, and how often it reports."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, Field, FileSource, KafkaSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, ParquetFormat
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

STATE_DIR = Path(os.environ.get("MILLSTREAM_STATE_DIR", Path(__file__).resolve().parent.parent / ".millstream"))

device = Entity(name="device", join_keys=["device_id"], value_type=ValueType.STRING)

events = KafkaSource(
    name="device_events",
    topic="events",
    timestamp_field="event_time_ms",
    message_format=AvroFormat(""),  # the contract is schemas/events.avsc
    watermark_delay_threshold=timedelta(hours=1),  # events that are later than this are dead-lettered
    batch_source=FileSource(
        name="device_activity_log",  # the features as they were served
        path=str(STATE_DIR / "offline" / "device_activity" / "*" / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    ),
)

device_activity = StreamFeatureView(
    name="device_activity",
    entities=[device],
    ttl=timedelta(days=2),
    source=events,
    timestamp_field="event_time_ms",
    aggregations=[
        Aggregation(column="value", function="count", time_window=timedelta(hours=1), name="events_1h"),
        Aggregation(column="value", function="mean", time_window=timedelta(hours=1), name="mean_value_1h"),
        Aggregation(column="value", function="mean", time_window=timedelta(days=1), name="mean_value_1d"),
    ],
    schema=[
        Field(name="events_1h", dtype=Int64),
        Field(name="mean_value_1h", dtype=Float64),
        Field(name="mean_value_1d", dtype=Float64),
    ],
    online=True,
)

unusual = FeatureService(
    name="unusual",
    features=[device_activity],
    tags={
        # The rule that answers until the first model is promoted.
        "baseline": "CASE WHEN value > 2 * device_activity__mean_value_1d THEN 1.0 ELSE 0.0 END",
        "threshold": "0.5",
        "decision_above": "review",
        "decision_below": "accept",
    },
)
