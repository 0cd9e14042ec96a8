"""Print every alert: python3 infra/subscriber.py BOOTSTRAP schemas/alerts.avsc; needs confluent-kafka[avro]."""

import io
import sys

from confluent_kafka import Consumer
from fastavro import schemaless_reader
from fastavro.schema import load_schema

bootstrap, schema_file = sys.argv[1:3]
schema = load_schema(schema_file)
settings = {"group.id": "my-alerts", "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
consumer.subscribe(["alerts"])
while True:
    message = consumer.poll(1.0)
    if message is not None and message.error() is None:
        # 10 bytes of single-object encoding come first; with a schema registry it would be 5.
        alert = schemaless_reader(io.BytesIO(message.value()[10:]), schema, None)
        print(alert["event"], alert["severity"], alert["kind"], alert["feature"], alert["runbook"], flush=True)
