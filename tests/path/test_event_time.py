"""Producers whose partitioner or clock is wrong, on a real broker: by name, and what puts it right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from cards import DAY_MS, START_MS, TRANSACTIONS
from millstream.adapters.embedded import endpoints as servers
from millstream.app.assembly import Assembly
from millstream.app.setup import initialise
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.runtime.clock_bound import AHEAD
from millstream.settings import Settings, load_settings
from millstream.topology import DEAD_LETTERS, SCORED
from running import Workers, committed, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

HOUR_MS = 3_600_000
WRITER = RecordWriter(TRANSACTIONS.schema)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("time"), partitions=4)
    servers.start(made, print)
    yield made
    servers.stop(made)


@pytest.fixture(scope="module")
def assembly(settings: Settings) -> Assembly:
    return initialise(settings, print)


@pytest.fixture
def workers(settings: Settings, assembly: Assembly) -> Iterator[Workers]:
    made = Workers(settings.state_dir.resolve())
    made.start("time", ["customer", "terminal"])
    yield made
    made.end()


def publish(settings: Settings, number: int, customer: int, at_ms: int, **more: str) -> KafkaError | None:
    """Publish an event whose record's timestamp is its own time; return why it was not taken."""
    row = {
        "transaction_id": number,
        "customer_id": customer,
        "terminal_id": 3,
        "event_time_ms": at_ms,
        "amount": 10.0,
    }
    (value,) = WRITER.encode(Batch(1, {name: np.array([each]) for name, each in row.items()}))
    errors: list[KafkaError | None] = []
    producer = Producer({**servers.resolve(settings).kafka, "partitioner": "murmur2_random", **more})
    producer.produce(
        "transactions", value, b"%d" % customer, timestamp=at_ms, on_delivery=lambda error, _: errors.append(error)
    )
    assert producer.flush(30) == 0
    return errors[0]


def without_bound(settings: Settings) -> None:
    """Let producers stamp the records of the event topic as they like."""
    kafka = servers.resolve(settings).kafka
    entry = ConfigEntry(
        "message.timestamp.after.max.ms", str((1 << 63) - 1), incremental_operation=AlterConfigOpType.SET
    )
    asked = ConfigResource(ConfigResource.Type.TOPIC, "transactions", incremental_configs=[entry])
    admin = AdminClient(dict(kafka))
    admin.incremental_alter_configs([asked])[asked].result(30)


def scored(settings: Settings, assembly: Assembly, customer: int) -> dict[int, int]:
    """Return the count of the day of each scored event of a customer, by event id."""
    values = [message.value() for message in committed(servers.resolve(settings).kafka, SCORED)]
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    columns = reader.decode(values, 1 << 30).batch.columns
    mine = columns["customer_id"] == customer
    counts = columns["customer_activity__customer_count_amount_1d"][mine]
    return dict(zip(columns["transaction_id"][mine].tolist(), counts.tolist(), strict=True))


def reasons(settings: Settings, assembly: Assembly) -> list[tuple[str, str]]:
    values = [message.value() for message in committed(servers.resolve(settings).kafka, DEAD_LETTERS)]
    columns = RecordReader(assembly.contracts[DEAD_LETTERS].schema, assembly.resolver()).decode(values, 1 << 30)
    return list(zip(*(columns.batch.columns[name].tolist() for name in ("reason", "detail")), strict=True))


def millstream(settings: Settings, *arguments: str) -> str:
    environment = {**os.environ, "MILLSTREAM_STATE_DIR": str(settings.state_dir.resolve())}
    done = subprocess.run(
        [sys.executable, "-m", "millstream", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_partitioners_and_a_clock_that_is_ahead(settings: Settings, assembly: Assembly, workers: Workers) -> None:
    """Customers 1, 3, 7 and 8 share partition 3 of 4; by librdkafka's own default partitioner, 7 lies in 2."""
    t = START_MS
    for n in range(4):
        partitioner = "murmur2_random" if n % 2 == 0 else "consistent_random"
        assert publish(settings, n, 7, t + n * 10_000, partitioner=partitioner) is None
    wait_until(lambda: len(reasons(settings, assembly)) == 2 and len(scored(settings, assembly, 7)) == 2, 240, workers)
    assert {reason for reason, _ in reasons(settings, assembly)} == {"wrong-partition"}
    detail = reasons(settings, assembly)[0][1]
    assert "lies in partition 2" in detail
    assert "partition 3 of 4" in detail
    assert "partitioner=murmur2_random" in detail
    millstream(settings, "dead-letters", "redrive", "--reason", "wrong-partition")
    wait_until(lambda: len(scored(settings, assembly, 7)) == 4, 60, workers)
    # Each as of its own time, with what was there by then.
    assert scored(settings, assembly, 7) == {0: 1, 2: 2, 1: 2, 3: 4}

    # A broker refuses a record whose own timestamp is ahead of its clock; event times of the past it cannot judge.
    refused = publish(settings, 99, 8, time.time_ns() // 1_000_000 + 400 * DAY_MS)
    assert refused is not None
    assert refused.code() == KafkaError.INVALID_TIMESTAMP
    # One without that bound takes it (as before Kafka 3.6); the worker's own clock refuses it, of two keys as of one.
    without_bound(settings)
    for n, customer in enumerate((1, 3)):
        assert publish(settings, 90 + n, customer, time.time_ns() // 1_000_000 + 400 * DAY_MS) is None
    wait_until(lambda: [reason for reason, _ in reasons(settings, assembly)].count(AHEAD) == 2, 60, workers)

    for n, customer in enumerate((1, 3, 8)):
        assert publish(settings, 100 + n, customer, t + HOUR_MS) is None
    assert publish(settings, 110, 8, t + 400 * DAY_MS) is None
    for n, customer in enumerate((1, 3, 8)):
        assert publish(settings, 120 + n, customer, t + 2 * HOUR_MS + n) is None
    wait_until(lambda: len(reasons(settings, assembly)) == 5, 60, workers)
    wait_until(lambda: scored(settings, assembly, 3) == {101: 1, 121: 2}, 60, workers)
    assert scored(settings, assembly, 1) == {100: 1, 120: 2}
    assert scored(settings, assembly, 8) == {102: 1, 110: 1}
    assert sorted(reason for reason, _ in reasons(settings, assembly)) == [
        *[AHEAD] * 2,
        "late",
        *["wrong-partition"] * 2,
    ]

    assert workers.stop("time") == 0
    after = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((t + DAY_MS) / 1000))
    told = json.loads(millstream(settings, "features", "forget", "--after", after, "--json"))
    assert told == [
        {"stage": "customer", "events": 1, "keys": ["8"]},
        {"stage": "terminal", "events": 1, "keys": ["3"]},
    ]
    # State is rebuilt by a worker whose clock would let the events pass.
    workers.environment = {"MILLSTREAM_EVENT_AHEAD_MAX_MS": str(500 * DAY_MS)}
    workers.start("time", ["customer", "terminal"])
    millstream(settings, "dead-letters", "redrive", "--reason", "late")
    wait_until(lambda: scored(settings, assembly, 8) == {102: 1, 110: 1, 122: 2}, 240, workers)
    online = json.loads(millstream(settings, "features", "get", "customer_id=8", "--json"))
    assert online["customer_activity__customer_count_amount_1d"] == 2
    for customer in (1, 3):
        online = json.loads(millstream(settings, "features", "get", f"customer_id={customer}", "--json"))
        assert online["customer_activity__customer_count_amount_1d"] == 2
    assert len(reasons(settings, assembly)) == 5
    assert workers.stop("time") == 0
