"""kill -9 at random points while events flow: one outcome each, and the online features of an undisturbed run."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from running import Workers, committed, wait_until

from services.adapters import endpoints as servers
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.settings import Settings, load_settings
from services.topology import DEAD_LETTERS, PREDICTIONS

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 20_181_101
EVENTS = 6_000
DAY_MS = 86_400_000
START_MS = 1_533_081_600_000
KILLS = 5


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("crash"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def _stream(rng: random.Random) -> tuple[list[tuple[bytes, bytes | None, str]], dict[int, tuple[int, int, int, float]]]:
    """Return (key, value, kind) to publish, and what must show: event id -> customer, terminal, time, EUR."""
    from services.adapters.contracts import load_contract

    writer = RecordWriter(load_contract(load_settings({}), "transactions").schema)
    rows = []
    for number in range(EVENTS):
        customer = rng.randrange(120)
        # Within seconds of its place, so that events overtake one another, but no key's by a day.
        time_ms = START_MS + number * 5_000 + rng.randrange(-60_000, 60_000)
        rows.append((number, customer, rng.randrange(200), time_ms, round(rng.uniform(0, 400), 2), "good"))
    seen_customers: set[int] = set()
    published: list[tuple[int, int, int, int, float, str]] = []
    for row in rows:
        published.append(row)
        if rng.random() < 0.05:
            published.append((*row[:5], "duplicate"))
        if row[1] in seen_customers and rng.random() < 0.02:
            published.append((EVENTS + len(published), row[1], row[2], row[3] - 60 * DAY_MS, 5.0, "late"))
        if rng.random() < 0.02:
            published.append((2 * EVENTS + len(published), row[1], row[2], row[3], -5.0, "range"))
        seen_customers.add(row[1])
    batch = Batch(
        len(published),
        {
            "transaction_id": np.array([r[0] for r in published]),
            "customer_id": np.array([r[1] for r in published]),
            "terminal_id": np.array([r[2] for r in published]),
            "event_time_ms": np.array([r[3] for r in published]),
            "amount": np.array([r[4] for r in published]),
        },
    )
    out: list[tuple[bytes, bytes | None, str]] = []
    for row, value in zip(published, writer.encode(batch), strict=True):
        out.append((b"%d" % row[1], value, row[5]))
        if rng.random() < 0.02:
            out.append((b"%d" % row[1], value[: rng.randrange(len(value))], "poison"))
    return out, {row[0]: row[1:5] for row in rows}


def _publish(kafka: dict[str, str], stream: list[tuple[bytes, bytes | None, str]], per_second: int) -> None:
    producer = Producer({**kafka, "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 1})
    started_s = time.monotonic()
    for number, (key, value, _kind) in enumerate(stream):
        producer.produce("transactions", value, key)
        ahead_s = number / per_second - (time.monotonic() - started_s)
        if ahead_s > 0.01:
            producer.poll(0)
            time.sleep(ahead_s)
    assert producer.flush(30) == 0


def test_five_kills_lose_nothing_double_nothing_and_leave_the_same_features(settings: Settings) -> None:
    rng = random.Random(SEED)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    stream, events = _stream(rng)
    kinds = Counter(kind for _, _, kind in stream)
    workers = Workers(Path(settings.state_dir), {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "700"})
    try:
        for name in ("one", "two"):
            workers.start(name)
        publisher = threading.Thread(target=_publish, args=(kafka, stream, 400))
        publisher.start()
        for _ in range(KILLS):
            time.sleep(rng.uniform(1.0, 4.0))
            victim = rng.choice(["one", "two"])
            workers.kill(victim)
            time.sleep(rng.uniform(0.0, 0.5))
            workers.start(victim)
        publisher.join()
        expected = len(stream) - kinds["duplicate"]

        def answered() -> int:
            return len(committed(kafka, PREDICTIONS)) + len(committed(kafka, DEAD_LETTERS))

        wait_until(lambda: answered() >= expected, 120, workers)
        time.sleep(2)
        _check_outcomes(assembly, kafka, stream, events, kinds)
        _check_online_features(settings, events)
        wait_until(lambda: workers.ready("one") and workers.ready("two"), 60, workers)
        assert workers.stop("one") == 0
        assert workers.stop("two") == 0
        assert answered() == expected
    finally:
        workers.end()


def _check_outcomes(assembly, kafka, stream, events, kinds) -> None:  # type: ignore[no-untyped-def]
    resolve = assembly.resolver()
    predictions = RecordReader(assembly.contracts[PREDICTIONS].schema, resolve).decode(
        [message.value() for message in committed(kafka, PREDICTIONS)], 1 << 30
    )
    outcomes = Counter(int(each) for each in predictions.batch.columns["event_id"])
    assert set(outcomes) == set(events), "every sound event, and no other, has a prediction"
    assert set(outcomes.values()) == {1}, "and only one"
    dead = RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve).decode(
        [message.value() for message in committed(kafka, DEAD_LETTERS)], 1 << 30
    )
    places = list(zip(*(dead.batch.columns[name].tolist() for name in ("topic", "partition", "offset")), strict=True))
    assert len(set(places)) == len(places), "no record is dead-lettered twice"
    assert {topic for topic, _, _ in places} == {"transactions"}
    reasons = Counter(dead.batch.columns["reason"].tolist())
    assert reasons["late"] == kinds["late"]
    assert reasons["range"] == kinds["range"]
    assert len(places) == kinds["late"] + kinds["range"] + kinds["poison"]
    sent = Counter(value for _, value, kind in stream if kind == "poison")
    kept = Counter(
        value
        for value, reason in zip(
            dead.batch.columns["value"].tolist(), dead.batch.columns["reason"].tolist(), strict=True
        )
        if reason not in {"late", "range"}
    )
    assert kept == sent, "poison is kept byte for byte"


def _check_online_features(settings: Settings, events: dict[int, tuple[int, int, int, float]]) -> None:
    """Compare what Feast reads with a recomputation from the events alone."""
    from services.adapters.feature_repo import open_store

    store = open_store(settings)
    for position, (entity, view) in enumerate(
        (("customer_id", "customer_activity"), ("terminal_id", "terminal_activity"))
    ):
        by_key: dict[int, list[tuple[int, float]]] = {}
        for event in events.values():
            by_key.setdefault(event[position], []).append((event[2], event[3]))
        keys = sorted(by_key)
        names = [f"{view}:{feature.name}" for feature in store.get_stream_feature_view(view).features]
        online = store.get_online_features(names, [{entity: key} for key in keys]).to_dict()
        for row, key in enumerate(keys):
            newest = max(time_ms for time_ms, _ in by_key[key])
            for days in (1, 7, 30):
                inside = [eur for time_ms, eur in by_key[key] if newest - days * DAY_MS < time_ms <= newest]
                counts = [n for n in online if "count" in n and _window_of(n) == days]
                means = [n for n in online if "mean" in n and _window_of(n) == days]
                assert [online[name][row] for name in counts] == [len(inside)]
                assert [online[name][row] for name in means] == [
                    pytest.approx(math.fsum(inside) / len(inside), abs=1e-9)
                ]


def _window_of(name: str) -> int:
    import re

    found = re.search(r"(\d+)(d|s)$", name)
    assert found, name
    return int(found[1]) if found[2] == "d" else int(found[1]) // 86_400
