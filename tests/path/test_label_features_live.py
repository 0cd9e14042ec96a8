"""On real Kafka: labels go through the join to the stage that serves them, and a kill -9 of either does not show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cards import DAY_MS, events, published
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.feast.repo import open_store
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.app.assembly import Assembly
from millstream.app.setup import initialise
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.runtime.log.kafka_reader import KafkaReader
from millstream.runtime.log.records import Output
from millstream.settings import Settings, load_settings
from millstream.topology import LABELS, SCORED
from running import Workers, committed, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

COUNT = 900
DELAY_MS = 2 * DAY_MS
WINDOWS = (1, 7, 30)
NAMES = [f"terminal_{what}_{days}d" for days in WINDOWS for what in ("count_labels", "fraud_share")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("risk"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def _labels(assembly: Assembly, batch: Batch, label: np.ndarray, kind: str, later_ms: int = 0) -> Output:
    texts = np.array([str(each) for each in batch.columns["transaction_id"].tolist()], dtype=object)
    columns = {
        "event_id": texts,
        "label": np.nan_to_num(label),
        "known_at_ms": batch.columns["event_time_ms"] + DELAY_MS + later_ms,
        "source": np.full(batch.length, "bank", dtype=object),
        "kind": np.full(batch.length, kind, dtype=object),
    }
    made = Batch(batch.length, columns, {"label": np.isnan(label)})
    values = RecordWriter(assembly.contracts[LABELS].schema).encode(made)
    return Output(LABELS, [text.encode() for text in texts], values)


def _features(assembly: Assembly, kafka: dict[str, str]) -> dict[int, list[float]]:
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    scored = reader.decode([each.value() for each in committed(kafka, SCORED)], 1 << 30).batch
    columns = [scored.as_floats(f"terminal_risk__{name}").tolist() for name in NAMES]
    return dict(zip(scored.columns["transaction_id"].tolist(), map(list, zip(*columns, strict=True)), strict=True))


def _defined(terminal: int, as_of_ms: int, batch: Batch, label: np.ndarray, known_at_ms: np.ndarray) -> list[float]:
    """Return the features by their definition: of what is known in the end, what became known in each window."""
    mine = (batch.columns["terminal_id"] == terminal) & ~np.isnan(label) & (known_at_ms <= as_of_ms)
    found: list[float] = []
    for days in WINDOWS:
        inside = label[mine & (known_at_ms > as_of_ms - days * DAY_MS)]
        found += [float(len(inside)), float(inside.mean()) if len(inside) else math.nan]
    return found


def test_labels_reach_the_features_of_later_events(settings: Settings) -> None:
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    (plan,) = (stage.labels for stage in assembly.topology.stages if stage.labels is not None)
    batch = events(COUNT, seed=5, customers=12, step_ms=900_000)
    times_ms = batch.columns["event_time_ms"]
    label = (np.random.default_rng(5).random(COUNT) < 0.3).astype(np.float64)
    known_at_ms = times_ms + DELAY_MS
    first, second, third = np.split(np.arange(COUNT), [300, 600])
    corrected, taken_back = first[::7], first[1::7]
    producer, deliveries = open_producer(kafka), Deliveries()

    def send(*outputs: Output) -> None:
        for output in outputs:
            tags = range(deliveries.next_tag, deliveries.next_tag + len(output.keys))
            publish(producer, output.topic, list(output.keys), list(output.values), deliveries=deliveries, tags=tags)
        drain(producer, deliveries)

    def taken_in(count: int) -> bool:
        rekeyed = committed(kafka, plan.input)
        last = {int(each.partition() or 0): int(each.offset() or 0) for each in rekeyed}
        reader = KafkaReader(kafka, f"{assembly.topology.project}.terminal")
        try:
            offsets = reader.committed(plan.input, list(last))
        finally:
            reader.close()
        return len(rekeyed) >= count and all((offsets[p] or 0) > offset for p, offset in last.items())

    workers = Workers(Path(settings.state_dir), {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "1000"})
    try:
        workers.start("path", ["customer", "terminal"])
        workers.start("join", ["join"])
        send(published(batch.take(first)))
        wait_until(lambda: len(committed(kafka, SCORED)) == 300, 120, workers)
        send(_labels(assembly, batch.take(first), label[first], "new"))
        wait_until(lambda: taken_in(300), 60, workers)
        workers.kill("path")
        workers.kill("join")
        # What is said while nobody listens is heard later.
        label[corrected] = 1 - label[corrected]
        label[taken_back] = np.nan
        send(_labels(assembly, batch.take(corrected), label[corrected], "correction", 3_600_000))
        send(_labels(assembly, batch.take(taken_back), label[taken_back], "retraction", 7_200_000))
        known_at_ms[corrected] += 3_600_000
        workers.start("path", ["customer", "terminal"])
        workers.start("join", ["join"])
        wait_until(lambda: taken_in(300 + len(corrected) + len(taken_back)), 60, workers)
        send(published(batch.take(second)))
        wait_until(lambda: len(committed(kafka, SCORED)) == 600, 60, workers)
        send(_labels(assembly, batch.take(second), label[second], "new"))
        wait_until(lambda: taken_in(600 + len(corrected) + len(taken_back)), 60, workers)
        workers.kill("path")
        send(published(batch.take(third)))
        workers.start("path", ["customer", "terminal"])
        wait_until(lambda: len(committed(kafka, SCORED)) == COUNT, 60, workers)
        served = _features(assembly, kafka)
        for rows, told in ((second, first), (third, np.concatenate([first, second]))):
            for row in rows.tolist():
                terminal = int(batch.columns["terminal_id"][row])
                wanted = _defined(terminal, int(times_ms[row]), batch.take(told), label[told], known_at_ms[told])
                assert np.array_equal(served[row], wanted, equal_nan=True), row
        assert sum(served[row][1] > 0 for row in third.tolist()) > 50, "there is something to know"
        wait_until(lambda: workers.ready("path"), 60, workers)
        assert workers.stop("path") == 0
        _check_online(settings, batch, label, known_at_ms, np.concatenate([first, second]))
    finally:
        workers.end()


def _check_online(
    settings: Settings, batch: Batch, label: np.ndarray, known_at_ms: np.ndarray, told: np.ndarray
) -> None:
    """What any Feast client reads is as of each terminal's newest event or label."""
    terminals, times_ms = batch.columns["terminal_id"], batch.columns["event_time_ms"]
    keys = np.unique(terminals).tolist()
    rows = [{"terminal_id": key} for key in keys]
    online = open_store(settings).get_online_features([f"terminal_risk:{name}" for name in NAMES], rows).to_dict()
    for place, key in enumerate(keys):
        mine = terminals[told] == key
        heard = known_at_ms[told][mine & ~np.isnan(label[told])]
        as_of_ms = max(int(times_ms[terminals == key].max()), int(heard.max()) if len(heard) else 0)
        wanted = _defined(key, as_of_ms, batch.take(told), label[told], known_at_ms[told])
        got = [math.nan if online[name][place] is None else float(online[name][place]) for name in NAMES]
        assert np.array_equal(got, wanted, equal_nan=True), key
