"""The whole path live on real Kafka and Valkey: equal to a replay bit for bit, and no bad record stops it."""

from __future__ import annotations

import json
import math
import struct
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from confluent_kafka import Producer

from cards import START_MS, TRANSACTIONS, events
from millstream.adapters.embedded import endpoints as servers
from millstream.app.assembly import Assembly
from millstream.app.replaying import History
from millstream.app.setup import initialise
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.text import as_text
from millstream.settings import Settings, load_settings
from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED
from running import Workers, committed, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

WRITER = RecordWriter(TRANSACTIONS.schema)
STAMPS = {"received_at_ms", "scored_at_ms", "source_offset", "source_partition"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own with one partition, so that there is one order of events."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("live"), partitions=1)
    servers.start(made, print)
    yield made
    servers.stop(made)


@pytest.fixture(scope="module")
def assembly(settings: Settings) -> Assembly:
    return initialise(settings, print)


@pytest.fixture(scope="module")
def workers(settings: Settings, assembly: Assembly) -> Iterator[Workers]:
    made = Workers(settings.state_dir.resolve(), {"MILLSTREAM_MAX_RECORD_BYTES": "5000"})
    made.start("live")
    yield made
    code = made.stop("live")
    assert code == 0, made.tail("live")


def _publish(settings: Settings, rows: list[tuple[bytes | None, bytes | None]]) -> None:
    kafka = servers.resolve(settings).kafka
    producer = Producer({**kafka, "enable.idempotence": True, "partitioner": "murmur2_random"})
    for key, value in rows:
        producer.produce("transactions", value, key)
    assert producer.flush(30) == 0


def _rows(batch: Batch) -> list[tuple[bytes | None, bytes | None]]:
    return list(zip(as_text(batch.columns["customer_id"]), WRITER.encode(batch), strict=True))


def _decoded(settings: Settings, assembly: Assembly, topic: str, start: int = 0) -> Batch:
    schema = assembly.topology.stages[-1].output_schema if topic == SCORED else assembly.contracts[topic].schema
    values = [message.value() for message in committed(servers.resolve(settings).kafka, topic)]
    return RecordReader(schema, assembly.resolver()).decode(values[start:], 1 << 30).batch


def test_live_and_replay_give_the_same_bits(settings: Settings, assembly: Assembly, workers: Workers) -> None:
    batch = events(3_000, seed=11, customers=60, step_ms=900_000)
    batch = batch.take(np.r_[0:2000, 1500:1520, 2000:3000])
    _publish(settings, _rows(batch))
    wait_until(lambda: len(committed(servers.resolve(settings).kafka, SCORED)) >= 3_000, 90, workers)
    live = _decoded(settings, assembly, SCORED)
    replayed = History(assembly).feed(batch)
    assert replayed.dead_letters.length == 0
    assert live.length == replayed.scored.length == 3_000
    assert set(live.columns) == set(replayed.scored.columns)
    for name in set(live.columns) - STAMPS:
        ours, theirs = live.columns[name], replayed.scored.columns[name]
        assert ours.dtype == theirs.dtype
        same = ours.tolist() == theirs.tolist() if ours.dtype == object else ours.tobytes() == theirs.tobytes()
        assert same, name
        assert live.is_null(name).tolist() == replayed.scored.is_null(name).tolist(), name
    predictions = _decoded(settings, assembly, PREDICTIONS)
    assert predictions.columns["event_id"].tolist() == [str(each) for each in live.columns["transaction_id"]]
    assert predictions.columns["score"].tobytes() == live.columns["score"].tobytes()
    # The declared rule answers while no model is promoted.
    assert set(predictions.columns["arm"].tolist()) == {"baseline"}
    assert (predictions.columns["score"] == (live.columns["amount"] > 220)).all()
    assert set(predictions.columns["decision"].tolist()) == {"block", "allow"}


def _one(number: int, **changes: object) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    row: dict[str, object] = {
        "transaction_id": 1_000_000 + number,
        "customer_id": 7,
        "terminal_id": 3,
        "event_time_ms": now_ms,
        "amount": 10.0,
    }
    row.update(changes)
    return WRITER.encode(Batch(1, {name: np.array([value]) for name, value in row.items()}))[0]


def test_each_kind_of_bad_record_is_kept_with_its_reason(
    settings: Settings, assembly: Assembly, workers: Workers
) -> None:
    kafka = servers.resolve(settings).kafka
    before = len(committed(kafka, DEAD_LETTERS))
    answered = len(committed(kafka, PREDICTIONS))
    good = _one(1)
    ahead_ms = time.time_ns() // 1_000_000 + 3 * 86_400_000
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (b"7", None, "null-value"),
        (b"7", b"\x00" * 6000, "oversize"),
        (b"7", b'{"amount": 1}', "unknown-framing"),
        (b"7", b"", "unknown-framing"),
        (b"7", b"\xc3\x01" + b"\x01" * 8 + good[10:], "unknown-schema"),
        (b"7", b"\x00" + struct.pack(">I", 99) + good[10:], "unknown-schema"),
        (b"7", good[:-3], "undecodable"),
        (b"7", good + b"\x00", "undecodable"),
        (b"7", good[:10] + b"\xff" * 11, "undecodable"),
        (b"7", _one(2, amount=math.nan), "not-finite"),
        (b"7", _one(3, amount=math.inf), "not-finite"),
        (b"7", _one(4, amount=-0.5), "range"),
        (b"7", _one(5, amount=1e12), "range"),
        (b"7", _one(6, event_time_ms=ahead_ms), "from-the-future"),
        (b"7", _one(7, event_time_ms=-5), "range"),
        (None, _one(8), "null-key"),
        (b"8", _one(9), "key-mismatch"),
        (b"\xff\xfe", _one(10), "key-mismatch"),
    ]
    rows = [(key, value) for key, value, _ in bad]
    _publish(settings, [*rows, (b"7", _one(11)), (b"7", _one(12, event_time_ms=START_MS - 400 * 86_400_000))])
    wait_until(lambda: len(committed(kafka, DEAD_LETTERS)) >= before + len(bad) + 1, 60, workers)
    wait_until(lambda: len(committed(kafka, PREDICTIONS)) >= answered + 1, 60, workers)
    dead = _decoded(settings, assembly, DEAD_LETTERS, before)
    found = {
        int(offset): (None if null_key else key, None if null_value else value, reason)
        for offset, key, value, reason, null_key, null_value in zip(
            dead.columns["offset"].tolist(),
            dead.columns["key"].tolist(),
            dead.columns["value"].tolist(),
            dead.columns["reason"].tolist(),
            dead.is_null("key").tolist(),
            dead.is_null("value").tolist(),
            strict=True,
        )
    }
    in_order = [found[offset] for offset in sorted(found)]
    assert in_order[:-1] == bad
    assert in_order[-1][2] == "late"
    assert len(committed(kafka, PREDICTIONS)) == answered + 1


def test_the_worker_tells_its_figures(settings: Settings, assembly: Assembly, workers: Workers) -> None:
    told = json.loads((settings.state_dir / "workers" / "live.json").read_text())
    address = f"http://{told['host']}:{told['port']}"
    for probe in ("/ready", "/health"):
        with urllib.request.urlopen(address + probe, timeout=5) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    figures = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    kafka = servers.resolve(settings).kafka
    predictions = len(committed(kafka, PREDICTIONS))
    assert predictions >= 3_000
    assert figures['millstream_predictions_total{arm="baseline",model="baseline",version="0"}'] == predictions
    assert figures['millstream_events_total{stage="customer"}'] == len(committed(kafka, "transactions"))
    assert figures['millstream_duplicates_total{stage="customer"}'] == 20
    assert figures['millstream_dead_letters_total{reason="range",stage="customer"}'] == 3
    assert figures['millstream_lag_records{partition="0",stage="terminal"}'] == 0
    assert figures['millstream_view_written_total{view="customer_activity"}'] >= 60
