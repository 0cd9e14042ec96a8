"""Features of the reference domain, card payments, in Feast's own terms. The engine compiles what is declared here."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

STATE_DIR = Path(os.environ.get("MILLSTREAM_STATE_DIR", Path(__file__).resolve().parent.parent / ".millstream"))
OWNER = "fraud-detection@example.org"

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
terminal = Entity(name="terminal", join_keys=["terminal_id"], value_type=ValueType.INT64)


def served(view: str) -> FileSource:
    """Return the offline log of a view: the rows as they were served, appended by the engine."""
    return FileSource(
        name=f"{view}_log",
        path=str(STATE_DIR / "offline" / view / "*" / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def payments(view: str) -> KafkaSource:
    """Return the stream of payments, with the log its features end up in."""
    return KafkaSource(
        name=f"{view}_payments",
        topic="transactions",
        timestamp_field="event_time_ms",
        message_format=AvroFormat(""),  # the contract is schemas/transactions.avsc
        watermark_delay_threshold=timedelta(days=7),
        batch_source=served(view),
    )


def activity(view: str, entity: Entity) -> StreamFeatureView:
    """Return how often and for how much an entity was paid with or at, over a day, a week and a month."""
    aggregations, schema = [], []
    for days in (1, 7, 30):
        for function, dtype in (("count", Int64), ("mean", Float64)):
            # Distinct across views, so that the service can be read by short names too.
            name = f"{entity.name}_{function}_amount_{days}d"
            window = timedelta(days=days)
            aggregations.append(Aggregation(column="amount", function=function, time_window=window, name=name))
            schema.append(Field(name=name, dtype=dtype))
    return StreamFeatureView(
        name=view,
        entities=[entity],
        ttl=timedelta(days=60),
        source=payments(view),
        aggregations=aggregations,
        timestamp_field="event_time_ms",
        schema=schema,
        online=True,
        owner=OWNER,
    )


def risk(view: str, entity: Entity) -> StreamFeatureView:
    """Return how many labels became known of an entity's payments, and what share is fraud, over a day, week and month.

    The topic `examples` is what the engine makes of labels: an event, and the label that became known of it. Windows
    go by when it did, so with labels 7 days late they reach over payments that are 7 to 37 days old.
    """
    aggregations, schema = [], []
    for days in (1, 7, 30):
        for function, what, dtype in (("count", "count_labels", Int64), ("mean", "fraud_share", Float64)):
            name = f"{entity.name}_{what}_{days}d"
            window = timedelta(days=days)
            aggregations.append(Aggregation(column="label", function=function, time_window=window, name=name))
            schema.append(Field(name=name, dtype=dtype))
    return StreamFeatureView(
        name=view,
        entities=[entity],
        ttl=timedelta(days=60),
        source=KafkaSource(
            name=f"{view}_labels",
            topic="examples",
            timestamp_field="label_known_at_ms",
            message_format=AvroFormat(""),
            batch_source=served(view),
        ),
        aggregations=aggregations,
        timestamp_field="label_known_at_ms",
        schema=schema,
        online=True,
        owner=OWNER,
    )


customer_activity = activity("customer_activity", customer)
terminal_activity = activity("terminal_activity", terminal)
terminal_risk = risk("terminal_risk", terminal)

transaction = RequestSource(
    name="transaction",
    schema=[Field(name="amount", dtype=Float64), Field(name="event_time_ms", dtype=Int64)],
)


@on_demand_feature_view(
    sources=[transaction],
    schema=[
        Field(name="paid_amount", dtype=Float64),
        Field(name="is_weekend", dtype=Int64),
        Field(name="is_night", dtype=Int64),
    ],
    mode="python",
    owner=OWNER,
)
def transaction_context(inputs: dict) -> dict:
    """Return the amount itself and two flags of its UTC time: Saturday or Sunday, and hour 0 to 6."""
    days = [ms // 86_400_000 for ms in inputs["event_time_ms"]]
    hours = [ms // 3_600_000 % 24 for ms in inputs["event_time_ms"]]
    return {
        "paid_amount": inputs["amount"],
        "is_weekend": [1 if (day + 3) % 7 >= 5 else 0 for day in days],  # 1970-01-01 was a Thursday
        "is_night": [1 if hour <= 6 else 0 for hour in hours],
    }


fraud = FeatureService(
    name="fraud",
    features=[transaction_context, customer_activity, terminal_activity, terminal_risk],
    tags={
        # Answers until the first model is promoted, and whenever a model fails.
        "baseline": "CASE WHEN amount > 220 THEN 1.0 ELSE 0.0 END",
        "threshold": "0.5",
        "decision_above": "block",
        "decision_below": "allow",
        "label": "is_fraud",
    },
    owner=OWNER,
)

__all__ = ["customer_activity", "fraud", "terminal_activity", "terminal_risk", "transaction_context"]
