"""The benchmark's one job in Feast's terms: how often and for how much each customer paid in 1, 7 and 30 days."""

from datetime import timedelta

from feast import Entity, FeatureService, Field, FileSource, KafkaSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

WINDOWS = [timedelta(days=days) for days in (1, 7, 30)]

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)

customer_activity = StreamFeatureView(
    name="customer_activity",
    entities=[customer],
    ttl=timedelta(days=60),
    source=KafkaSource(
        name="payments",
        topic="transactions",
        timestamp_field="event_time_ms",
        message_format=AvroFormat(""),
        watermark_delay_threshold=timedelta(days=7),
        batch_source=FileSource(name="log", path="offline/*.parquet", timestamp_field="event_timestamp"),
    ),
    aggregations=[
        Aggregation(column="amount", function=function, time_window=window, name=f"{function}_amount_{window.days}d")
        for window in WINDOWS
        for function in ("count", "mean")
    ],
    timestamp_field="event_time_ms",
    schema=[
        Field(name=f"{function}_amount_{window.days}d", dtype=dtype)
        for window in WINDOWS
        for function, dtype in (("count", Int64), ("mean", Float64))
    ],
    online=False,  # the reference feature repo's parts have an online view, and one measures it alone
)

bench = FeatureService(name="bench", features=[customer_activity], tags={"baseline": "0.0"})
